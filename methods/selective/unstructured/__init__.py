"""Methods of the group selective/unstructured."""
