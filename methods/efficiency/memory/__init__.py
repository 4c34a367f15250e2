"""Methods that need less memory for training."""
