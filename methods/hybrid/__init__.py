"""Methods of the group hybrid."""
