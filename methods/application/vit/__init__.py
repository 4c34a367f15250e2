"""Methods of the group application/vit."""
