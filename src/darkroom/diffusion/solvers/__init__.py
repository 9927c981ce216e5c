"""Ways to step from one time to the next, given x0 at a time; one file each, none knows what is predicted."""
