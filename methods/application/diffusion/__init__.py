"""Methods of the group application/diffusion."""
