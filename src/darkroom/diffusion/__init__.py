"""Floor 3: denoising with a network: the loss, guidance, solvers and the one loop that walks from noise."""
