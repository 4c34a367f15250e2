"""Adapters as diffusers reads them: `load_lora_weights`, `load_textual_inversion`, `unet.load_attn_procs`.

What is written loads into a plain pipeline of the same models, which then draws the same images. The package `peft`,
through which diffusers loads low-rank updates, is not needed to write them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .errors import UsageError
from .names import parse_one
from .peft_format import LOW_RANK, low_rank_tensors

if TYPE_CHECKING:
    from ..methods.contract import Method
    from .attachment import Attachment

LORA_FILE = "pytorch_lora_weights.safetensors"
WORD_FILE = "learned_embeds.safetensors"
CUSTOM_FILE = "pytorch_custom_diffusion_weights.safetensors"
KNOWN = (*LOW_RANK, "textual-inversion", "custom-diffusion")
PARTS = {"UNet2DConditionModel": "unet", "CLIPTextModel": "text_encoder", "CLIPTextModelWithProjection": "text_encoder"}


def write(attachment: Attachment, folder: str | Path) -> None:
    """Write `folder`. UsageError for a method or a model that diffusers has no format for."""
    from safetensors.torch import save_file

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, tensors in _files(attachment).items():
        own = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
        save_file(own, str(target / name), metadata={"format": "pt"})


def _files(attachment: Attachment) -> dict[str, dict[str, Tensor]]:
    method_id = parse_one(attachment.name).id
    if method_id in LOW_RANK:
        return {LORA_FILE: _low_rank(attachment.model, attachment.method, method_id == "dora")}
    if method_id == "textual-inversion":
        return _words(attachment.method)
    if method_id == "custom-diffusion":
        words = _words(attachment.method) if hasattr(attachment.method, "words") else {}
        return {CUSTOM_FILE: _cross_attention(attachment.model, attachment.method), **words}
    raise UsageError(f"{method_id} cannot be written in diffusers' format, which {', '.join(KNOWN)} can")


def _low_rank(model: nn.Module, method: Method, is_dora: bool) -> dict[str, Tensor]:
    """Tensors by the names of the pipeline's parts. The scale goes into B: without alphas diffusers scales by 1."""
    tensors, scale = low_rank_tensors(method, is_dora)
    own = PARTS.get(type(model).__name__)
    prefix = "" if own is None else f"{own}."
    scaled = {name: scale * t if name.endswith(".lora_B.weight") else t for name, t in tensors.items()}
    found = {_in_part(prefix + name): tensor for name, tensor in scaled.items()}
    if strange := [name for name in found if name.partition(".")[0] not in PARTS.values()]:
        raise UsageError(f"diffusers' format has no name for {strange[0]}: attach to a pipeline, or to its UNet")
    return found


def _in_part(name: str) -> str:
    """Magnitudes of text encoders, which transformers reads and not HF PEFT, are weights of modules there."""
    is_text = name.startswith("text_encoder") and name.endswith(".lora_magnitude_vector")
    return f"{name}.weight" if is_text else name


def _words(method: Method) -> dict[str, dict[str, Tensor]]:
    """A file for each new word, which holds its embedding under its name; `learned_embeds` where there is one word."""
    tables: Any = method.words
    if len(tables.rows) != 1:
        raise UsageError("a word of several text encoders cannot be written in diffusers' format")
    (rows,) = tables.rows
    words = [f"<new{number}>" for number in range(1, len(rows) + 1)]
    files = [WORD_FILE] if len(words) == 1 else [f"{word.strip('<>')}.safetensors" for word in words]
    return {file: {word: row} for file, word, row in zip(files, words, rows, strict=True)}


def _cross_attention(model: nn.Module, method: Method) -> dict[str, Tensor]:
    """Keys and values by the names of the UNet's attention processors; those of self-attention hold nothing."""
    unet = model if type(model).__name__ in PARTS else getattr(model, "unet", None)
    if not hasattr(unet, "attn_processors"):
        raise UsageError("diffusers' format of custom-diffusion is for UNets: attach to a pipeline, or to its UNet")
    trained = {name.removeprefix("unet."): p for name, p in method.trained_tensors().items()}
    found: dict[str, Tensor] = {}
    for processor in unet.attn_processors:  # type: ignore[union-attr]
        stem = processor.removesuffix(".processor")
        if f"{stem}.to_k.weight" in trained:
            for kind in ("to_k", "to_v"):
                found[f"{processor}.{kind}_custom_diffusion.weight"] = trained[f"{stem}.{kind}.weight"]
        else:
            found[processor] = torch.empty(0)
    return found
