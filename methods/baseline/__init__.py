"""Methods of the group baseline."""
