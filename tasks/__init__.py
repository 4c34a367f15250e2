"""Tasks: data in two splits, a head, a loss and a score."""
