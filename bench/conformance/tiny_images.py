"""Tiny random models that see images or clips, alone, beside a text, or as noise: how each is made, and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.embedding import added_rows
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
TEXT: dict[str, Any] = {**{k: v for k, v in SIZES.items() if k not in IMAGE}, "vocab_size": VOCABULARY}


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


def _unet(condition: int = CONDITION) -> nn.Module:
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
        cross_attention_dim=condition,
        norm_num_groups=8,
    )
    return model


class TextToImage(nn.Module):
    """A UNet under a text encoder, as a generator holds them. The id behind the vocabulary stands for a new word; where
    no method brings an embedding for it, it is the word 1."""

    def __init__(self) -> None:
        super().__init__()
        import transformers as hf

        config = hf.CLIPTextConfig(**TEXT, max_position_embeddings=32, eos_token_id=END)
        self.text_encoder = hf.CLIPTextModel(config)
        self.unet = _unet(WIDTH)

    def forward(self, sample: Tensor, timestep: Tensor, input_ids: Tensor) -> Tensor:
        table: Any = self.text_encoder.get_input_embeddings()
        if not added_rows(table):
            input_ids = input_ids.masked_fill(input_ids >= table.num_embeddings, 1)
        hidden = self.text_encoder(input_ids=input_ids).last_hidden_state
        predicted: Tensor = self.unet(sample, timestep, encoder_hidden_states=hidden).sample
        return predicted

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let both libraries compute blocks again in the backward pass."""
        unet: Any = self.unet
        unet.enable_gradient_checkpointing()
        self.text_encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _image_and_text() -> dict[str, Any]:
    ids = torch.randint(5, END - 1, (2, LENGTH))
    ids[:, -1] = END
    return {"image": _images(), "text": ids}


def _noise_and_condition() -> dict[str, Any]:
    condition = torch.randn(2, LENGTH, CONDITION)
    return {"sample": torch.randn(2, 4, 8, 8), "timestep": torch.tensor([3, 500]), "encoder_hidden_states": condition}


def _noise_and_text() -> dict[str, Any]:
    ids = torch.randint(5, END - 1, (2, LENGTH))
    ids[:, 3], ids[:, -1] = VOCABULARY, END
    return {"sample": torch.randn(2, 4, 8, 8), "timestep": torch.tensor([3, 500]), "input_ids": ids}


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]]]] = {
    "hf-vit": (_hf_vit, lambda: {"pixel_values": _images()}),
    "videomae": (_videomae, lambda: {"pixel_values": _images(4)}),
    "timesformer": (_timesformer, lambda: {"pixel_values": _images(3)}),
    "vit-frames": (_vit_frames, lambda: {"clips": _images(3)}),
    "open-clip": (_open_clip, _image_and_text),
    "unet": (_unet, _noise_and_condition),
    "text-to-image": (TextToImage, _noise_and_text),
}
