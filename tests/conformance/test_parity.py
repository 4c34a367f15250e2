"""Functions and gradients against HF PEFT at copied weights, in double precision, to a relative L2 of 1e-10."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import anatomy_of
from peft_atlas.bench.recipes import configure, resolve
from peft_atlas.bench.registry import registry
from peft_atlas.methods.contract import Method
from torch import Tensor, nn

from .tiny import LENGTH, WIDTH, outputs, tiny

peft = pytest.importorskip("peft", reason="the extra `peft` is not installed: nothing to compare with")

TOKENS = 3


@pytest.fixture(autouse=True)
def _double(_deterministic: None) -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def ours(method_id: str, model: nn.Module, **arguments: Any) -> Method:
    kind = registry("methods").load(method_id)
    method: Method = kind(configure(method_id, resolve(method_id, arguments, "text", "tiny", "tiny")))
    method.attach(anatomy_of(model))
    return method.double()


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


def assert_same(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert relative(a, b) < 1e-10


def agree(here: Tensor, there: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Outputs agree, and so do the gradients of one weighted sum of them; a pair is (our parameter, theirs)."""
    assert_same(here, there)
    weights = torch.randn_like(here)
    (here * weights).sum().backward()
    (there * weights).sum().backward()
    for a, b in pairs:
        assert a.grad is not None and b.grad is not None
        assert_same(a.grad, b.grad)


LORA = {
    "bert": {"q+v": ["query", "value"], "all": ["query", "key", "value", "attention.output.dense", "intermediate.dense",
                                                 "output.dense"]},
    "llama": {"q+v": ["q_proj", "v_proj"], "all": "all-linear"},
    "t5": {"q+v": ["q", "v"], "all": ["q", "k", "v", "o", "wi", "wo"]},
    "gpt2": {"o+up+down": ["c_proj", "c_fc"]},  # q, k and v are one matrix there, and three places here
}  # fmt: skip


@pytest.mark.parametrize(("name", "targets"), [(n, t) for n, choices in LORA.items() for t in choices])
def test_lora(name: str, targets: str) -> None:
    t = tiny(name, dtype=torch.float64)
    theirs = copy.deepcopy(t.model)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=LORA[name][targets], fan_in_fan_out=name == "gpt2")
    theirs = peft.get_peft_model(theirs, config)
    method = ours("lora", t.model, r=4, alpha=12, targets=targets)
    parameters = dict(theirs.named_parameters())
    pairs = []
    assert method.anatomy is not None
    for place_name, place in method.anatomy.linears(targets).items():
        factor = method.factors[place_name.replace(".", "_")]
        stem = "base_model.model." + place.name.removesuffix(".weight")
        pairs += [(factor.a, parameters[f"{stem}.lora_A.default.weight"])]
        pairs += [(factor.b, parameters[f"{stem}.lora_B.default.weight"])]
    assert len(pairs) == sum("lora_" in key for key in parameters)
    with torch.no_grad():
        for a, b in pairs:
            b.normal_(std=0.2)
            a.copy_(b)
    agree(t.outputs(), outputs(theirs, t.inputs), pairs)
    method.merge()
    assert_same(t.outputs(), outputs(theirs.merge_and_unload(), t.inputs))


def test_lora_on_slices_of_a_fused_matrix() -> None:
    """On GPT-2's c_attn: three of ours side by side are one of theirs with a block-diagonal B and triple rank."""
    t = tiny("gpt2", dtype=torch.float64)
    config = peft.LoraConfig(r=12, lora_alpha=12, target_modules=["c_attn"], fan_in_fan_out=True)
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config)
    method = ours("lora", t.model, r=4, alpha=4, targets="q+k+v")
    parameters = dict(theirs.named_parameters())
    for block in range(2):
        stem = f"base_model.model.transformer.h.{block}.attn.c_attn"
        factors = [method.factors[f"text_blocks_{block}_attention_{letter}"] for letter in "qkv"]
        with torch.no_grad():
            for factor in factors:
                factor.b.normal_(std=0.2)
            parameters[f"{stem}.lora_A.default.weight"].copy_(torch.cat([f.a for f in factors]))
            parameters[f"{stem}.lora_B.default.weight"].copy_(torch.block_diag(*[f.b for f in factors]))
    assert_same(t.outputs(), outputs(theirs, t.inputs))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("padded", [True, False])
def test_prefix(name: str, padded: bool) -> None:
    t = tiny(name, padded=padded, dtype=torch.float64)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=TOKENS, prefix_projection=False)
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    method = ours("prefix", t.model, tokens=TOKENS, projection=False, shift_positions=True)
    with torch.no_grad():
        table.normal_()
        method.values.table.copy_(table)  # both keep layer by layer: keys of all heads, then values
    inputs = {key: value for key, value in t.inputs.items() if key != "use_cache"}
    there = theirs(**inputs).logits.flatten()
    agree(t.outputs(), there, [(method.values.table, table)])


def test_prompt_tuning_on_llama() -> None:
    t = tiny("llama", dtype=torch.float64)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=TOKENS)
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    method = ours("prompt-tuning", t.model, tokens=TOKENS)
    prompt = method.prompts["text"]
    with torch.no_grad():
        table.normal_()
        prompt.copy_(table)
    there = theirs(**t.inputs).logits[:, TOKENS:]  # ours drops the places of the prompt
    agree(t.outputs(), there.flatten(), [(prompt, table)])


def test_prompt_tuning_on_bert() -> None:
    t = tiny("bert", dtype=torch.float64)
    config = peft.PromptTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=TOKENS, num_layers=2, token_dim=WIDTH, num_attention_heads=2
    )
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    method = ours("prompt-tuning", t.model, tokens=TOKENS)
    prompt = method.prompts["text"]
    with torch.no_grad():
        table.normal_()
        prompt.copy_(table)
    result = theirs(**t.inputs)
    assert result.last_hidden_state.shape[1] == LENGTH + TOKENS
    there = torch.cat([result.last_hidden_state[:, TOKENS:].flatten(), result.pooler_output.flatten()])
    agree(t.outputs(), there, [(prompt, table)])


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_ln_tuning_trains_the_same_tensors(name: str) -> None:
    t = tiny(name)
    norms = {"bert": ["attention.output.LayerNorm", "output.LayerNorm"], "gpt2": ["ln_1", "ln_2", "ln_f"],
             "llama": ["input_layernorm", "post_attention_layernorm", "model.norm"]}  # fmt: skip
    theirs = peft.get_peft_model(copy.deepcopy(t.model), peft.LNTuningConfig(target_modules=norms[name]))
    there = {
        key.removeprefix("base_model.model.").replace(".ln_tuning_layers.default", "")
        for key, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    assert set(ours("ln-tuning", t.model).trained_tensors()) == there


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "clip-text", "clip-vision"])
def test_bitfit_trains_the_biases_of_bias_all(name: str) -> None:
    """HF PEFT has no BitFit, but `bias="all"` of its LoRA trains the same biases."""
    t = tiny(name)
    target = {"gpt2": ["c_fc"], "clip-text": ["fc1"], "clip-vision": ["fc1"]}.get(name, ["query"])
    config = peft.LoraConfig(r=2, target_modules=target, bias="all", fan_in_fan_out=name == "gpt2")
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config)
    there = {
        key.removeprefix("base_model.model.").replace(".base_layer", "")
        for key, parameter in theirs.named_parameters()
        if parameter.requires_grad and "lora_" not in key
    }
    assert set(ours("bitfit", t.model).trained_tensors()) == there
