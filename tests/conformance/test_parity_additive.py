"""Additive methods: against HF PEFT at copied weights, and properties that their papers state."""

from __future__ import annotations

import copy

import pytest
import torch
from peft_atlas.bench.anatomy import Unmergeable
from peft_atlas.methods.parts.bottleneck import Bottleneck
from peft_atlas.methods.parts.gate import SequenceGate
from peft_atlas.methods.parts.hypercomplex import HypercomplexLinear
from torch import nn

from .test_parity import TOKENS, _double, agree, assert_same, ours, peft  # noqa: F401 (pytest needs the fixture's name)
from .tiny import LENGTH, NAMES, WIDTH, outputs, tiny

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
    """(IA)^3, section 3.3; SSF, section 3.3. A shift behind a final or post RMSNorm has no place to go."""
    t = tiny(name, dtype=torch.float64)
    method = ours(method_id, t.model)
    with torch.no_grad():
        for _, parameter in method.adapter_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    before = t.outputs()
    if method_id == "ssf" and name in ("llama", "t5", "gemma2"):
        with pytest.raises(Unmergeable, match="no bias to go to"):
            method.merge()
    else:
        method.merge()
    assert_same(t.outputs(), before)


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_p_tuning(encoder: str) -> None:
    t = tiny("llama", dtype=torch.float64)
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=TOKENS,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=8,
    )
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config).eval()
    network = theirs.prompt_encoder["default"]
    method = ours("p-tuning", t.model, tokens=TOKENS, encoder=encoder, hidden=8)
    prompt = method.prompts["text"]
    pairs = [(prompt.table, network.embedding.weight)]
    pairs += zip(prompt.mlp.parameters(), network.mlp_head.parameters(), strict=True)
    if encoder == "lstm":
        pairs += zip(prompt.lstm.parameters(), network.lstm_head.parameters(), strict=True)
    with torch.no_grad():
        for here, there in pairs:
            here.copy_(there)
    logits = theirs(**t.inputs).logits[:, TOKENS:]  # ours drops the places of the prompt
    before = t.outputs()
    agree(before, logits.flatten(), pairs)
    method.load_shipped(method.shipped())  # the network leaves, its values stay
    assert prompt.mlp is None and prompt.lstm is None
    assert_same(t.outputs(), before)


class SoftmaxInDouble:
    """Stands in for torch.nn.functional in HF PEFT, which rounds the softmax of the prompt to single precision."""

    @staticmethod
    def softmax(scores: torch.Tensor, dim: int, dtype: torch.dtype) -> torch.Tensor:
        return scores.softmax(dim)


def test_llama_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft.tuners.adaption_prompt.layer, "F", SoftmaxInDouble)
    t = tiny("llama", dtype=torch.float64)
    config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=TOKENS, adapter_layers=1)
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config).eval()
    adapted = [module for module in theirs.modules() if hasattr(module, "adaption_prompt")]
    method = ours("llama-adapter", t.model, tokens=TOKENS, upper=0.5)
    adapter = method.adapters["text_blocks_1"]
    assert len(adapted) == len(method.adapters) == 1
    prompt, gate = adapted[0].adaption_prompt, adapted[0].adaption_gate
    with torch.no_grad():
        prompt.copy_(torch.randn_like(prompt))
        gate.fill_(0.7)
        adapter.prompt.copy_(prompt[0])
        adapter.gate.fill_(0.7)
    agree(t.outputs(), outputs(theirs, t.inputs), [])
    assert_same(adapter.prompt.grad, prompt.grad[0])
    assert_same(adapter.gate.grad.view(1), gate.grad)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_prefixes_of_other_methods(name: str) -> None:
    """P-tuning v2, and MAM's prefix while its bottlenecks are at zero."""
    t = tiny(name, dtype=torch.float64)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=TOKENS, prefix_projection=False)
    theirs = peft.get_peft_model(copy.deepcopy(t.model), config).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    inputs = {key: value for key, value in t.inputs.items() if key != "use_cache"}
    with torch.no_grad():
        table.normal_()
    for method_id in ("p-tuning-v2", "mam"):
        method = ours(method_id, t.model, tokens=TOKENS, projection=False, shift_positions=True)
        with torch.no_grad():
            method.values.table.copy_(table)
        table.grad = None
        agree(t.outputs(), theirs(**inputs).logits.flatten(), [(method.values.table, table)])
        assert method.anatomy is not None
        method.anatomy.detach()


