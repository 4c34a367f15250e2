"""The backbones of the package, for cards of tiny repositories."""

from peft_atlas.bench.backbones.hub import HubTextBackbone, HubVisionBackbone

__all__ = ["HubTextBackbone", "HubVisionBackbone"]
