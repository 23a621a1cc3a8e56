"""Linear heads and their solvers."""
