"""Floor 8: one engine that draws for many, and the doors to it."""
