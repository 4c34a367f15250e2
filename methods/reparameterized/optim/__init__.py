"""Low-rank updates with an optimiser setting of their own."""
