"""Training (floor 6): data, objective, loop, export."""
