"""Floor 7: named experiments as validated YAML, and their schema."""
