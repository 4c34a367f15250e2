"""Methods of the group additive."""
