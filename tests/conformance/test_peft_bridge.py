"""The bridge to HF PEFT: its list of types, its arguments, and the same function as plain `get_peft_model`."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Anatomy, Unmergeable, anatomy_of
from peft_atlas.bench.api import run
from peft_atlas.bench.attachment import attach
from peft_atlas.bench.errors import UnsupportedError, UsageError
from peft_atlas.bench.names import Name
from peft_atlas.bench.params import count
from peft_atlas.bench.recipes import configure, expand, resolve
from peft_atlas.bench.registry import registry
from peft_atlas.bench.versions import actual
from peft_atlas.methods.contract import Method
from safetensors.torch import load, save
from torch import Tensor, nn

from .tiny import outputs, tiny

peft = pytest.importorskip("peft", reason="the extra `peft` is not installed: nothing to bridge to")

from peft_atlas.methods.library import hf_peft  # noqa: E402

TYPES = {registry("methods").card(i).target.partition(":")[2]: i for i in registry("methods").group("library/hf-peft")}
RUNNABLE = sorted(TYPES.keys() - hf_peft.IN_THEIR_FORWARD)
TOKENS_TYPE = "TRAINABLE_TOKENS"  # trains chosen tokens of a vocabulary, and no task adds any
SMALL: dict[str, dict[str, Any]] = {  # where HF PEFT's default does not go into a width of 32
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 20},
    "MISS": {"r": 8},
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "UNILORA": {"theta_d_length": 64},
    "VBLORA": {"vector_length": 8, "num_vectors": 16},
    "WAVEFT": {"n_frequency": 64},
}
FACTS = {  # type: (our arguments, HF PEFT's, on BERT)
    "LORA": ({"r": 4, "lora_alpha": 12}, {"r": 4, "lora_alpha": 12, "target_modules": ["query", "value"]}),
    "IA3": (
        {},
        {
            "target_modules": ["key", "value", r"0.output.dense", "1.output.dense"],
            "feedforward_modules": ["0.output.dense", "1.output.dense"],
        },
    ),
    "OFT": ({"oft_block_size": 8}, {"oft_block_size": 8, "target_modules": ["query", "value"]}),
    "HRA": ({"r": 4}, {"r": 4, "target_modules": ["query", "value"]}),
    "VERA": ({"r": 16}, {"r": 16, "target_modules": ["query", "value"]}),
    "BOFT": ({}, {"target_modules": ["query", "value"]}),
}


def bridged(type_name: str, model: nn.Module, seed: int = 1, **arguments: Any) -> Method:
    method_id = TYPES[type_name]
    torch.manual_seed(seed)
    kind = registry("methods").load(method_id)
    method: Method = kind(configure(method_id, resolve(method_id, arguments, "text", "tiny", "tiny")))
    method.attach(anatomy_of(model))
    return method


def trained(method: Method) -> dict[str, nn.Parameter]:
    return dict(method.adapter_parameters())


def move(parameters: Any, seed: int = 2) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter) * 0.05)


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


# the list -----------------------------------------------------------------------------------------------------------


def test_the_list_is_that_of_the_installed_package() -> None:
    installed = {str(kind.value) for kind in peft.PEFT_TYPE_TO_CONFIG_MAPPING}
    assert TYPES.keys() == installed - {TOKENS_TYPE}
    assert TYPES.keys() > hf_peft.IN_THEIR_FORWARD


def test_it_is_asked_for_by_name_and_no_part_of_all() -> None:
    own, library = registry("methods").ids(), registry("methods").group("library")
    assert sorted(TYPES.values()) == library
    assert not set(library) & {*own, *registry("methods").group("all"), *actual()}
    assert {*own, *library} == set(registry("methods").ids(library=True))
    assert expand("peft.lora(r=4)") == [Name("peft.lora", {"r": 4})]
    assert len(expand("library")) == len(library)


@pytest.mark.parametrize("type_name", sorted(hf_peft.IN_THEIR_FORWARD))
def test_types_with_a_forward_of_their_own_are_unsupported(type_name: str) -> None:
    method_id = TYPES[type_name]
    kind = registry("methods").load(method_id)
    reason = anatomy_of(tiny("bert").model).missing(kind.requires(None))
    assert reason is not None and "HF PEFT's own forward" in reason
    if type_name == "PROMPT_TUNING":
        with pytest.raises(UnsupportedError, match=r"peft.prompt-tuning does not fit BertModel: .*own forward"):
            attach(tiny("bert").model, method_id)


# arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("peft.lorra", r"unknown method 'peft.lorra'\. Did you mean peft.lora"),
        ("peft.lora(lora_alfa=3)", r"peft.lora has no argument 'lora_alfa'\. Did you mean lora_alpha"),
        ("peft.lora(r=four)", r"peft.lora\(r=four\): r must be a valid integer"),
        ("peft.lora(init_lora_weights=pisa)", r"init_lora_weights must be"),
        ("peft.lora(targets=w)", r"unknown target 'w'"),
        ("peft.oft(r=4)", r"peft.oft\(r=4\): You can only specify either r"),
    ],
)
def test_wrong_names_and_arguments_are_one_line(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        attach(tiny("bert").model, name)
    assert "\n" not in str(caught.value)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_peft, "_method_class", hf_peft._method_class.__wrapped__)  # not what is loaded already
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r'peft.lora needs HF PEFT, .*: pip install "peft-atlas\[peft\]"'):
        resolve("peft.lora", {}, "text", "tiny", "tiny")
    assert registry("methods").card("peft.lora").name == "LoRA (HF PEFT)"


def test_a_type_that_the_installed_package_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_peft, "_method_class", hf_peft._method_class.__wrapped__)
    monkeypatch.setattr(peft, "PEFT_TYPE_TO_CONFIG_MAPPING", {})
    with pytest.raises(UsageError, match=r"HF PEFT \S+ has no type VERA"):
        resolve("peft.vera", {}, "text", "tiny", "tiny")


def modules_of(model: nn.Module) -> set[str]:
    return {name.removesuffix(".base_layer") for name, _ in model.named_modules() if name.endswith(".base_layer")}


def test_targets_become_modules() -> None:
    def adapted(name: str, **arguments: Any) -> set[str]:
        t = tiny(name)
        bridged("LORA", t.model, **arguments)
        return {path.partition(".0.")[2] for path in modules_of(t.model)} - {""}

    assert adapted("bert") == {"attention.self.query", "attention.self.value"}
    assert adapted("bert", target_modules="key") == {"attention.self.key"}
    assert adapted("bert", target_modules="key+query") == {"attention.self.key", "attention.self.query"}
    assert adapted("bert", target_modules=r".*\.(key|query)") == {"attention.self.key", "attention.self.query"}
    assert adapted("vit") == {"attn.qkv"}, "a fused matrix is adapted as it is"
    assert adapted("gpt2", targets="q+up") == {"attn.c_attn", "mlp.c_fc"}
    assert adapted("llama", targets="gate") == {"mlp.gate_proj"}


# the same as plain HF PEFT ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_name", FACTS)
def test_function_gradients_and_count_are_those_of_get_peft_model(type_name: str) -> None:
    ours, theirs = FACTS[type_name]
    t = tiny("bert", dtype=torch.float64)
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[type_name](**theirs)
    plain = peft.get_peft_model(copy.deepcopy(t.model), config).double()
    method = bridged(type_name, t.model, **ours)
    t.model.double()
    move(trained(method).values())
    here = {key: p for key, p in t.model.named_parameters() if p.requires_grad}
    there = {key.removeprefix("base_model.model."): p for key, p in plain.named_parameters() if p.requires_grad}
    assert here.keys() == there.keys()
    assert sum(p.numel() for p in trained(method).values()) == plain.get_nb_trainable_parameters()[0]
    plain.base_model.model.load_state_dict(t.model.state_dict())
    a, b = t.outputs(), outputs(plain, t.inputs)
    assert relative(a, b) < 1e-10
    weights = torch.randn_like(a)
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    for key, parameter in here.items():
        assert relative(parameter.grad, there[key].grad) < 1e-10, key


# as any method ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
@pytest.mark.parametrize("type_name", RUNNABLE)
def test_every_type_trains_ships_and_leaves(type_name: str, name: str) -> None:
    t, fresh = tiny(name), tiny(name)
    function, before, flags = t.outputs(), _bits(t.model), _flags(t.model)
    method = bridged(type_name, t.model, **SMALL.get(type_name, {}))
    assert trained(method)
    loss = t.outputs().square().mean()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained(method).values())
    assert {id(p) for p in t.model.parameters() if p.requires_grad} == {id(p) for p in trained(method).values()}
    move(trained(method).values())
    moved = t.outputs()
    assert not torch.equal(moved, function)
    file = save({key: tensor.detach().clone().contiguous() for key, tensor in method.shipped().items()})
    other = bridged(type_name, fresh.model, **SMALL.get(type_name, {}))
    other.load_shipped(load(file))
    assert torch.equal(fresh.outputs(), moved)
    assert isinstance(method.anatomy, Anatomy)
    method.anatomy.detach()
    assert torch.equal(t.outputs(), function)
    assert _same_bits(_bits(t.model), before) and _flags(t.model) == flags
    assert not hasattr(t.model, "peft_config")
    bridged(type_name, t.model, **SMALL.get(type_name, {}))  # once more


def _bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def _flags(model: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("type_name", FACTS)
def test_merge_can_be_undone(type_name: str) -> None:
    t = tiny("bert")
    method = bridged(type_name, t.model, **FACTS[type_name][0])
    move(trained(method).values())
    unmerged, bits = t.outputs(), _bits(t.model)
    handle = method.merge()
    assert not _same_bits(_bits(t.model), bits)
    assert relative(t.outputs(), unmerged) < 1e-5
    method.merge()  # must not fold twice
    assert relative(t.outputs(), unmerged) < 1e-5
    handle.remove()
    assert torch.equal(t.outputs(), unmerged)
    assert _same_bits(_bits(t.model), bits)


def test_what_hf_peft_cannot_merge_is_refused() -> None:
    t = tiny("bert")
    method = bridged("LILY", t.model)
    bits = _bits(t.model)
    with pytest.raises(Unmergeable, match="HF PEFT does not merge it"):
        method.merge()
    assert _same_bits(_bits(t.model), bits)


def test_values_that_hf_peft_changes_at_the_start_come_back() -> None:
    t = tiny("bert")
    before, function = _bits(t.model), t.outputs()
    method = bridged("LORA", t.model, init_lora_weights="pissa", r=4)
    base = t.model.encoder.layer[0].attention.self.query.base_layer.weight
    assert not torch.equal(base, before["encoder.layer.0.attention.self.query.weight"])
    assert isinstance(method.anatomy, Anatomy)
    method.anatomy.detach()
    assert _same_bits(_bits(t.model), before)
    assert torch.equal(t.outputs(), function)


def test_biases_that_train_are_counted_as_the_backbones() -> None:
    t = tiny("bert")
    before = _bits(t.model)
    method = bridged("LORA", t.model, r=4, bias="lora_only")
    names = {f"encoder.layer.{block}.attention.self.{part}.bias" for block in (0, 1) for part in ("query", "value")}
    assert set(method.trained_tensors()) == names
    move(trained(method).values())
    assert isinstance(method.anatomy, Anatomy)
    method.anatomy.detach()
    assert _same_bits(_bits(t.model), before)


def test_a_head_of_the_users_own_keeps_training() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = tiny("vit").model, nn.Linear(32, 3)

    model = Classifier()
    attachment = attach(model, "peft.lora(r=4)")
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    assert attachment.trainable == sum(p.numel() for p in model.body.parameters() if p.requires_grad)
    with pytest.raises(UsageError, match="carries adapters of HF PEFT already"):
        attach(model, "peft.hra")


def test_a_copy_is_independent_and_a_pickle_the_same() -> None:
    t = tiny("bert")
    function = t.outputs()
    method = bridged("LORA", t.model, r=4)
    move(trained(method).values())
    moved = t.outputs()
    for model, twin in (copy.deepcopy((t.model, method)), pickle.loads(pickle.dumps((t.model, method)))):
        assert torch.equal(outputs(model, t.inputs), moved)
        move(trained(twin).values(), seed=3)
        assert not torch.equal(outputs(model, t.inputs), moved)
        twin.anatomy.detach()
        assert torch.equal(outputs(model, t.inputs), function)
    assert torch.equal(t.outputs(), moved)


def test_counts_on_the_meta_device_are_the_published_ones() -> None:
    assert count("peft.lora(r=16)", "bert-base-uncased").trainable == 12 * 2 * 16 * (768 + 768)
    assert (
        count("peft.lora(r=8, targets=all)", "llama-2-7b").trainable
        == count("lora(targets=all)", "llama-2-7b").trainable
    )
    assert count("peft.ia3", "bert-base-uncased").trainable == 12 * (768 + 768 + 3072)


def test_cells_of_the_smoke_protocol(tmp_path: Path) -> None:
    done = run(["peft.lora(r=4)", "peft.ia3", "peft.prompt-tuning"], ["smoke-text"], protocol="smoke", results=tmp_path)
    found = {record.cell.method.name: record for record in done}
    assert {name: record.status for name, record in found.items()} == {"peft.lora(r=4)": "ok", "peft.ia3": "ok"}
    assert all(record.parameters.adapter > 0 and record.drift is not None for record in found.values())
