"""Tiny random CLIPs, a task of names for them, and training of a method on both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from peft_atlas.bench.backbones.clip import ClipBackbone
from peft_atlas.bench.conformance.subject import Subject
from peft_atlas.bench.names import parse_one
from peft_atlas.bench.protocol import FamilySettings, load_protocol
from peft_atlas.bench.recipes import configure, resolve
from peft_atlas.bench.registry import registry
from peft_atlas.bench.trainer import Fit
from peft_atlas.methods.contract import Method
from peft_atlas.tasks.contract import Card, Split, SplitName
from peft_atlas.tasks.openvocab.open_vocabulary import OpenVocabulary
from torch import Tensor

BACKBONES = ("tiny-clip", "tiny-open-clip")  # pooled at the mean of all tokens, and causal and pooled at the last
INPUTS = {"image_size": 28, "normalisation": "half", "max_tokens": 16}
CLASSES = ("cat", "dog", "a red lamp", "x")  # the last is the word that contexts stand in for
TEMPLATE = "this is one {} here"
CARD = Card(
    id="tiny-names",
    name="Tiny names",
    version=1,
    family="clip",
    target="",
    metric="accuracy",
    higher_is_better=True,
    licence="",
    citation="",
    description="",
    classes=CLASSES,
    options={"templates": [TEMPLATE]},
)
SETTINGS = FamilySettings(backbone="tiny-clip", steps=5, batch=8, eval_batch=5, head_lr=None)


class TinyNames(OpenVocabulary):
    """Eight noisy pictures, each of its class's own brightness."""

    def build(self, split: SplitName) -> Split:
        return self.make(split)  # nothing is kept in the cache folder

    def make(self, split: SplitName) -> Split:
        draws = np.random.RandomState({"train": 0, "test": 1}[split])
        labels = np.arange(8) % len(CLASSES)
        images = 50 * labels[:, None, None, None] + draws.randint(0, 60, size=(8, 28, 28, 3))
        return Split({"image": images.astype(np.uint8)}, labels, tuple(f"{split}-{i}" for i in range(8)))


def backbone(name: str, meta: bool = False, templates: tuple[str, ...] = (TEMPLATE,)) -> ClipBackbone:
    """The CLIP called `name`, which knows the task's names."""
    kind = registry("backbones").load(name)
    made: ClipBackbone = kind(registry("backbones").card(name), INPUTS, meta=meta)
    TinyNames(replace(CARD, options={"templates": list(templates)})).introduce(made)
    return made


def subject(text: str, name: str = "tiny-clip") -> Subject:
    """A method by its name and arguments, with the values that its recipe has for the backbone."""
    asked = parse_one(text)
    values = resolve(asked.id, asked.arguments, "clip", name, CARD.id)
    return Subject(registry("methods").load(asked.id), configure(asked.id, values))


def attached(text: str, clip: ClipBackbone, seed: int = 1) -> Method:
    """A method on a CLIP, its random values drawn from `seed`."""
    chosen = subject(text, clip.card.id)
    torch.manual_seed(seed)
    method = chosen.kind(chosen.config)
    method.attach(clip.anatomy)
    return method


def fit_of(clip: ClipBackbone, method: Method, **changed: Any) -> Fit:
    """A training run of the method on the eight pictures."""
    task = TinyNames(CARD)
    settings = SETTINGS.model_copy(update=changed)
    optimizer = load_protocol("smoke").optimizer
    return Fit(clip, method, None, task, clip.prepare(task.build("train")), settings, optimizer, seed=3)


def items(clip: ClipBackbone, split: SplitName = "train") -> dict[str, Tensor]:
    """All eight pictures of a split as one batch."""
    prepared = clip.prepare(TinyNames(CARD).build(split))
    return clip.batch(prepared, prepared["index"])


def scores(clip: ClipBackbone, batch: dict[str, Tensor]) -> Tensor:
    """Logits (B, C)."""
    assert clip.anatomy.pair is not None
    return clip.anatomy.pair.scores(batch)
