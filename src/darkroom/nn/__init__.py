"""Floor 1: layers that more than one network is made of, and the networks that look at pictures."""
