"""infermax_gym."""
