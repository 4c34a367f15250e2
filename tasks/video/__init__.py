"""Clips of eight frames whose labels need the order of the frames, and readers of real clips."""
