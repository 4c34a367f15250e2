"""Smoke tasks: synthetic, tiny, no asset. They say whether a method runs and learns at all."""
