"""Sizes of all tiny random models."""

WIDTH, BLOCKS, LENGTH, VOCABULARY = 32, 2, 7, 64
END = VOCABULARY - 1  # CLIP pools at this token
