"""Methods on quantised weights."""
