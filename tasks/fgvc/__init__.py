"""FGVC: five tasks of fine-grained classification, in VPT's splits."""
