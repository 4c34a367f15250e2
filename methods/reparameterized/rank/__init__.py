"""Low-rank updates that choose their rank."""
