"""Train the embedded generator: `python -m peft_atlas.bench.pretraining.diffusion.train --out DIR`.

The UNet of the card `embedded-diffusion` learns to draw the partition's share `diffusion-pretrain` from captions. The
same command goes on after an interruption. At the end DIR holds `embedded-diffusion.safetensors` (the running mean of
the weights, in half precision) and a report beside it (JSON): settings, losses, seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ...backbones.pixel_diffusion import PixelDiffusionBackbone
from ...registry import registry
from .examples import examples_of
from .material import material
from .training import Report, Schedule, State, fresh, restore, save, train, write_whole

CARD = "embedded-diffusion"
INPUTS = {"max_tokens": 32}
CHECKPOINT = "checkpoint.safetensors"


def untrained(seed: int, size: int) -> PixelDiffusionBackbone:
    """The card's model with a UNet drawn from `seed`, for images of `size` pixels."""
    card = registry("backbones").card(CARD)
    options = {name: value for name, value in card.options.items() if name != "trained"} | {"random": seed}
    options["unet"] = {**options["unet"], "sample_size": size // options["patch"]}
    return PixelDiffusionBackbone(replace(card, options=options, output={}), INPUTS)


def finish(state: State, settings: dict[str, object], folder: Path) -> None:
    """Write what a card takes: the mean weights, and a report."""
    from safetensors.torch import save as to_bytes

    halves = {name: tensor.detach().cpu().half().contiguous() for name, tensor in state.means.items()}
    write_whole(folder / f"{CARD}.safetensors", to_bytes(halves))
    losses = [round(loss, 5) for loss in state.losses]
    report = {
        "settings": settings,
        "cpu_seconds": round(state.cpu_seconds),
        "torch": torch.__version__,
        "losses": losses,
    }
    write_whole(folder / f"{CARD}.json", json.dumps(report, indent=1).encode())


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.backends.cuda.enable_flash_sdp(False)  # on a CPU, fused attention in bfloat16 is slower than plain products
    options.out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(steps=options.steps, batch=options.batch)
    data = {name: getattr(options, name) for name in ("size", "items", "seed", "dtype")}
    settings: dict[str, object] = {**data, **asdict(schedule)}
    backbone = untrained(options.seed, options.size)
    backbone.model.to(options.device)
    state = fresh(backbone.model.unet, schedule)
    checkpoint = options.out / CHECKPOINT
    if checkpoint.is_file():
        restore(state, settings, checkpoint)
    print(f"{state.step} of {schedule.steps} steps are taken; drawing {options.items} pictures", flush=True)
    examples = examples_of(
        material("diffusion-pretrain", options.items, options.size, options.seed), backbone, options.dtype
    )
    print(f"{len(examples.states)} different captions, of {time.process_time():.0f} s of CPU so far", flush=True)
    report = _reporter(state, lambda: save(state, settings, checkpoint), options.save_every, schedule.steps)
    train(backbone, examples, state, schedule, options.seed, options.dtype, report)
    finish(state, settings, options.out)


def _reporter(state: State, keep: Callable[[], None], every: int, steps: int) -> Report:
    """Count seconds, print the loss, and keep the state now and then and at the end."""
    last = time.process_time()

    def report(step: int, loss: float) -> None:
        nonlocal last
        now = time.process_time()
        state.cpu_seconds += now - last
        last = now
        if step % 20 == 0:
            recent = state.losses[-100:]
            print(f"step {step}: loss {sum(recent) / len(recent):.4f}, {state.cpu_seconds:.0f} s of CPU", flush=True)
        if step % every == 0 or step == steps:
            keep()

    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the embedded generator on emoji with captions.")
    parser.add_argument("--out", type=Path, required=True, help="a folder; it also holds the checkpoint")
    parser.add_argument("--size", type=int, default=32, help="side of an image in pixels")
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--batch", type=int, default=Schedule.batch)
    parser.add_argument("--items", type=int, default=24000, help="drawings, each with its caption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of products")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
