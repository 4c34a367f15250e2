"""Updates of weight matrices by Kronecker products."""
