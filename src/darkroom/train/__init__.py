"""Floor 6: training of both stages: one generator loop, run folders that resume, plans."""
