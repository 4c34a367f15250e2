"""The tiny models of `bench.conformance`, and what their libraries' documentation says of them."""

from __future__ import annotations

from peft_atlas.bench.conformance.tiny import (
    BLOCKS,
    LENGTH,
    NAMES,
    TEXT,
    VOCABULARY,
    WIDTH,
    Tiny,
    outputs,
    redraw,
    tiny,
    tiny_on_meta,
)

__all__ = [
    "BLOCKS",
    "LACKS",
    "LENGTH",
    "NAMES",
    "PADDED",
    "SEE_CLIPS",
    "VOCABULARY",
    "WIDTH",
    "Tiny",
    "outputs",
    "redraw",
    "tiny",
    "tiny_on_meta",
]

PADDED = TEXT
LACKS = {  # places that an architecture does not have, as its own documentation has it
    "vit": {"prompt", "embedding"},
    "vit-layerscale": {"prompt", "embedding"},
    "bert": {"grid"},
    "roberta": {"grid"},
    "llama": {"biases", "grid"},
    "gpt2": {"grid"},
    "t5": {"biases", "grid"},
    "clip-vision": {"prompt", "embedding"},
    "hf-vit": {"prompt", "embedding"},
    "videomae": {"prompt", "embedding"},
    "timesformer": {"prompt", "embedding", "tokens"},
    "vit-frames": {"prompt", "embedding"},
    "open-clip": {"prompt"},
    "unet": {"prompt", "embedding", "grid", "ladder"},
    "text-to-image": {"prompt", "grid", "ladder"},
    "clip-text": {"prompt", "grid"},
    "bloom": {"core", "tokens", "grid"},
    "deberta": {"core", "tokens", "ladder", "grid"},
    "opt": {"grid"},
    "gemma2": {"biases", "grid"},
}
for _name in LACKS.keys() - {"t5", "unet", "text-to-image"}:
    LACKS[_name].add("cross-attention")
for _name in LACKS.keys() - {"text-to-image"}:
    LACKS[_name].add("condition")
SEE_CLIPS = ("videomae", "timesformer", "vit-frames")
for _name in LACKS.keys() - set(SEE_CLIPS):
    LACKS[_name].add("frames")
for _name in LACKS:  # models alone, without a backbone that brings two towers together
    LACKS[_name].add("pair")
