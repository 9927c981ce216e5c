"""Floor 1: layers without a subject: attention, residual blocks, resampling, embeddings, transformers."""
