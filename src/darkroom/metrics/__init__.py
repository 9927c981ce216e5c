"""Floor 4: what pictures are worth, in numbers."""
