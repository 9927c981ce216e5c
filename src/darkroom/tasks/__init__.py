"""Floor 5: a request becomes conditions, a first latent, a constraint, and pictures."""
