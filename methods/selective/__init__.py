"""Methods of the group selective."""
