"""Methods of the group efficiency/pruning."""
