"""Methods that are other libraries' code, put through the same harness."""
