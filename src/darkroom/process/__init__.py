"""Floor 1: the diffusion process itself: schedules, predictions, objectives and grids of times."""
