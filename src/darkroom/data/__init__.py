"""From files or built-in scenes to batches: sources, transforms, the loader and the latent cache."""
