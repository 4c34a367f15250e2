"""Methods that change weights by a trained function that can be folded into them."""
