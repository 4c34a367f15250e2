"""The order of training items: full passes, the seed alone decides, and buckets of like lengths save padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.protocol import FamilySettings
from peft_atlas.bench.trainer import Fit

ITEMS, BATCH = 48, 4
LENGTHS = torch.from_numpy(np.random.default_rng(0).integers(3, 60, ITEMS))


def drawn(steps: int, buckets: int, seed: int = 0) -> torch.Tensor:
    """Indices (steps, batch) that a fit trains on."""
    backbone: Any = SimpleNamespace(
        order=lambda prepared: LENGTHS.argsort(stable=True), batch=lambda prepared, index: {"index": index}
    )
    settings = FamilySettings(
        backbone="none", inputs={}, steps=steps, batch=BATCH, eval_batch=BATCH, head_lr=None, buckets=buckets
    )
    nothing: Any = None
    fit = Fit(backbone, nothing, None, nothing, {"index": torch.arange(ITEMS)}, settings, nothing, seed)
    return torch.stack([batch["index"] for batch in fit.batches(steps)])


@pytest.mark.parametrize("buckets", [1, 3, 12, 24])
def test_every_pass_takes_every_item_once(buckets: int) -> None:
    steps = 2 * ITEMS // BATCH
    found = drawn(steps, buckets)
    counts = torch.bincount(found.flatten(), minlength=ITEMS)
    assert counts.eq(2).all()
    assert torch.equal(found, drawn(steps, buckets)) and not torch.equal(found, drawn(steps, buckets, seed=1))
    assert torch.equal(found[:5], drawn(5, buckets)), "how long a run is does not change how it begins"


def test_buckets_hold_the_same_items_with_less_padding_in_no_order_of_length() -> None:
    plain, bucketed = drawn(12, 1), drawn(12, 6)
    for start in (0, 6):
        assert set(plain[start : start + 6].flatten().tolist()) == set(bucketed[start : start + 6].flatten().tolist())
    longest = LENGTHS[bucketed].max(1).values
    assert longest.sum() < 0.8 * LENGTHS[plain].max(1).values.sum()
    assert not torch.equal(longest, longest.sort().values)
