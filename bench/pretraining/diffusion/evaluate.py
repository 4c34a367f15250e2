"""Score a trained generator: `python -m peft_atlas.bench.pretraining.diffusion.evaluate --out DIR`.

DIR gets `scores.json`, `samples.png` (prompts that were chosen before any training) and `neighbours.png` (samples, each
beside the training drawings that are nearest to it). What scores is never what conditions: DINOv2 and, for captions, a
CLIP that was aligned on other emoji. Every distance stands beside that of real drawings from the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....tasks.diffusion.scorers import image_features, text_features
from ....tasks.diffusion.sheet import contact_sheet
from ....tasks.partition import Share
from ...backbones.diffusion import GUIDANCE, STEPS
from ...backbones.pixel_diffusion import PixelDiffusionBackbone
from ...registry import registry
from .material import Material, material
from .scores import Alignment, alignment, frechet_distance, nearest
from .train import CARD, INPUTS

SEEN, AGAIN, HELD_OUT = 1001, 1002, 1003  # seeds of drawings that no training has seen
SUBJECTS: Share = "diffusion-subject"  # a share that no training uses
BATCH = 32
IMAGE_SCORER = {"backbone": "dinov2-small", "image_size": 98, "normalisation": "imagenet"}
PROMPTS = (
    "a cat face",
    "a rabbit",
    "a chile flag",
    "a fruit",
    "a red circle on a yellow background",
    "a blue star on a black background",
    "a small red apple at the left",
    "a small red apple at the right",
    "a large clock on a green background",
    "a person on an orange background",
    "a cactus above a red square",
    "three olive emoji",
)
EACH = 6  # images of a prompt


def trained(weights: Path | None, size: int) -> PixelDiffusionBackbone:
    """The card's generator, or one with the UNet in a file."""
    card = registry("backbones").card(CARD)
    if weights is not None:
        unet = {**card.options["unet"], "sample_size": size // card.options["patch"]}
        options = {**card.options, "unet": unet, "trained": str(weights.resolve())}
        card = replace(card, options=options, output={})
    return PixelDiffusionBackbone(card, INPUTS)


def drawn(
    backbone: PixelDiffusionBackbone, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float
) -> np.ndarray:
    """uint8 (N, H, W, 3): an image for each prompt from each one's seed."""
    parts = []
    for start in range(0, len(prompts), BATCH):
        tokens = backbone.tokens(prompts[start : start + BATCH])
        parts.append(backbone.sample(tokens, seeds[start : start + BATCH], steps, guidance).numpy())
        print(f"{start + len(parts[-1])} of {len(prompts)} images", flush=True)
    return np.concatenate(parts)


def distances(images: np.ndarray, seen: Material, again: Material, held_out: Material) -> dict[str, float]:
    """Frechet distances of generated and of real drawings from two sets of drawings that the generator has not seen."""
    generated, real = image_features(IMAGE_SCORER, images), image_features(IMAGE_SCORER, again.images)
    found = {}
    for name, others in (("pretraining share", seen), ("held-out share", held_out)):
        features = image_features(IMAGE_SCORER, others.images)
        found[f"generated to {name}"] = frechet_distance(generated, features)
        found[f"drawings of the pretraining share to {name}"] = frechet_distance(real, features)
    return found


def aligned(scorer: Mapping[str, Any], images: np.ndarray, seen: Material) -> dict[str, Alignment]:
    """How well generated images, and the real ones that the captions were written for, fit the captions."""
    captions = list(seen.captions)
    texts = np.concatenate([text_features(scorer, captions[i : i + BATCH]) for i in range(0, len(captions), BATCH)])
    sets = {"generated": images, "real": seen.images}
    return {
        name: alignment(image_features(scorer, these), texts, captions, np.random.default_rng(0))
        for name, these in sets.items()
    }


def neighbours(images: np.ndarray, again: Material, training: Material) -> tuple[np.ndarray, dict[str, float]]:
    """Places of the three nearest training drawings of each image; mean cosines with the nearest, and of new real
    drawings with theirs, which copy none."""
    features = image_features(IMAGE_SCORER, training.images)
    places, cosines = nearest(image_features(IMAGE_SCORER, images), features, 3)
    real = nearest(image_features(IMAGE_SCORER, again.images), features, 1)[1]
    return places, {"generated": float(cosines[:, 0].mean()), "new real drawings": float(real.mean())}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    backbone = trained(options.weights, options.size)
    backbone.model.to(options.device)
    size, count, how = backbone.size, options.samples, (options.steps, options.guidance)

    seeds = list(range(EACH)) * len(PROMPTS)
    shown = drawn(backbone, [prompt for prompt in PROMPTS for _ in range(EACH)], seeds, *how)
    rows = list(zip(PROMPTS, np.split(shown, len(PROMPTS)), strict=True))
    (options.out / "samples.png").write_bytes(contact_sheet(rows))

    seen, again = (material("diffusion-pretrain", count, size, seed, single=True) for seed in (SEEN, AGAIN))
    held_out = material(SUBJECTS, count, size, HELD_OUT, single=True)
    images = drawn(backbone, seen.captions, range(count), *how)
    training = material("diffusion-pretrain", options.searched, size, options.seed)
    places, cosines = neighbours(images, again, training)
    rows = [
        (seen.captions[i], np.concatenate([images[i : i + 1], training.images[places[i]]]))
        for i in range(min(24, count))
    ]
    (options.out / "neighbours.png").write_bytes(contact_sheet(rows))

    scores: dict[str, Any] = {
        "settings": {"samples": count, "steps": how[0], "guidance": how[1], "searched": options.searched},
        "frechet distance": distances(images, seen, again, held_out),
        "cosine with the nearest training drawing": cosines,
    }
    if options.clip != "none":
        found = aligned({"backbone": options.clip}, images, seen)
        scores["alignment"] = {"scorer": options.clip, **{name: asdict(score) for name, score in found.items()}}
    text = json.dumps(scores, indent=1)
    (options.out / "scores.json").write_text(text, encoding="utf-8")
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Score the embedded generator.")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--weights", type=Path, help="a .safetensors file of the UNet; default: the card's")
    parser.add_argument("--size", type=int, default=32, help="side of an image in pixels, where --weights is given")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument(
        "--searched", type=int, default=4000, help="training drawings among which neighbours are looked for"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training, whose drawings are looked at")
    parser.add_argument("--clip", default="embedded-clip", help="a backbone with two towers, or none")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, of the generator")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
