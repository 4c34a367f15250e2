"""What is asked for wrongly is one line that names the field, before anything trains: values, and adapter files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench.conformance.tiny import tiny
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.params import count
from peft_atlas.bench.recipes import Resolved, configure, resolve
from peft_atlas.bench.registry import registry
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ANY_NUMBER = {  # fields that may be as negative as one likes
    ("diff-pruning", "low"),
    ("diff-pruning", "start"),
    ("gated-vpt", "gate_init"),
    ("vera", "d_initial"),
}
METHODS = registry("methods").ids()


def numbers(method: str) -> dict[str, Any]:
    """Numeric fields of a method's Config, with the recipe's values."""
    values = resolve(method, {}, "text", "tiny", "tiny").values
    return {name: value for name, value in values.items() if type(value) in (int, float)}


def refusal(method: str, **changed: Any) -> str:
    """What a value gets that a name could not even spell."""
    found = resolve(method, {}, "text", "tiny", "tiny")
    sources = dict.fromkeys({**found.values, **changed}, ("argument", ""))
    with pytest.raises(UsageError) as caught:
        configure(method, Resolved(found.method, {**found.values, **changed}, sources))
    return str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_out_of_range_name_their_field(method: str) -> None:
    assert numbers(method)
    for name in numbers(method):
        for value in (math.nan, math.inf, -(10**9)):
            if value == -(10**9) and (method, name) in ANY_NUMBER:
                continue
            message = refusal(method, **{name: value})
            assert message.startswith(f"{method}: {name} must be "), (name, value)
            assert "\n" not in message


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("lora(r=33)", "lora(r=33): r=33 is above the rank of text.blocks.0.attention.q, 32"),
        ("dora(r=33)", "r=33 is above the rank of text.blocks.0.attention.q, 32"),
        ("adalora(init_r=33)", "init_r=33 is above the rank of text.blocks.0.attention.q, 32"),
        ("oft(block=5)", "block=5 does not divide the input of text.blocks.0.attention.q, 32"),
        ("boft(block=4, factors=10)", "block=4, factors=10: 2048 does not divide 32"),
        ("lora(targets=w)", "unknown target 'w'"),
        ("lora(targets=gate)", "targets 'gate' name no matrix of this model"),
    ],
)
def test_what_has_no_room_in_the_model_leaves_it_as_it_was(method: str, message: str) -> None:
    t = tiny("bert")
    before = t.outputs()
    with pytest.raises(UsageError) as caught:
        pa.attach(t.model, method)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert torch.equal(t.outputs(), before)
    if not method.startswith("lora(targets"):
        with pytest.raises(UsageError):
            count(method.replace("33", "1025"), "bert-large-uncased")


def test_a_rank_above_the_matrix_fails_in_a_run_before_the_first_step(tmp_path: Path) -> None:
    outcome = pa.run("lora(r=1000)", "smoke-text", protocol="smoke", results=tmp_path, display="none")
    (record,) = outcome
    assert outcome.exit_code == 1 and record.status == "error" and not record.curve
    assert record.error is not None and "r=1000 is above the rank of text.blocks.0.attention.q" in record.error.message


# adapter files -----------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
FIRST = "adapter.factors.text_blocks_0_attention_q.a"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An adapter of BERT."""
    path = tmp_path / "adapter.safetensors"
    pa.attach(tiny("bert").model, "lora(r=2, targets=q+v)").save(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {k: t for k, t in tensors.items() if k != FIRST}, f"adapter file lacks {FIRST} (and 0 more)"),
        (lambda tensors: {**tensors, "x": torch.zeros(1)}, "adapter file has the unknown tensor x (and 0 more)"),
        (
            lambda tensors: {**tensors, FIRST: torch.zeros(2, 48)},
            f"{FIRST} has shape (2, 48) in the file, (2, 32) here",
        ),
    ],
)
def test_a_file_with_other_tensors_changes_nothing(file: Path, change: Change, message: str) -> None:
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file(change(load_file(file)), file, metadata)
    refused(file, "bert", "lora(r=2, targets=q+v)", message)


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        (
            "vit",
            "lora(r=2, targets=q+v)",
            "saved on another backbone (a BertModel with other matrices than this VisionTransformer)",
        ),
        ("bert", "lora(r=4, targets=q+v)", f"{FIRST} has shape (2, 32) in the file, (4, 32) here"),
        ("bert", "lora(r=2, targets=q+k+v)", "adapter file lacks adapter.factors.text_blocks_0_attention_k.a"),
        ("bert", "dora(r=2, targets=q+v)", "adapter file lacks adapter.factors.text_blocks_0_attention_q.m"),
    ],
)
def test_the_file_of_another_backbone_or_method(file: Path, name: str, method: str, message: str) -> None:
    refused(file, name, method, message)


@pytest.mark.parametrize("method", ["lora(r=2)", "bitfit", "full", "prompt-tuning(tokens=3)", "qlora(r=2)"])
def test_the_file_of_other_weights_is_refused_unless_it_is_wanted(method: str, tmp_path: Path) -> None:
    trained, path = pa.attach(tiny("bert").model, method), tmp_path / "adapter.safetensors"
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1)
    trained.save(path)
    other = pa.attach(tiny("bert", seed=1).model, method)
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(UsageError, match=r"another backbone .*sampled weights differ.*any_backbone=True"):
        other.load(path)
    assert all(map(torch.equal, before, other.parameters()))
    other.load(path, any_backbone=True)
    assert all(map(torch.equal, other.parameters(), trained.parameters()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "vit"])
def test_the_same_weights_in_another_precision_are_the_same_backbone(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "adapter.safetensors"
    pa.attach(tiny(name).model, "lora(r=2)").save(path)
    pa.attach(tiny(name, dtype=dtype).model, "lora(r=2)").load(path)


def test_a_fine_tuned_backbone_is_another(file: Path) -> None:
    t = tiny("bert")
    with torch.no_grad():
        for parameter in t.model.parameters():
            parameter.add_(0.01 * parameter.std() * torch.randn_like(parameter))
    with pytest.raises(UsageError, match="another backbone"):
        pa.attach(t.model, "lora(r=2, targets=q+v)").load(file)


def test_a_file_that_does_not_name_its_backbone_is_loaded_with_a_warning(file: Path) -> None:
    save_file(load_file(file), file)
    with pytest.warns(UserWarning, match="nothing tells whether it belongs to this backbone"):
        pa.attach(tiny("bert", seed=1).model, "lora(r=2, targets=q+v)").load(file)
    save_file(load_file(file), file, metadata={"backbone": "{}"})
    refused(file, "bert", "lora(r=2, targets=q+v)", "no sample of a backbone")


def test_what_is_no_adapter_file(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"nothing of the kind")
    refused(file, "bert", "lora(r=2, targets=q+v)", "is no file of tensors")
    refused(tmp_path / "nowhere", "bert", "lora(r=2, targets=q+v)", "cannot be read")


def refused(file: Path, name: str, method: str, message: str) -> None:
    t = tiny(name)
    attachment = pa.attach(t.model, method)
    before = t.outputs()
    with pytest.raises(UsageError) as caught:
        attachment.load(file)
    assert str(caught.value).startswith(str(file)) and message in str(caught.value) and "\n" not in str(caught.value)
    assert torch.equal(t.outputs(), before)
