"""Floor 2: the first stage, which compresses pictures perceptually."""
