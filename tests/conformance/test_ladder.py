"""Ladders beside a stack: what they read and replace, and that no gradient flows through the blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import anatomy_of
from peft_atlas.bench.anatomy.calling import output_of, with_output
from peft_atlas.bench.anatomy.ladder import Pass
from peft_atlas.bench.anatomy.tower import Tower
from torch import Tensor, nn

from .tiny import BLOCKS, LACKS, NAMES, WIDTH, Tiny, tiny

LADDERS = [name for name in NAMES if "ladder" not in LACKS[name]]
every_ladder = pytest.mark.parametrize("name", LADDERS)


class Seen:
    """A ladder's function that keeps the pass and returns `scale` times the output."""

    def __init__(self, scale: float | Tensor) -> None:
        self.scale, self.passes, self.outputs = scale, [], []  # type: ignore[var-annotated]

    def __call__(self, y: Tensor, running: Pass) -> Tensor:
        self.passes.append(running)
        self.outputs.append(y)
        return y * self.scale


def _keep(kept: list[Tensor], module: nn.Module, args: Any, output: Any) -> None:
    kept.append(output_of(output))


def _scaled(scale: Tensor, module: nn.Module, args: Any, output: Any) -> Any:
    return with_output(output, output_of(output) * scale)


def block_outputs(t: Tiny, tower: Tower) -> list[Tensor]:
    """What leaves the tower's blocks, by hooks on the plain model."""
    kept: list[Tensor] = []
    hooks = [block.module.register_forward_hook(partial(_keep, kept)) for block in tower.blocks]
    t.outputs()
    for hook in hooks:
        hook.remove()
    return kept


@every_ladder
def test_a_ladder_reads_every_block_and_replaces_the_last_hidden_states(name: str) -> None:
    t = tiny(name)
    plain = t.outputs()
    for tower_name in anatomy_of(t.model).towers:
        tower = anatomy_of(t.model).towers[tower_name]
        expected = block_outputs(t, tower)
        scale = torch.linspace(1, 2, WIDTH)  # not one for all channels, to which CLIP's features are blind
        seen, scaled = Seen(1.0), Seen(scale)
        handle = tower.ladder(seen)
        assert torch.equal(t.outputs(), plain)
        (running,) = seen.passes
        assert len(running.rungs) == BLOCKS
        for rung, output in zip(running.rungs, expected, strict=True):
            assert torch.equal(rung.hidden, output)
        assert seen.outputs[0].shape == running.start.shape == (*expected[0].shape[:2], WIDTH)
        handle.remove()
        handle = tower.ladder(scaled)
        replaced = t.outputs()
        handle.remove()
        assert tower.exit is not None
        hook = tower.exit.register_forward_hook(partial(_scaled, scale))
        assert torch.equal(t.outputs(), replaced) and not torch.equal(replaced, plain)
        hook.remove()
        assert torch.equal(t.outputs(), plain)


@pytest.mark.parametrize("name", [name for name in LADDERS if "tokens" not in LACKS[name]])
def test_tokens_in_the_blocks_stay_below_the_ladder(name: str) -> None:
    t = tiny(name)
    tower = next(iter(anatomy_of(t.model).towers.values()))
    length = block_outputs(t, tower)[0].shape[1]
    for ladder_first in (True, False):
        seen = Seen(1.0)
        steps = [partial(tower.ladder, seen), partial(tower.tokens.insert, torch.ones(3, WIDTH), 3, at=1)]
        handles = [step() for step in (steps if ladder_first else reversed(steps))]
        t.outputs()
        assert [rung.hidden.shape[1] for rung in seen.passes[0].rungs] == [length] * BLOCKS
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ["vit", "bert", "llama", "t5"])
def test_no_gradient_flows_through_the_blocks(name: str) -> None:
    t = tiny(name)
    anatomy = anatomy_of(t.model)
    for tower in anatomy.towers.values():
        tower.ladder(Seen(1.0))
    t.model.requires_grad_(True)
    t.outputs().sum().backward()
    inside = {parameter for block in anatomy.blocks for parameter in block.module.parameters()}
    assert inside and all(parameter.grad is None for parameter in inside)


def test_a_pass_that_continues_from_a_cache_is_refused() -> None:
    t = tiny("llama")
    ids = t.inputs["input_ids"]
    next(iter(anatomy_of(t.model).towers.values())).ladder(Seen(1.0))
    first: Any = t.model(input_ids=ids[:, :4], use_cache=True)
    with pytest.raises(ValueError, match="use_cache=False"):
        t.model(input_ids=ids[:, 4:5], past_key_values=first.past_key_values, use_cache=True)


def test_towers_without_an_exit_say_so() -> None:
    tower = next(iter(anatomy_of(tiny("deberta").model).towers.values()))
    with pytest.raises(ValueError, match="no module returns"):
        tower.ladder(Seen(1.0))
