"""Architectures by their usual names: what `bench params` counts on without any weights.

One JSON file each: `library` and `class` say what to build, `config` holds what decides shapes (transformers: the
fields of the class's configuration; timm: arguments of `create_model`; diffusion: the architecture of the UNet and the
configuration of CLIP's text encoder; others: arguments of the class), `family` picks the layer of a recipe.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Architecture:
    """The content of one file."""

    name: str
    library: str  # "transformers", "timm", "diffusers", "open_clip" or "diffusion" (of several parts)
    kind: str  # the model's class, or its name in timm
    family: str  # one of `recipes.FAMILIES`
    config: Mapping[str, Any]
    source: str

    @property
    def shared_width(self) -> int | None:
        """Length of the features that two towers project to; None where there is one tower."""
        if self.family != "clip":
            return None
        return int(self.config["projection_dim" if self.library == "transformers" else "embed_dim"])


def names() -> list[str]:
    """Every architecture, sorted."""
    return sorted(file.name.removesuffix(".json") for file in FOLDER.glob("*.json"))


def read(name: str) -> Architecture:
    """The architecture called `name`, one of `names()`."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Architecture(name=name, kind=content.pop("class"), **content)


def build(architecture: Architecture) -> nn.Module:
    """The model on the meta device: names and shapes, no values, nothing downloaded."""
    import torch

    with torch.device("meta"):
        return _LIBRARIES[architecture.library](architecture)


def _transformers(architecture: Architecture) -> nn.Module:
    import transformers

    kind = getattr(transformers, architecture.kind)
    model: nn.Module = kind(kind.config_class(**architecture.config))
    return model


def _timm(architecture: Architecture) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(architecture.kind, pretrained=False, **architecture.config)
    return model


def _class(architecture: Architecture) -> nn.Module:
    library = importlib.import_module(architecture.library)
    model: nn.Module = getattr(library, architecture.kind)(**architecture.config)
    return model


def _diffusion(architecture: Architecture) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    from ..backbones.diffusion import DiffusionModel

    text = CLIPTextModel(CLIPTextConfig(**architecture.config["text_encoder"]))
    return DiffusionModel({"unet": build(read(architecture.config["unet"])), "text_encoder": text})


_LIBRARIES = {
    "transformers": _transformers,
    "timm": _timm,
    "diffusers": _class,
    "open_clip": _class,
    "diffusion": _diffusion,
}
