"""Methods of the group application."""