def test_unipelt_with_open_gates_is_lora_prefix_and_adapter() -> None:
    """Section 3.2: the gates weigh three methods; at one they are simply together, at zero they are gone."""
    t = tiny("bert", dtype=torch.float64)
    backbone = t.outputs()
    method = ours("unipelt", t.model, tokens=TOKENS, projection=False, bottleneck=4, r=4, alpha=8)
    gates = [module for module in method.modules() if isinstance(module, SequenceGate)]
    assert len(gates) == 2 * (1 + 2 + 1)
    with torch.no_grad():
        for key, parameter in method.adapter_parameters():
            if "gate" not in key:
                parameter.normal_(std=0.2)
        for gate in gates:
            gate.linear.weight.zero_()
            gate.linear.bias.fill_(100.0)
    opened = t.outputs()
    together = tiny("bert", dtype=torch.float64)
    prefix = ours("prefix", together.model, tokens=TOKENS, projection=False)
    lora = ours("lora", together.model, r=4, alpha=8, targets="q+v")
    adapter = ours("adapter-pfeiffer", together.model, bottleneck=4)
    pairs = [(prefix.parameters(), method.values.parameters())]
    pairs += [(lora.parameters(), [p for k, p in method.updates.named_parameters() if "gate" not in k])]
    pairs += [(adapter.parameters(), [p for k, p in method.adapters.named_parameters() if "gate" not in k])]
    with torch.no_grad():
        for here, there in pairs:
            for a, b in zip(here, there, strict=True):
                a.copy_(b)
    assert_same(opened, together.outputs())
    with torch.no_grad():
        for gate in gates:
            gate.linear.bias.fill_(-1000.0)
        prefix.values.table.zero_()
        for parameter in (*lora.parameters(), *adapter.parameters()):
            parameter.zero_()
    assert_same(t.outputs(), together.outputs())
    assert not torch.equal(t.outputs(), backbone)  # an empty prefix still takes its share of the attention


def test_a_compacter_layer_is_a_dense_matrix_of_kronecker_products() -> None:
    """Equation 5 of the paper."""
    rule = nn.Parameter(torch.randn(4, 4, 4))
    layer = HypercomplexLinear(rule, 24, 12, rank=2)
    dense = sum(torch.kron(rule[i], layer.matrix.b[i] @ layer.matrix.v[i]) for i in range(4))
    x = torch.randn(5, 3, 24)
    assert_same(layer(x), x @ dense.t() + layer.bias)
    with pytest.raises(ValueError, match="cannot be divided"):
        HypercomplexLinear(rule, 24, 10, rank=2)


@pytest.mark.parametrize("name", ["vit", "t5"])
def test_adapterdrop_leaves_the_first_blocks_as_they_were(name: str) -> None:
    """Section 3: with n blocks dropped, the first n compute what the backbone's do and no gradient reaches them."""
    t = tiny(name, dtype=torch.float64)
    pfeiffer = ours("adapter-pfeiffer", tiny(name).model, bottleneck=4)
    method = ours("adapterdrop", t.model, bottleneck=4, dropped=0.5, training="robust")
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.2)
    drawn = set()
    for step in range(20):
        method.before_step(step)
        drawn.add(next(iter(method.adapters.values())).drawn)
    assert drawn == {0, 1}  # none, or the first of two blocks
    method.after_step(0)
    every = t.outputs()
    method.eval()
    method.zero_grad()
    t.outputs().sum().backward()
    for key, adapter in method.adapters.items():
        has_gradient = [p.grad is not None for p in adapter.parameters()]
        assert all(has_gradient) if key.endswith("_1") else not any(has_gradient)
    assert not torch.equal(t.outputs(), every)
    assert sum(p.numel() for p in method.parameters()) == sum(p.numel() for p in pfeiffer.parameters())


