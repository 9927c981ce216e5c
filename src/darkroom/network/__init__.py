"""Floor 2: the denoising U-Net."""
