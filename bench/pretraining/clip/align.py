"""Align DINOv2 and MiniLM: `python -m peft_atlas.bench.pretraining.clip.align --out FILE.safetensors`.

Pictures are the partition's share `clip-align` and scenes. With `--validate`, a fifth of the share's look-alike groups
is held out and scored; without it, all of the share is aligned and `clip-unseen` is scored. Beside the weights lies a
report (JSON): settings, losses, scores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from ....tasks.openvocab.emoji_names import named_emoji
from ....tasks.partition import Emoji
from ...backbones.clip import ClipBackbone
from ...registry import registry
from .material import Material, aligned_emoji, emoji_material, joined, scene_material
from .probes import emoji_probes, scene_probes
from .scoring import Score, scores
from .towers import SplitTowers
from .training import Schedule, centre, examples_of, train

CARD = "embedded-clip"
INPUTS = {"image_size": 56, "normalisation": "imagenet", "max_tokens": 32}
PROBED = 200  # scenes for each question


def untrained() -> ClipBackbone:
    """The pair of the card before any alignment."""
    card = registry("backbones").card(CARD)
    options = {name: value for name, value in card.options.items() if name != "trained"}
    return ClipBackbone(replace(card, options=options, output={}), INPUTS)


def material(emoji: Sequence[Emoji], views: int, scenes: int, seed: int) -> Material:
    """Views of the emoji, and scenes of shapes and of the single-code-point ones among them."""
    return joined([emoji_material(emoji, views, seed), scene_material("alignment", scenes, seed, emoji)])


def save(trained: dict[str, Tensor], file: Path) -> None:
    """The tensors in half precision: the model is what this file holds."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().half().contiguous() for name, tensor in trained.items()}, file)


def scored(backbone: ClipBackbone, validate: bool) -> list[Score]:
    """Zero-shot scores on emoji and scenes that the alignment never saw."""
    if not validate:
        return scores(backbone, [*emoji_probes(named_emoji("clip-unseen")), *scene_probes("task", PROBED)])
    held_out = [emoji for emoji in aligned_emoji("validation") if "-" not in emoji.codepoints]
    return scores(backbone, [*emoji_probes(held_out), *scene_probes("validation", PROBED)])


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    started = time.process_time()
    schedule = Schedule(steps=options.steps, batch=options.batch)
    towers = SplitTowers(untrained(), options.first_block)
    emoji = aligned_emoji("fit" if options.validate else None)
    examples = examples_of(material(emoji, options.views, options.scenes, options.seed), towers)
    print(f"{len(examples.tokens)} pictures, {len(examples.moments)} sentences", flush=True)
    centre(towers, examples)
    losses: list[float] = []

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}, {time.process_time() - started:.0f} s of CPU", flush=True)

    train(towers, examples, schedule, options.seed, report)
    trained = towers.trained()
    for tensor in trained.values():
        tensor.data = tensor.data.half().float()
    save(trained, options.out)
    found = scored(towers.backbone, options.validate)
    print(*found, sep="\n")
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    content = {
        "settings": settings | asdict(schedule),
        "cpu_seconds": round(time.process_time() - started),
        "scores": [asdict(score) for score in found],
        "losses": [round(loss, 4) for loss in losses],
    }
    options.out.with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Align DINOv2 and MiniLM on emoji and scenes.")
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors file; the report lies beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--batch", type=int, default=Schedule.batch)
    parser.add_argument("--views", type=int, default=4000, help="pictures of emoji")
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--first-block", type=int, default=10, help="image blocks from this one on train; 12: none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--validate", action="store_true", help="hold out a fifth of the groups, and score on it")
    return parser


if __name__ == "__main__":
    main()
