"""Aligning two towers: an embedded CLIP from DINOv2 and MiniLM. `align` is the script."""