@pytest.mark.parametrize("name", ["bert", "vit", "llama"])
def test_llm_adapters_placements(name: str) -> None:
    """Series reads the feed-forward's output, parallel its input; the placement lora is LoRA on the same matrices."""
    for placement in ("series", "parallel", "lora"):
        t, other = tiny(name, dtype=torch.float64), tiny(name, dtype=torch.float64)
        method = ours("llm-adapters", t.model, placement=placement, bottleneck=4, r=4, alpha=8)
        if placement == "lora":
            twin = ours("lora", other.model, r=4, alpha=8, targets="q+k+v+up+down")
        else:
            twin = ours("adapter-pfeiffer" if placement == "series" else "adapter-parallel", other.model, bottleneck=4)
            for bottleneck in [module for module in twin.modules() if isinstance(module, Bottleneck)]:
                bottleneck.activation, bottleneck.scale = torch.tanh, 1.0
        biases = [parameter for key, parameter in twin.named_parameters() if key.endswith("bias")]
        others = [parameter for key, parameter in twin.named_parameters() if not key.endswith("bias")]
        with torch.no_grad():
            for bias in biases:
                bias.zero_()
            for here, there in zip(method.parameters(), others, strict=True):
                here.copy_(there.normal_(std=0.2))
        assert_same(t.outputs(), other.outputs())


@pytest.mark.parametrize("method_id", ["adapter-serial", "adaptformer", "adapter-parallel", "mam", "compacter"])
def test_bottlenecks_with_nothing_going_up_change_nothing(method_id: str) -> None:
    """Houlsby et al., section 2.1, and the start of the others."""
    t = tiny("bert", dtype=torch.float64)
    arguments = {"tokens": TOKENS, "projection": False} if method_id == "mam" else {}
    method = ours(method_id, t.model, bottleneck=4, **arguments)
    with torch.no_grad():
        for key, parameter in method.named_parameters():
            if ".up." in key:
                parameter.zero_()
    if method_id == "mam":
        alone = tiny("bert", dtype=torch.float64)
        prefix = ours("prefix", alone.model, **arguments)
        with torch.no_grad():
            prefix.values.table.copy_(method.values.table)
        assert_same(t.outputs(), alone.outputs())
    else:
        assert torch.equal(t.outputs(), tiny("bert", dtype=torch.float64).outputs())


def test_a_linear_parallel_adapter_of_a_linear_sublayer_is_a_low_rank_update() -> None:
    """He et al., section 3.2: y = f(x) + s W_up W_down x."""
    adapter = Bottleneck(torch.zeros(1), 6, 2, "linear", scale=3.0, init="kaiming")
    matrix = nn.Linear(6, 6)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
        adapter.down.bias.zero_()
        adapter.up.bias.zero_()
    x = torch.randn(4, 6)
    merged = matrix.weight + 3.0 * adapter.up.weight @ adapter.down.weight
    assert_same(matrix(x) + adapter(x), x @ merged.t() + matrix.bias)


@pytest.mark.parametrize("reads", ["input", "residual"])
def test_adaptformer_reads_what_its_equation_says(reads: str) -> None:
    """Equation 2 reads the MLP's input, behind the norm; the authors' code reads the residual stream."""
    t = tiny("vit", dtype=torch.float64)
    block = t.model.blocks[0]
    method = ours("adaptformer", t.model, bottleneck=4, reads=reads, scale=0.5)
    adapter = method.adapters["vision_blocks_0"]
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3)
    x = torch.randn(2, 5, WIDTH)
    after = block(x)
    assert method.anatomy is not None
    method.anatomy.detach()
    stream = x + block.attn(block.norm1(x))
    source = block.norm2(stream) if reads == "input" else stream
    by_hand = adapter.up(torch.relu(adapter.down(source)))
    assert_same(after, stream + block.mlp(block.norm2(stream)) + 0.5 * by_hand)


def test_gated_prompts_between_vpt_shallow_and_vpt() -> None:
    """Section 4: an open gate hands on what the block made of the prompts, a shut one hands on the prompts."""
    t = tiny("vit", dtype=torch.float64)
    method = ours("gated-vpt", t.model, tokens=TOKENS, dropout=0.0)
    prompts = method.prompts["vision"]
    for gate, reference in ((1000.0, "vpt-shallow"), (-1000.0, "vpt")):
        other = tiny("vit", dtype=torch.float64)
        plain = ours(reference, other.model, tokens=TOKENS)
        with torch.no_grad():
            prompts.gates.fill_(gate)
            for source in plain.prompts.values():
                source.tokens.copy_(prompts.prompts.tokens)
        assert_same(t.outputs(), other.outputs())
        with torch.no_grad():
            prompts.temperatures[0] = 0.5
        assert not torch.allclose(t.outputs(), other.outputs())
        with torch.no_grad():
            prompts.temperatures[0] = 1.0


