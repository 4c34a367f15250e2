"""Methods of the group additive/prompt."""
