"""Methods of the group additive/scale."""
