"""The memory ledger against networks whose bytes can be counted by hand."""

from __future__ import annotations

import pytest
import torch
from peft_atlas.bench.ledger import LiveTensors, SavedTensors, storage_bytes, tensors_of
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BATCH, WIDTH, HIDDEN = 8, 16, 64
FLOAT = 4  # bytes


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))


def saved(model: nn.Module, x: Tensor) -> SavedTensors:
    with SavedTensors(tensors_of([model])) as found:
        model(x).sum().backward()
    return found


def test_saved_bytes_of_a_network_by_hand() -> None:
    x, model = torch.randn(BATCH, WIDTH), network()
    everything = FLOAT * BATCH * (WIDTH + HIDDEN)  # the input of each linear; ReLU keeps what the second one reads
    assert saved(model, x).peak == everything
    model[0].requires_grad_(False)
    assert saved(model, x).peak == FLOAT * BATCH * HIDDEN, "a frozen first layer needs no input"
    model.requires_grad_(False)
    model[2].bias.requires_grad_(True)
    assert saved(model, x).peak == 0, "a bias needs nothing"
    model.requires_grad_(False)
    model[0].weight.requires_grad_(True)
    assert saved(model, x).peak == everything, "the way to the first layer leads through ReLU"


def test_a_view_counts_with_its_whole_storage_and_shared_storages_once() -> None:
    weight = torch.randn(HIDDEN, requires_grad=True)
    wide = torch.randn(BATCH, 4 * HIDDEN)
    with SavedTensors([weight]) as found:
        (wide[:, :HIDDEN] * weight + wide[:, HIDDEN : 2 * HIDDEN] * weight).sum().backward()
    assert found.peak == FLOAT * BATCH * 4 * HIDDEN
    assert storage_bytes([wide[0], wide[1], wide]) == FLOAT * BATCH * 4 * HIDDEN


def test_the_peak_is_of_one_moment_and_not_a_sum_over_passes() -> None:
    model, x = network(), torch.randn(BATCH, WIDTH)
    once = saved(model, x).peak
    with SavedTensors(tensors_of([model])) as found:
        for _ in range(3):
            model(x).sum().backward()
    assert found.peak == once


def test_checkpointing_keeps_the_inputs_of_its_parts_only() -> None:
    parts = nn.ModuleList(nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
                          for _ in range(3))  # fmt: skip
    x = torch.randn(BATCH, HIDDEN)
    with SavedTensors(tensors_of([parts])) as found:
        y = x
        for part in parts:
            y = checkpoint(part, y, use_reentrant=False)
        loss = y.sum()
        kept = found.peak
        loss.backward()
    unit = FLOAT * BATCH * HIDDEN
    assert kept == 3 * unit
    assert saved(nn.Sequential(*parts), x).peak == 7 * unit, "an input and two activations a part, shared at the seams"
    with LiveTensors(tensors_of([parts])) as live:
        y = x
        for part in parts:
            y = checkpoint(part, y, use_reentrant=False)
        forward = live.peak
        y.sum().backward()
    assert live.peak > forward + 2 * unit, "the second pass of a part is in the peak of what is alive"


def test_casts_of_frozen_weights_are_told_apart() -> None:
    model, x = network(), torch.randn(BATCH, WIDTH)
    model.requires_grad_(False)
    model[0].bias.requires_grad_(True)
    everything = list(tensors_of([model]))
    live = LiveTensors(everything)
    with live, SavedTensors(everything, live.is_weight_copy) as found:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x).float().sum()
        loss.backward()
    assert found.copies == 2 * WIDTH * HIDDEN, (
        "two bytes for each weight of the second layer, which the gradient crosses"
    )
    assert found.peak - found.copies == 2 * BATCH * HIDDEN, "ReLU's result, in bfloat16"


def test_live_bytes_rise_and_fall_with_the_tensors() -> None:
    x = torch.randn(BATCH, WIDTH)
    unit = FLOAT * BATCH * WIDTH
    with LiveTensors() as live:
        y = x + 1
        z = y * 2
        assert live.peak == 2 * unit, "the input was there before"
        del y
        w = z.exp()
        assert live.peak == 2 * unit
        z.add_(w)
        assert live.peak == 2 * unit, "in place makes nothing"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_ledger_is_what_cuda_allocates() -> None:
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.ReLU()))).cuda()
    x = torch.randn(512, 1024, device="cuda")
    model(x).sum().backward()  # cuBLAS takes its workspace
    model.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with SavedTensors(tensors_of([model])) as found:
        loss = model(x).sum()
        kept = torch.cuda.memory_allocated() - before - loss.untyped_storage().nbytes()
        x_bytes = x.untyped_storage().nbytes()  # saved, and allocated before
        assert abs(found.peak - x_bytes - kept) <= 0.01 * kept + 4096


def test_an_input_that_is_freed_does_not_hide_what_takes_its_place() -> None:
    """`torch.tensor` makes storages that no operation returns; their addresses are used again."""
    size = 1 << 16
    with LiveTensors() as live:
        for _ in range(20):
            made = torch.tensor([0.0] * size) + 1
            del made
        first = live.peak
        kept = [torch.tensor([0.0] * size) + 1 for _ in range(20)]
    assert first == size * 4 and live.peak == 20 * size * 4 and len(kept) == 20
