"""Additive methods: against HF PEFT at copied weights, and properties that their papers state."""

from __future__ import annotations

import copy

import pytest
import torch
from peft_atlas.bench.anatomy import Unmergeable

from .test_parity import _double, agree, assert_same, ours, peft  # noqa: F401 (pytest finds the fixture by name)
from .tiny import NAMES, outputs, tiny

IA3 = {  # targets here: (modules there, those of them that are scaled at their input)
    "bert": {
        "k+v+down": (r".*(key|value|\d\.output\.dense)", r".*\d\.output\.dense"),
        "all": (r".*layer.*(query|key|value|dense)", r".*(intermediate|\d\.output)\.dense"),
    },
    "llama": {
        "k+v+down": (["k_proj", "v_proj", "down_proj"], ["down_proj"]),
        "all": (r".*layers.*proj", r".*(gate|up|down)_proj"),
    },
    "t5": {"k+v+down": (["k", "v", "wo"], ["wo"])},
}


@pytest.mark.parametrize(("name", "targets"), [(n, t) for n, choices in IA3.items() for t in choices])
def test_ia3(name: str, targets: str) -> None:
    t = tiny(name, dtype=torch.float64)
    chosen, at_input = IA3[name][targets]
    config = peft.IA3Config(target_modules=chosen, feedforward_modules=at_input)
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config)
    method = ours("ia3", t.model, targets=targets)
    parameters = dict(theirs.named_parameters())
    assert method.anatomy is not None
    pairs = []
    for place_name, place in method.anatomy.linears(targets).items():
        stem = "base_model.model." + place.name.removesuffix(".weight")
        pairs.append((method.scales[place_name.replace(".", "_")], parameters[f"{stem}.ia3_l.default"]))
    assert len(pairs) == sum("ia3_l" in key for key in parameters)
    with torch.no_grad():
        for here, there in pairs:
            there.normal_(mean=1.0, std=0.3)
            here.copy_(there.flatten())
    here, there = t.outputs(), outputs(theirs, t.inputs)
    agree(here, there, [])
    for a, b in pairs:
        assert a.grad is not None and b.grad is not None
        assert_same(a.grad, b.grad.flatten())
    method.merge()
    assert_same(t.outputs(), outputs(theirs.merge_and_unload(), t.inputs))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method_id", ["ia3", "ssf"])
def test_scales_and_shifts_fold_into_the_weights(name: str, method_id: str) -> None:
    """(IA)^3, section 3.3; SSF, section 3.3. A shift behind a final RMSNorm has no place to go."""
    t = tiny(name, dtype=torch.float64)
    method = ours(method_id, t.model)
    with torch.no_grad():
        for _, parameter in method.adapter_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    before = t.outputs()
    if method_id == "ssf" and name in ("llama", "t5"):
        with pytest.raises(Unmergeable, match="no bias to go to"):
            method.merge()
    else:
        method.merge()
    assert_same(t.outputs(), before)
