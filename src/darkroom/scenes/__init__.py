"""The built-in `shapes` world: what can be in a scene, how it is said, how it is drawn."""
