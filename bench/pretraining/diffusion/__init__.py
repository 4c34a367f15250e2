"""Pretraining the embedded generator: emoji in words. `train` is the script, `evaluate` scores what it made."""
