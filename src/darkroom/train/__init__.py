"""Floor 6: training of both stages: their objectives, one generator loop, states that runs go on from."""
