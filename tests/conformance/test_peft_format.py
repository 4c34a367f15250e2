"""Adapters written for HF PEFT, loaded by HF PEFT, and read back: the same function in double precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench.errors import UsageError
from torch import Tensor, nn

from .test_parity import assert_same, relative
from .tiny import LENGTH, outputs, tiny

peft = pytest.importorskip("peft", reason="the extra `peft` is not installed: nothing to load with")

MATRICES = ["lora(r=4, alpha=6, targets=all)", "rslora(r=4, alpha=6, targets=q+v)", "dora(r=4, targets=q+up+down)",
            "ia3(targets=k+v+down)", "lora(r=2, targets=k)"]  # fmt: skip
CELLS = [(method, name) for method in MATRICES for name in ("bert", "llama", "gpt2", "t5", "vit")]


@pytest.fixture(autouse=True)
def _double(_deterministic: None) -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def moved(model: nn.Module, method: str) -> Any:
    handle = pa.attach(model, method)
    handle.method.double()
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in handle.method.adapter_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
            parameter.copy_(parameter.float())  # the first values of a prompt are read in single precision
    return handle


@pytest.mark.parametrize(("method", "name"), CELLS)
def test_matrices_load_in_hf_peft_and_come_back(method: str, name: str, tmp_path: Path) -> None:
    t, theirs, again = (tiny(name, dtype=torch.float64) for _ in range(3))
    handle = moved(t.model, method)
    handle.save(tmp_path, format="peft")
    loaded = peft.PeftModel.from_pretrained(theirs.model, str(tmp_path)).eval()
    assert_same(outputs(loaded, t.inputs), t.outputs())
    back = pa.load(again.model, tmp_path)
    assert back.method.double() is back.method
    assert_same(again.outputs(), t.outputs())
    assert back.trainable == handle.trainable


@pytest.mark.parametrize("targets", [["c_attn"], ["c_attn", "c_proj"]])
def test_what_hf_peft_saved_is_read(targets: list[str], tmp_path: Path) -> None:
    """On GPT-2, where their one adapter of the fused matrix becomes three of ours."""
    theirs, t = (tiny("gpt2", dtype=torch.float64) for _ in range(2))
    config = peft.LoraConfig(r=3, lora_alpha=4, use_rslora=True, target_modules=targets, fan_in_fan_out=True)
    model = peft.get_peft_model(theirs.model, config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.normal_(std=0.3)
    model.save_pretrained(str(tmp_path))
    if "c_proj" in targets:  # names the attention's and the feed-forward's
        assert pa.load(t.model, tmp_path).name == "rslora(alpha=4, r=3, targets=q+k+v+o+down)"
    else:
        pa.load(t.model, tmp_path)
    assert_same(t.outputs(), outputs(model, t.inputs))


@pytest.mark.parametrize(
    "method", ["prompt-tuning(tokens=3)", "prefix(tokens=3, projection=false, shift_positions=true)"]
)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_virtual_tokens_load_in_hf_peft_and_come_back(method: str, name: str, tmp_path: Path) -> None:
    t, theirs, again = (tiny(name, dtype=torch.float64) for _ in range(3))
    moved(t.model, method).save(tmp_path, format="peft")
    loaded = peft.PeftModel.from_pretrained(theirs.model, str(tmp_path)).eval()
    inputs = {key: value for key, value in t.inputs.items() if key != "use_cache"}
    there: Tensor = loaded(**inputs).logits[:, -LENGTH:]
    assert_same(there.flatten(), t.outputs())
    pa.load(again.model, tmp_path).method.double()
    assert_same(again.outputs(), t.outputs())


def test_a_prompt_of_gemma_gets_its_factor_on_the_way(tmp_path: Path) -> None:
    """HF PEFT puts it behind the embedding's factor, to which ours is subject."""
    t, theirs, again = (tiny("gemma2", dtype=torch.float64) for _ in range(3))
    moved(t.model, "prompt-tuning(tokens=3)").save(tmp_path, format="peft")
    loaded = peft.PeftModel.from_pretrained(theirs.model, str(tmp_path)).eval()
    there: Tensor = loaded(**t.inputs).logits[:, -LENGTH:]
    assert relative(there.flatten(), t.outputs()) < 1e-5  # its norms and stored prompts are in single precision
    pa.load(again.model, tmp_path).method.double()
    assert relative(again.outputs(), t.outputs()) < 1e-5


def test_a_classifier_goes_with_its_adapter(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    config = tiny("bert").model.config
    torch.manual_seed(3)
    first = BertForSequenceClassification(config).double().eval()
    state = {key: value.clone() for key, value in first.state_dict().items()}
    handle = moved(first, "lora(r=2)")
    with torch.no_grad():
        first.classifier.weight.add_(1.0)
    handle.save(tmp_path, format="peft")
    expected = outputs(first, tiny("bert").inputs)
    for load in (
        lambda model: peft.PeftModel.from_pretrained(model, str(tmp_path)),
        lambda model: _loaded(model, tmp_path),
    ):
        model = BertForSequenceClassification(config).double().eval()
        model.load_state_dict(state)
        assert_same(outputs(load(model).eval(), tiny("bert").inputs), expected)


def _loaded(model: nn.Module, folder: Path) -> nn.Module:
    pa.load(model, folder).method.double()
    return model


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("bitfit", "bitfit cannot be written in HF PEFT's format, which lora"),
        ("prefix(projection=false)", "shift_positions=true"),
    ],
)
def test_what_the_format_lacks_is_one_line(method: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        pa.attach(tiny("bert").model, method).save(tmp_path / "x", format="peft")
    assert not (tmp_path / "x").exists()


def test_folders_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no adapter_config\.json"):
        pa.load(tiny("bert").model, tmp_path)
    moved(tiny("bert", dtype=torch.float64).model, "lora(r=2)").save(tmp_path, format="peft")
    with pytest.raises(UsageError, match="no targets of this model name exactly"):
        pa.load(tiny("llama").model, tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"LORA"', '"VERA"'))
    with pytest.raises(UsageError, match="adapters of type VERA cannot be read"):
        pa.load(tiny("bert").model, tmp_path)
