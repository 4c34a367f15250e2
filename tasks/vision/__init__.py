"""The eight tasks of `vtab-embedded`: 1,000 + 500 pictures of 56 x 56, read from assets or rendered."""
