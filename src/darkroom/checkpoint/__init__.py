"""Floor 4: model files: our own, and those of others, read as data and never executed."""
