"""Methods of the group application/clip."""
