"""Methods of the group additive/adapter."""
