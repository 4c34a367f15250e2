"""Methods that change weights: against HF PEFT at copied weights in double precision, and what their papers prove."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy.linear import LinearPlace
from peft_atlas.methods.beyond.rslora import RankStabilizedConfig
from peft_atlas.methods.contract import Method
from peft_atlas.methods.reparameterized.low_rank.lora import LoRAConfig, LowRank
from torch import Tensor, nn

from .test_parity import _double as _double
from .test_parity import assert_same, ours, peft, relative
from .tiny import Tiny, outputs, tiny

MODULES = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}
both_models = pytest.mark.parametrize("name", list(MODULES))


@dataclass
class Comparison:
    """Our method on one copy of a tiny model, theirs on another."""

    tiny: Tiny
    method: Method
    theirs: Any
    parameters: dict[str, nn.Parameter]

    def sites(self) -> Iterator[tuple[Any, LinearPlace, str]]:
        """(our module, the place it changes, the stem of their names there)."""
        assert self.method.anatomy is not None
        for name, place in self.method.anatomy.linears("q+v").items():
            stem = "base_model.model." + place.name.removesuffix(".weight")
            yield self.method.factors[name.replace(".", "_")], place, stem

    def copy(self, **names: str) -> list[tuple[Tensor, Tensor]]:
        """Draw all of theirs anew, copy it into ours, and return the pairs; `names` maps ours to the end of theirs."""
        pairs = []
        for module, _, stem in self.sites():
            pairs += [(getattr(module, mine), self.parameters[f"{stem}.{end}"]) for mine, end in names.items()]
        with torch.no_grad():
            for mine, theirs in pairs:
                theirs.add_(torch.randn_like(theirs) * 0.2)
                mine.copy_(theirs.view(mine.shape))
        return pairs

    def agree(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Function, gradients and merged function are the same."""
        there = outputs(self.theirs, self.tiny.inputs)
        here = self.tiny.outputs()
        trained = [(mine, theirs) for mine, theirs in pairs if mine.requires_grad]
        weights = torch.randn_like(here)
        (here * weights).sum().backward()
        (there * weights).sum().backward()
        assert_same(here, there)
        for mine, theirs in trained:
            assert mine.grad is not None and theirs.grad is not None
            assert_same(mine.grad, theirs.grad.view(mine.shape))
        self.method.merge()
        assert relative(self.tiny.outputs(), there) < 1e-10


def compare(name: str, method_id: str, config: Any, **arguments: Any) -> Comparison:
    t = tiny(name, dtype=torch.float64)
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config).double().eval()
    method = ours(method_id, t.model, targets="q+v", **arguments).eval()
    return Comparison(t, method, theirs, dict(theirs.named_parameters()))


def lora(name: str, method_id: str, r: int = 4, **extra: Any) -> Comparison:
    config = peft.LoraConfig(r=r, lora_alpha=12, target_modules=MODULES[name], **extra)
    return compare(name, method_id, config, r=r, alpha=12)


LORA_NAMES = {"a": "lora_A.default.weight", "b": "lora_B.default.weight"}


@both_models
@pytest.mark.parametrize(("method_id", "extra"), [("rslora", {"use_rslora": True}), ("lora-plus", {}), ("lora-fa", {})])
def test_variants_of_lora(name: str, method_id: str, extra: dict[str, bool]) -> None:
    pair = lora(name, method_id, **extra)
    pair.agree(pair.copy(**LORA_NAMES))


@both_models
def test_dora(name: str) -> None:
    pair = lora(name, "dora", use_dora=True)
    for module, _, stem in pair.sites():
        assert_same(module.m, pair.parameters[f"{stem}.lora_magnitude_vector.default.weight"])
    pair.agree(pair.copy(**LORA_NAMES, m="lora_magnitude_vector.default.weight"))


def test_rows_of_dora_have_the_trained_magnitudes() -> None:
    pair = lora("bert", "dora", use_dora=True)
    pair.copy(**LORA_NAMES, m="lora_magnitude_vector.default.weight")
    pair.method.merge()
    for module, place, _ in pair.sites():
        assert_same(place.weight().norm(dim=1), module.m.abs())


