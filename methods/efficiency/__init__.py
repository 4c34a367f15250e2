"""Methods that save memory, time or storage."""
