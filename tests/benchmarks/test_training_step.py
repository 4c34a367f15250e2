"""One training step of `lora(targets=q+v)` on MiniLM, against the floor and against HF PEFT.

The floor is the same frozen backbone with only the gradients of its inputs computed: what no adapter that sits in the
first block can save. All providers run in turn within each round, because machines drift; what counts is the ratio
within a round. Batch 32, 64 tokens, fp32 backbone and adapter, one thread, dropout off, optimiser step included.

    pytest tests/benchmarks/test_training_step.py -s
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft_atlas.bench.attachment import attach
from peft_atlas.bench.registry import registry

BATCH, TOKENS, WARMUP, ROUNDS = 32, 64, 3, 15
Step = Callable[[], None]


def backbone() -> torch.nn.Module:
    cards = registry("backbones")
    loaded = cards.load("minilm-l6")(cards.card("minilm-l6"), {"max_tokens": TOKENS})
    model: torch.nn.Module = loaded.model
    return model


def loss_of(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden.mean(1).pow(2).sum()


def floor(ids: torch.Tensor, mask: torch.Tensor) -> Step:
    model: Any = backbone()
    embedded = model.embeddings.word_embeddings(ids).detach().requires_grad_(True)

    def step() -> None:
        hidden = model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        hidden.mean(1).pow(2).sum().backward()
        embedded.grad = None

    return step


def ours(ids: torch.Tensor, mask: torch.Tensor) -> Step:
    attached = attach(backbone(), "lora(r=8, targets=q+v)")
    return optimised(attached.model, attached.parameters(), ids, mask)


def theirs(ids: torch.Tensor, mask: torch.Tensor) -> Step:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
    model = peft.get_peft_model(backbone(), config).eval()
    return optimised(model, [parameter for parameter in model.parameters() if parameter.requires_grad], ids, mask)


def optimised(model: Any, parameters: list[torch.nn.Parameter], ids: torch.Tensor, mask: torch.Tensor) -> Step:
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, ids, mask).backward()
        optimizer.step()

    return step


@pytest.mark.assets
def test_lora_step(benchmark: Any) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids, mask = torch.randint(1000, 20000, (BATCH, TOKENS)), torch.ones(BATCH, TOKENS, dtype=torch.long)
    steps = {"floor": floor(ids, mask), "ours": ours(ids, mask), "HF PEFT": theirs(ids, mask)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}

    def one_round() -> None:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=WARMUP)
    for name in ("ours", "HF PEFT"):
        pairs = zip(seconds[name][WARMUP:], seconds["floor"][WARMUP:], strict=True)
        ratios = sorted(mine / base for mine, base in pairs)
        benchmark.extra_info[f"{name} / floor"] = round(statistics.median(ratios), 3)
        print(f"\n{name}: {statistics.median(ratios):.3f} of the floor, from {ratios[0]:.3f} to {ratios[-1]:.3f}")
    print({name: round(statistics.median(values[WARMUP:]), 3) for name, values in seconds.items()})
