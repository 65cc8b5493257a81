"""Training of what ships learned: pose priors and the initialiser, from motion capture."""