@both_models
def test_pissa(name: str) -> None:
    """HF PEFT subtracts B0 A0 from W in single precision; here its weight is set to the difference in double."""
    model = tiny(name).model
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=MODULES[name], init_lora_weights="pissa")
    theirs = peft.get_peft_model(copy.deepcopy(model), config).double().eval()
    t = tiny(name, dtype=torch.float64)
    pair = Comparison(t, ours("pissa", t.model, targets="q+v", r=4, alpha=12), theirs, dict(theirs.named_parameters()))
    for module, place, stem in pair.sites():
        b0, a0 = (pair.parameters[f"{stem}.lora_{letter}.default.weight"].detach() for letter in "BA")
        assert relative(module.b0 @ module.a0, b0 @ a0) < 1e-4
        pair.parameters[f"{stem}.base_layer.weight"].data.copy_(place.weight() - 3 * module.b0 @ module.a0)
    pair.agree(pair.copy(**LORA_NAMES))


def test_pissa_freezes_the_small_singular_values() -> None:
    t = tiny("bert", dtype=torch.float64)
    values = {place.name: torch.linalg.svdvals(place.weight()) for place in places(ours("lora", t.model))}
    method = ours("pissa", t.model, r=4, alpha=12)
    with torch.no_grad():
        for factor in method.factors.values():
            factor.b.zero_()
    method.merge()
    for place in places(method):
        assert torch.allclose(torch.linalg.svdvals(place.weight())[:-4], values[place.name][4:])


def places(method: Method) -> list[LinearPlace]:
    assert method.anatomy is not None
    return list(method.anatomy.linears("q+v").values())


def test_lora_plus_takes_the_steps_of_hf_pefts_optimizer() -> None:
    from peft.optimizers import create_loraplus_optimizer

    pair = lora("bert", "lora-plus")
    pairs = pair.copy(**LORA_NAMES)
    lr = pair.method.config.lr
    theirs = create_loraplus_optimizer(pair.theirs, torch.optim.AdamW, lr=lr, loraplus_lr_ratio=16)
    mine = torch.optim.AdamW([{"lr": lr, **group} for group in pair.method.parameter_groups()], weight_decay=0.0)
    for _ in range(3):
        for optimizer, y in ((mine, pair.tiny.outputs()), (theirs, outputs(pair.theirs, pair.tiny.inputs))):
            optimizer.zero_grad()
            y.square().sum().backward()
            optimizer.step()
    for a, b in pairs:
        assert_same(a, b)


def test_rslora_keeps_the_size_of_an_update_over_ranks() -> None:
    """The first step of gradient descent on one input, averaged over draws of A."""

    def first_change(kind: type[LoRAConfig], r: int) -> float:
        config = kind(lr=1, targets="q", r=r, alpha=1)
        factor = LowRank(torch.empty(8, 256), r, config.scale, 0.0, "kaiming")
        x = torch.randn(1, 256)
        factor(x).sum().backward()
        assert factor.b.grad is not None
        factor.b.data -= factor.b.grad
        return float(factor(x).norm().detach())

    def sizes(kind: type[LoRAConfig]) -> list[float]:
        return [sum(first_change(kind, r) for _ in range(64)) / 64 for r in (4, 16, 64)]

    stable, plain = sizes(RankStabilizedConfig), sizes(LoRAConfig)
    assert max(stable) / min(stable) < 1.3
    assert plain[0] / plain[2] == pytest.approx(16, rel=0.3)


def test_lora_fa_keeps_no_input() -> None:
    """What autograd keeps for the backward pass of one layer, by storage."""

    def keeps_input(method_id: str) -> bool:
        t = tiny("bert", dtype=torch.float64)
        method = ours(method_id, t.model)
        assert method.anatomy is not None
        module = method.anatomy.blocks[0].attention.q.module
        x = torch.randn(2, 7, 32, requires_grad=True)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda s: kept.append(s.data_ptr()) or s, lambda s: s):
            module(x)
        return x.data_ptr() in kept

    assert keeps_input("lora")
    assert not keeps_input("lora-fa")
