"""Well-known methods that the surveys do not name."""
