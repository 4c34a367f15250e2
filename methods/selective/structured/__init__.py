"""Methods of the group selective/structured."""
