"""Floor 6: quality, with its protocol written beside it."""
