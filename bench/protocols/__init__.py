"""What is equal for all methods of a comparison, one versioned YAML each."""
