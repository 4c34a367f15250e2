"""Pretrained models behind one entrance, one card per set of weights."""
