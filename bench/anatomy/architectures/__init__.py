"""One file per architecture: how its modules become the places of a tower.

To add one, write `tower(builder, stack) -> Tower` in a new file and list the stack's class name in `ARCHITECTURES`
(or call `register`, from a plug-in); with the library before it where two libraries use the same name. The stack is the
module that owns the blocks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..builder import Builder
    from ..tower import Tower

    Describe = Callable[[Builder, Any], Tower]

ARCHITECTURES: dict[str, str] = {
    "VisionTransformer": "timm_vit",
    "BertModel": "bert",
    "RobertaModel": "bert",
    "LlamaModel": "llama",
    "MistralModel": "llama",
    "Qwen2Model": "llama",
    "Qwen3Model": "llama",
    "GemmaModel": "gemma",
    "Gemma2Model": "gemma",
    "Gemma3TextModel": "gemma",
    "Phi3Model": "phi3",
    "GPT2Model": "gpt2",
    "GPTNeoXModel": "gpt_neox",
    "OPTDecoder": "opt",
    "DebertaV2Model": "deberta",
    "T5Stack": "t5",
    "MT5Stack": "t5",
    "CLIPVisionModel": "clip",
    "CLIPVisionTransformer": "clip",
    "CLIPTextModel": "clip",
    "CLIPTextTransformer": "clip",
    "BloomModel": "bloom",
    "ViTModel": "vit",
    "VideoMAEModel": "videomae",
    "TimesformerModel": "timesformer",
    "FrameAverage": "frame_average",
    "open_clip.CLIP": "open_clip",
    "open_clip.VisionTransformer": "open_clip",
    "open_clip.TextTransformer": "open_clip",
    "Transformer2DModel": "transformer_2d",
}

_registered: dict[str, Describe] = {}


def register(class_name: str, describe: Describe) -> None:
    """Make `describe(builder, stack)` build the tower of stacks whose class is called `class_name`."""
    _registered[class_name] = describe


def describer(stack: object) -> Describe | None:
    """The function that describes stacks of this object's class, or None."""
    name, library = type(stack).__name__, type(stack).__module__.partition(".")[0]
    if name in _registered:
        return _registered[name]
    file = ARCHITECTURES.get(f"{library}.{name}") or ARCHITECTURES.get(name)
    return None if file is None else importlib.import_module(f".{file}", __name__).tower


def known() -> list[str]:
    """Class names of all stacks that can be described."""
    return sorted({*ARCHITECTURES, *_registered})