def test_a_temperature_divides_the_scores_and_stays_in_its_range() -> None:
    t = tiny("vit", dtype=torch.float64)
    method = ours("gated-vpt", t.model, tokens=TOKENS)
    prompts = method.prompts["vision"]
    with torch.no_grad():
        prompts.temperatures.copy_(torch.tensor([-3.0, 40.0]))
    method.after_step(0)
    assert prompts.temperatures.tolist() == [0.01, 10.0]
    hot = t.outputs()
    assert method.anatomy is not None
    t.model.blocks[0].attn.scale *= 100
    t.model.blocks[1].attn.scale /= 10
    with torch.no_grad():
        prompts.temperatures.fill_(1.0)
    assert_same(t.outputs(), hot)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_lpt_trains_nothing_below_its_prompt_and_reads_each_instance(name: str) -> None:
    """Sections 4.1 and 4.2."""
    t = tiny(name, padded=False, dtype=torch.float64)
    method = ours("lpt", t.model, tokens=TOKENS, hidden=8, pool="mean")
    assert method.anatomy is not None
    seen: list[torch.Tensor] = []
    for block in method.anatomy.blocks:
        block.tap(seen.append)
    together = t.model(**t.inputs)[0]
    assert [y.requires_grad for y in seen] == [False, True]
    assert [y.shape[1] for y in seen] == [LENGTH, LENGTH]  # behind the last block the prompt is gone again
    seen.clear()
    alone = t.model(**{k: v[1:] if isinstance(v, torch.Tensor) else v for k, v in t.inputs.items()})[0]
    assert_same(together[1:], alone)
    generator = method.generators["text"]
    first, second = generator(torch.randn(2, LENGTH, WIDTH))
    assert first.shape == (TOKENS, WIDTH) and not torch.allclose(first, second)


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_dept_is_prompt_tuning_and_a_change_by_position(name: str) -> None:
    """Section 2.2: E + A B at the first positions of the text, nothing at later ones, nothing in a decoder."""
    t, other = tiny(name, dtype=torch.float64), tiny(name, dtype=torch.float64)
    method = ours("dept", t.model, tokens=TOKENS, rank=2, length=LENGTH - 2)
    plain = ours("prompt-tuning", other.model, tokens=TOKENS)
    (prompt,), (update,) = method.prompts.values(), method.updates.values()
    with torch.no_grad():
        next(iter(plain.prompts.values())).copy_(prompt)
    assert torch.equal(t.outputs(), other.outputs())
    with torch.no_grad():
        update.b.normal_()
    embedded = torch.randn(2, LENGTH, WIDTH)
    changed = update(embedded) - embedded
    assert_same(changed[0, : LENGTH - 2], update.a @ update.b)
    assert torch.equal(changed[:, LENGTH - 2 :], torch.zeros(2, 2, WIDTH))
    assert method.anatomy is not None
    (tower,) = [tower for tower in method.anatomy.towers.values() if tower.takes_prompt]
    text = tower.embedding.module(t.inputs["input_ids"])
    with_update = t.outputs()
    rest = {key: value for key, value in t.inputs.items() if key != "input_ids"}
    by_hand = other.model(**rest, inputs_embeds=update(text))
    if name == "t5":
        assert_same(t.model(**t.inputs).logits, by_hand.logits)
    else:
        assert_same(t.model(**t.inputs)[0], by_hand[0])
    assert not torch.allclose(with_update, other.outputs())


def test_dept_has_two_learning_rates() -> None:
    method = ours("dept", tiny("bert").model, tokens=TOKENS, lr=0.3, lr_embedding=0.004)
    rates = [(len(group["params"]), group.get("lr", method.config.lr)) for group in method.parameter_groups()]
    assert rates == [(1, 0.3), (2, 0.004)]
