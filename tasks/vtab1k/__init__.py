"""VTAB-1k: nineteen tasks of a thousand pictures each, from folders that its scripts make."""
