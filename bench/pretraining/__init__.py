"""Scripts that pretrain what the package index does not carry, from the parts that it does carry."""
