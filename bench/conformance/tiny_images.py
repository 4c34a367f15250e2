"""Tiny random models that see images or clips, alone, beside a text, or as noise: how each is made, and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .tiny_sizes import BLOCKS, END, LENGTH, VOCABULARY, WIDTH

CONDITION = 2 * WIDTH  # width of what a UNet attends to
IMAGE: dict[str, Any] = {"image_size": 28, "patch_size": 14}
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    **IMAGE,
}


def _images(*frames: int) -> Tensor:
    """Two images, or clips of so many frames."""
    return torch.randn(2, *frames, 3, 28, 28)


def _hf_vit() -> nn.Module:
    import transformers as hf

    return hf.ViTModel(hf.ViTConfig(**SIZES))


def _videomae() -> nn.Module:
    import transformers as hf

    return hf.VideoMAEModel(hf.VideoMAEConfig(**SIZES, num_frames=4, use_mean_pooling=False))


def _timesformer() -> nn.Module:
    import transformers as hf

    return hf.TimesformerModel(hf.TimesformerConfig(**SIZES, num_frames=3))


def _vit_frames() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    from ..anatomy.frames import FrameAverage

    sizes: dict[str, Any] = {"img_size": 28, "patch_size": 14, "embed_dim": WIDTH, "depth": BLOCKS, "num_heads": 2}
    return FrameAverage(VisionTransformer(**sizes, num_classes=0, global_pool="avg"), 3)


def _open_clip() -> nn.Module:
    from open_clip.model import CLIP

    # torch's fast path, which only inference without gradients takes, rounds in another order
    torch.backends.mha.set_fastpath_enabled(False)
    common: dict[str, Any] = {"width": WIDTH, "layers": BLOCKS, "mlp_ratio": 2.0}
    vision: Any = {**common, **IMAGE, "head_width": 16, "ls_init_value": 0.1}
    text: Any = {**common, "context_length": LENGTH, "vocab_size": VOCABULARY, "heads": 2}
    return CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, output_dict=True)


def _unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    kind: Any = UNet2DConditionModel  # mypy takes it for no Module
    model: nn.Module = kind(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        block_out_channels=(WIDTH, WIDTH),
        layers_per_block=1,
        transformer_layers_per_block=BLOCKS,
        attention_head_dim=2,  # the number of heads, by diffusers' naming
        cross_attention_dim=CONDITION,
        norm_num_groups=8,
    )
    return model


def _image_and_text() -> dict[str, Any]:
    ids = torch.randint(5, END - 1, (2, LENGTH))
    ids[:, -1] = END
    return {"image": _images(), "text": ids}


def _noise_and_condition() -> dict[str, Any]:
    condition = torch.randn(2, LENGTH, CONDITION)
    return {"sample": torch.randn(2, 4, 8, 8), "timestep": torch.tensor([3, 500]), "encoder_hidden_states": condition}


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]]]] = {
    "hf-vit": (_hf_vit, lambda: {"pixel_values": _images()}),
    "videomae": (_videomae, lambda: {"pixel_values": _images(4)}),
    "timesformer": (_timesformer, lambda: {"pixel_values": _images(3)}),
    "vit-frames": (_vit_frames, lambda: {"clips": _images(3)}),
    "open-clip": (_open_clip, _image_and_text),
    "unet": (_unet, _noise_and_condition),
}
