"""One battery for all methods: every method of the registry on a tiny random model of every architecture.

A new method is tested by being registered; the one thing it must add here is the closed form of its parameter count.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Anatomy, Unmergeable, anatomy_of
from peft_atlas.bench.recipes import configure, resolve
from peft_atlas.bench.registry import registry
from peft_atlas.methods.contract import Method
from safetensors.torch import load, save
from torch import Tensor, nn

from .tiny import BLOCKS, LACKS, NAMES, WIDTH, Tiny, outputs, tiny, tiny_on_meta

SMALL = {"r": 4, "alpha": 8, "tokens": 3, "bottleneck": 4, "hidden": 8}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "lora": [{"targets": "all"}],
    "bitfit": [{"biases": "query+intermediate"}],
    "prefix": [{"projection": False}, {"projection": False, "shift_positions": True}],
    "prompt-tuning": [{"init": "random"}],
    "adapter-pfeiffer": [{"activation": "gelu"}],
    "dora": [{"targets": "all"}],
    "pissa": [{"iterations": 4}],
    "dylora": [{"frozen": True, "test_rank": 2}],
    "hiwi": [{"on": "weights"}],
    "krona": [{"placement": "feedforward"}],
    "loha": [{"r": 2}],
    "lokr": [{"r": 2, "targets": "all"}],
    "oft": [{"block": 8, "terms": 0}],
    "boft": [{"factors": 1, "rescale": False}],
    "ia3": [{"targets": "all"}],
    "adapter-serial": [{"train_norms": False}],
    "adapter-parallel": [{"beside": "both", "activation": "gelu"}],
    "adaptformer": [{"learned_scale": True, "reads": "residual"}],
    "compacter": [{"after": "feedforward", "rank": 2, "train_norms": False}],
    "adapterdrop": [{"training": "specialised"}],
    "p-tuning": [{"encoder": "mlp"}],
    "lpt": [{"pool": "mean"}],
    "dept": [{"length": 5, "init": "random"}],
    "llama-adapter": [{"upper": 0.5}],
    "llm-adapters": [{"placement": "series"}, {"placement": "lora"}],
    "child-tuning": [{"mode": "F"}],
}
TRAINS_EVERYTHING = {"full", "fishmask", "pafi", "lt-sft", "child-tuning", "diff-pruning", "mezo", "spt"}
# Each verb of the anatomy is used by one of these, which meet every architecture; the others meet one of each family.
EVERYWHERE = {
    *("adapter-pfeiffer", "adapter-parallel", "bitfit", "dora", "full", "ia3", "linear", "ln-tuning", "lora", "oft"),
    *("fishmask", "prefix", "prompt-tuning", "ssf", "vpt"),
}
REPLACES = {"qlora"}  # quantised matrices stand in for the backbone's, whatever another method made of those
ONE_OF_EACH = ("vit-layerscale", "bert", "llama", "t5")
Case = tuple[str, dict[str, Any]]
CASES: list[Case] = [(m, extra) for m in registry("methods").ids() for extra in ({}, *VARIANTS.get(m, []))]


def case_id(case: Case) -> str:
    return case[0] + "".join(f"-{value}" for value in case[1].values())


def config_of(case: Case) -> Any:
    return _config(case[0], tuple(case[1].items()))


@cache
def _config(name: str, extra: tuple[tuple[str, Any], ...]) -> Any:
    fields = registry("methods").load(name).Config.model_fields
    arguments = {key: value for key, value in SMALL.items() if key in fields}
    return configure(name, resolve(name, {**arguments, **dict(extra)}, "text", "tiny", "tiny"))


def places(case: Case) -> set[str]:
    """Places that the method needs; "head" is no place of the backbone."""
    return set(registry("methods").load(case[0]).requires(config_of(case))) - {"head"}


def attached(case: Case, model: nn.Module, seed: int = 1) -> Method:
    torch.manual_seed(seed)
    method: Method = registry("methods").load(case[0])(config_of(case))
    method.attach(anatomy_of(model))
    return method


def fits(case: Case, name: str) -> bool:
    if case == ("bitfit", {"biases": "query+intermediate"}) and name in ("llama", "t5", "gemma2"):
        return False
    return not places(case) & LACKS[name]


def models(case: Case) -> list[str]:
    """Models that a method meets in the tests of training, merging and shipping."""
    chosen = NAMES if case[0] in EVERYWHERE and case[1] in ({}, *VARIANTS.get(case[0], [])[:1]) else ONE_OF_EACH
    return [name for name in chosen if fits(case, name)]


every_case = pytest.mark.parametrize("case", CASES, ids=case_id)
every_model = pytest.mark.parametrize("name", NAMES)
cells = pytest.mark.parametrize(
    ("case", "name"), [pytest.param(c, n, id=f"{case_id(c)}-{n}") for c in CASES for n in models(c)]
)
trained_cells = pytest.mark.parametrize(
    ("case", "name"),
    [pytest.param(c, n, id=f"{case_id(c)}-{n}") for c in CASES for n in models(c) if c[0] != "linear"],
)


def perturb(method: Method, seed: int = 2) -> None:
    """Move everything that trains, so that nothing is left at a start that hides mistakes."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, parameter in method.adapter_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


def configs(model: nn.Module) -> list[Any]:
    return list({id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values())


def traces(model: nn.Module) -> list[str]:
    """What a method left behind in the model."""
    left = [
        f"{type(module).__name__}.{key}"
        for module in model.modules()
        for key in module.__dict__
        if key == "forward" or key.startswith("_atlas")
    ]
    left += [name for name, p in model.named_parameters() if p.requires_grad or p.grad is not None]
    left += [f"hooks of {type(m).__name__}" for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    for config in configs(model):
        left += [f"config.{key}" for key in config.__dict__ if key.startswith("_atlas")]
        if config._attn_implementation not in ("sdpa", "eager"):
            left.append(f"config implementation {config._attn_implementation}")
    return left


class TinyFit:
    """Gradient descent as the trainer does it: the method's hooks in their order, on one batch."""

    def __init__(self, case: Tiny, method: Method, steps: int = 5) -> None:
        self.tiny, self.method, self.steps = case, method, steps
        self.losses: list[float] = []
        self.head = None
        torch.manual_seed(7)
        self.target = torch.randn_like(case.outputs().detach())

    def loss(self, batch: dict[str, Any]) -> Tensor:
        y = outputs(self.tiny.model, {**self.tiny.inputs, **batch})
        return (y - self.target[: len(y)]).square().mean()

    def batches(self, steps: int) -> Iterator[dict[str, Tensor]]:
        for _ in range(steps):
            yield {key: value for key, value in self.tiny.inputs.items() if isinstance(value, Tensor)}

    def train_mode(self, on: bool) -> None:
        self.tiny.model.train(on)

    def record(self, step: int, steps: int, loss: float, lr: float, seconds: float) -> None:
        self.losses.append(loss)

    def gradient_descent(self) -> None:
        method = self.method
        optimizer = torch.optim.AdamW(method.parameter_groups(), lr=3e-3, weight_decay=0.0)
        for step in range(self.steps):
            method.before_step(step)
            optimizer.zero_grad()
            self.losses.append(float(method.compute_gradients(self, self.tiny.inputs)))  # type: ignore[arg-type]
            method.after_backward(step)
            optimizer.step()
            method.after_step(step)
        self.losses.append(float(self.loss(self.tiny.inputs)))


def train(case: Tiny, method: Method) -> list[float]:
    fit = TinyFit(case, method)
    method.before_fit(fit)  # type: ignore[arg-type]
    method.fit(fit)  # type: ignore[arg-type]
    return fit.losses


@every_case
@every_model
def test_unsupported_cells_name_the_missing_place(case: Case, name: str) -> None:
    reason = anatomy_of(tiny(name).model).missing(tuple(places(case)))
    if places(case) & LACKS[name]:
        assert reason is not None
        assert reason.startswith("it")
    else:
        assert reason is None


@cells
def test_start(case: Case, name: str) -> None:
    t = tiny(name)
    before = t.outputs()
    method = attached(case, t.model)
    with torch.no_grad():
        after = t.outputs()
    assert torch.equal(before, after) == method.starts_as_backbone
    # torch has other kernels for a position bias that trains, and for an LSTM without gradients
    if (name == "t5" and case[0] in TRAINS_EVERYTHING) or case == ("p-tuning", {}):
        assert relative(t.outputs(), after) < 1e-5
    else:
        assert torch.equal(t.outputs(), after)


@trained_cells
def test_gradients_reach_what_trains_and_nothing_else(case: Case, name: str) -> None:
    t = tiny(name)
    method = attached(case, t.model)
    perturb(method)
    t.outputs().square().sum().backward()
    declared = dict(method.adapter_parameters())
    assert declared
    for key, parameter in declared.items():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        is_key_bias = "key.bias" in key or "k_proj.bias" in key  # softmax is blind to it
        assert is_key_bias or parameter.grad.abs().max() > 0, key
    trained = {id(parameter) for parameter in declared.values()}
    for key, parameter in [*t.model.named_parameters(), *method.named_parameters()]:
        assert id(parameter) in trained or (parameter.grad is None and not parameter.requires_grad), key


@trained_cells
def test_training_lowers_the_loss_and_leaves_frozen_bits(case: Case, name: str) -> None:
    t = tiny(name)
    before = bits(t.model)
    method = attached(case, t.model)
    keys = list(t.model.state_dict())
    losses = train(t, method)
    assert losses[-1] < losses[0]
    assert list(t.model.state_dict()) == keys == list(before)
    trained = {id(p) for p in method.trained_tensors().values()}
    frozen = [key for key, p in t.model.named_parameters(remove_duplicate=False) if id(p) not in trained]
    now = t.model.state_dict()
    assert all(torch.equal(now[key], before[key]) for key in frozen)
    assert not method.trained_tensors() or any(not torch.equal(now[key], before[key]) for key in before)
    assert method.anatomy is not None
    method.anatomy.detach()
    assert same_bits(bits(t.model), before)


@trained_cells
def test_shipped_tensors_make_the_same_model_again(case: Case, name: str) -> None:
    t, fresh = tiny(name), tiny(name)
    method = attached(case, t.model)
    train(t, method)
    file = save({key: tensor.detach().contiguous() for key, tensor in method.shipped().items()})
    other = attached(case, fresh.model, seed=99)
    other.load_shipped(load(file))
    assert torch.equal(fresh.outputs(), t.outputs())
    with pytest.raises(ValueError, match="lacks"):
        other.load_shipped({})
    with pytest.raises(ValueError, match="unknown tensor"):
        other.load_shipped({**load(file), "adapter.nobody": torch.zeros(1)})


@trained_cells
def test_the_same_seed_gives_the_same_training(case: Case, name: str) -> None:
    runs = []
    for _ in range(2):
        t = tiny(name)
        method = attached(case, t.model)
        runs.append((train(t, method), t.outputs()))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])


@cells
def test_merge_equals_unmerged_or_is_refused(case: Case, name: str) -> None:
    t = tiny(name)
    backbone, before = t.outputs(), bits(t.model)
    method = attached(case, t.model)
    perturb(method)
    unmerged, attached_bits = t.outputs(), bits(t.model)
    try:
        handle = method.merge()
    except Unmergeable:
        assert case[0] not in ("lora", "full", "linear", "ln-tuning")
    else:
        assert relative(t.outputs(), unmerged) < 1e-5
        again = method.merge()  # must not fold twice
        assert relative(t.outputs(), unmerged) < 1e-5
        again.remove()
        handle.remove()
        handle.remove()
    assert torch.equal(t.outputs(), unmerged)
    assert same_bits(bits(t.model), attached_bits)
    assert method.anatomy is not None
    method.anatomy.detach()
    assert torch.equal(t.outputs(), backbone)
    assert same_bits(bits(t.model), before)


@pytest.mark.parametrize("name", NAMES)
def test_lora_can_be_merged_everywhere(name: str) -> None:
    t = tiny(name)
    method = attached(("lora", {"targets": "all"}), t.model)
    perturb(method)
    before, names = t.outputs(), list(t.model.state_dict())
    method.merge()
    assert relative(t.outputs(), before) < 1e-5
    assert method.anatomy is not None
    method.anatomy.detach()  # while merged
    assert list(t.model.state_dict()) == names
    assert torch.equal(t.outputs(), tiny(name).outputs())


@cells
def test_detach_leaves_no_trace(case: Case, name: str) -> None:
    t = tiny(name)
    t.model.requires_grad_(False)
    function, before = t.outputs(), bits(t.model)
    forwards = {module: module.forward.__func__ for module in t.model.modules()}
    method = attached(case, t.model)
    perturb(method)
    if t.outputs().requires_grad:
        t.outputs().sum().backward()
    assert method.anatomy is not None
    method.anatomy.detach()
    assert torch.equal(t.outputs(), function)
    assert same_bits(bits(t.model), before)
    assert traces(t.model) == []
    assert {module: module.forward.__func__ for module in t.model.modules()} == forwards
    method.anatomy.detach()  # a second time


@cells
def test_attached_config_still_prints_and_saves(case: Case, name: str) -> None:
    t = tiny(name)
    saved = [config.to_dict() for config in configs(t.model)]
    attached(case, t.model)
    assert [config.to_dict() for config in configs(t.model)] == saved
    assert repr(t.model)


@cells
def test_deepcopy_is_independent(case: Case, name: str) -> None:
    t = tiny(name)
    backbone = t.outputs()
    method = attached(case, t.model)
    perturb(method)
    before, attached_bits = t.outputs(), bits(t.model)
    model, twin = copy.deepcopy((t.model, method))
    assert torch.equal(outputs(model, t.inputs), before)
    perturb(twin, seed=3)
    if case[0] != "linear":
        assert not torch.equal(outputs(model, t.inputs), before)
    assert torch.equal(t.outputs(), before)
    assert same_bits(bits(t.model), attached_bits)
    twin.anatomy.detach()
    assert torch.equal(outputs(model, t.inputs), backbone)
    assert traces(model) == []
    assert torch.equal(t.outputs(), before)
    assert same_bits(bits(t.model), attached_bits)


@cells
def test_pickle_keeps_the_function(case: Case, name: str) -> None:
    t = tiny(name)
    backbone = t.outputs()
    method = attached(case, t.model)
    perturb(method)
    before = t.outputs()
    model, twin = pickle.loads(pickle.dumps((t.model, method)))
    assert torch.equal(outputs(model, t.inputs), before)
    twin.anatomy.detach()
    assert torch.equal(outputs(model, t.inputs), backbone)


@trained_cells
def test_checkpointing_gives_the_same_gradients(case: Case, name: str) -> None:
    def gradients(checkpointing: bool) -> tuple[Tensor, dict[str, Tensor]]:
        t = tiny(name, dtype=torch.float64)  # T5's biases require a gradient when checkpointed: another kernel
        method = attached(case, t.model).double()
        perturb(method)
        t.model.train()
        if checkpointing and name.startswith("vit"):
            t.model.set_grad_checkpointing(True)
        elif checkpointing:
            t.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        y = t.outputs()
        y.square().sum().backward()
        copy.deepcopy((t.model, method))  # nothing of the pass is kept that cannot be copied
        return y.detach(), {key: p.grad for key, p in method.adapter_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert relative(plain[0], checkpointed[0]) < 1e-12
    assert plain[1].keys() == checkpointed[1].keys()
    for key in plain[1]:
        assert torch.allclose(plain[1][key], checkpointed[1][key], rtol=1e-10, atol=1e-10), key


PAIRS = [(a, b) for i, a in enumerate(CASES) for b in CASES[i:] if "linear" not in (a[0], b[0])]


@pytest.mark.parametrize("name", ["vit-layerscale", "llama"])
@pytest.mark.parametrize("first_leaves", [True, False])
def test_two_methods_leave_in_any_order(name: str, first_leaves: bool) -> None:
    for pair in PAIRS:
        if not all(fits(case, name) for case in pair):
            continue
        t = tiny(name)
        backbone, before = t.outputs(), bits(t.model)
        anatomies = [anatomy_of(t.model) for _ in pair]
        methods = []
        for case, anatomy in zip(pair, anatomies, strict=True):
            torch.manual_seed(len(methods))
            method = registry("methods").load(case[0])(config_of(case))
            method.attach(anatomy)
            methods.append(method)
        overlap = methods[0].trained_tensors().keys() & methods[1].trained_tensors().keys()
        for i, method in enumerate(methods):
            perturb(method, seed=i)
        leaving, staying = (0, 1) if first_leaves else (1, 0)
        both = t.outputs()
        anatomies[leaving].detach()
        if not overlap:
            alone = tiny(name)
            torch.manual_seed(staying)
            other = attached(pair[staying], alone.model)
            other.load_shipped(methods[staying].shipped())
            assert torch.allclose(t.outputs(), alone.outputs(), atol=1e-5), (pair, "one left")
            if pair[1][0] not in REPLACES:
                assert not torch.equal(both, t.outputs()), pair
        anatomies[staying].detach()
        assert torch.equal(t.outputs(), backbone), pair
        assert same_bits(bits(t.model), before), pair
        t.model.requires_grad_(False)
        assert traces(t.model) == [], pair


def norm_sizes(anatomy: Anatomy) -> int:
    """Weights and biases of all norms that are not the embeddings'."""
    total = 0
    for name, module in anatomy.model.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        is_before = name == "encoder.LayerNorm"  # DeBERTa's relative positions
        if is_norm and not is_before and "embeddings" not in name and "pre_lay" not in name:
            total += sum(p.numel() for p in module.parameters())
    return total


def attentions(anatomy: Anatomy) -> int:
    return sum(2 * a.kv_heads * a.head_dim for block in anatomy.blocks for a in block.attentions)


def prefix_size(config: Any, anatomy: Anatomy) -> int:
    d = attentions(anatomy)
    if not config.projection:
        return config.tokens * d
    return config.tokens * WIDTH + WIDTH * config.hidden + config.hidden + config.hidden * d + d


def bias_sizes(config: Any, anatomy: Anatomy) -> int:
    if config.biases == "all":
        return sum(p.numel() for n, p in anatomy.model.named_parameters() if n.endswith("bias"))
    return sum(block.attention.q.d_out + block.feedforward.up.d_out for block in anatomy.blocks)


def bottleneck_size(bottleneck: int) -> int:
    return 2 * WIDTH * bottleneck + bottleneck + WIDTH


def all_norms(anatomy: Anatomy) -> int:
    """Weights and biases of all norms, those of the embeddings included."""
    norms = [m for m in anatomy.model.modules() if "norm" in type(m).__name__.lower()]
    return sum(p.numel() for norm in norms for p in norm.parameters())


def compacter_size(config: Any, anatomy: Anatomy) -> int:
    adapters = len(anatomy.blocks) * (1 if config.after == "feedforward" else 2)
    each = 2 * config.rank * (WIDTH + config.bottleneck) + config.bottleneck + WIDTH
    return config.terms**3 + adapters * each + config.train_norms * norm_sizes(anatomy)


def adapterdrop_size(config: Any, anatomy: Anatomy) -> int:
    dropped = round(config.dropped * BLOCKS) * len(anatomy.towers) if config.training == "specialised" else 0
    return (len(anatomy.blocks) - dropped) * bottleneck_size(config.bottleneck)


def llm_adapters_size(config: Any, anatomy: Anatomy) -> int:
    if config.placement != "lora":
        return len(anatomy.blocks) * 2 * WIDTH * config.bottleneck
    chosen = [place for name, place in anatomy.linears("all").items() if not name.endswith(".o")]
    return sum(config.r * (place.d_in + place.d_out) for place in chosen)


def p_tuning_size(config: Any, anatomy: Anatomy) -> int:
    h = config.hidden
    mlp = (WIDTH * h + h) + (h * h + h) + (h * WIDTH + WIDTH)
    lstm = 8 * (WIDTH * h + h * h + 2 * h) + 8 * (2 * h * h + h * h + 2 * h)
    lstm += (4 * h * h + 2 * h) + (2 * h * WIDTH + WIDTH)
    each = config.tokens * WIDTH + (lstm if config.encoder == "lstm" else mlp)
    return sum(each for tower in anatomy.towers.values() if tower.takes_prompt)


def unipelt_size(config: Any, anatomy: Anatomy) -> int:
    prefixes, gate = sum(len(block.attentions) for block in anatomy.blocks), WIDTH + 1
    updates = sum(config.r * (place.d_in + place.d_out) + gate for place in anatomy.linears("q+v").values())
    adapters = len(anatomy.blocks) * (bottleneck_size(config.bottleneck) + gate)
    return prefix_size(config, anatomy) + prefixes * gate + updates + adapters


def ia3_size(config: Any, anatomy: Anatomy) -> int:
    chosen = anatomy.linears(config.targets).items()
    return sum(place.d_in if ".feedforward." in name else place.d_out for name, place in chosen)


def ssf_size(config: Any, anatomy: Anatomy) -> int:
    towers = anatomy.towers.values()
    ops = sum(len(t.norms) + len(t.other_ops) + (t.patch_embedding is not None) for t in towers)
    return 2 * (sum(place.d_out for place in anatomy.linears("all").values()) + ops * WIDTH)


def every_norm(anatomy: Anatomy) -> int:
    """Weights and biases of all norms."""
    norms = [m for m in anatomy.model.modules() if type(m).__name__.lower().endswith(("norm", "norm1d"))]
    return sum(p.numel() for norm in norms for p in norm.parameters())


def share(config: Any, anatomy: Anatomy) -> int:
    return int(config.density * sum(p.numel() for p in anatomy.model.parameters()))


def low_rank(config: Any, anatomy: Anatomy) -> int:
    return sum(config.r * (place.d_in + place.d_out) for place in anatomy.linears(config.targets).values())


def rows(config: Any, anatomy: Anatomy) -> int:
    return sum(place.d_out for place in anatomy.linears(config.targets).values())


def kronecker(config: Any, anatomy: Anatomy, full: bool = False) -> int:
    total, sizes = 0, {16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16)}
    for place in anatomy.linears(config.targets).values():
        (p, out), (q, into) = sizes[place.d_out], sizes[place.d_in]
        total += p * q + (out * into if full or config.r >= max(out, into) / 2 else config.r * (out + into))
    return total


def krona(config: Any, anatomy: Anatomy) -> int:
    if config.placement == "feedforward":
        return len(anatomy.blocks) * (4 * 4 + 8 * 8)
    return kronecker(config, anatomy, full=True)


def hiwi(config: Any, anatomy: Anatomy) -> int:
    places = anatomy.linears("feedforward").values()
    return sum(2 * config.bottleneck * (p.d_in if config.on == "weights" else p.d_out) for p in places)


def rotations(block: int, targets: str, anatomy: Anatomy) -> int:
    return sum(place.d_in * (block - 1) // 2 for place in anatomy.linears(targets).values())


CLOSED_FORMS: dict[str, Callable[[Any, Anatomy], int]] = {
    "fishmask": share,
    "pafi": share,
    "mezo": lambda c, a: sum(p.numel() for p in a.model.parameters()),
    "lt-sft": lambda c, a: int(c.density * (sum(p.numel() for p in a.model.parameters()) - every_norm(a))),
    "child-tuning": lambda c, a: share(c, a) if c.mode == "D" else sum(p.numel() for p in a.model.parameters()),
    "full": lambda c, a: sum(p.numel() for p in a.model.parameters()),
    "linear": lambda c, a: 0,
    "ia3": ia3_size,
    "ssf": ssf_size,
    "adapter-serial": lambda c, a: 2 * len(a.blocks) * bottleneck_size(c.bottleneck) + c.train_norms * all_norms(a),
    "adapter-parallel": lambda c, a: len(a.blocks) * bottleneck_size(c.bottleneck) * (2 if c.beside == "both" else 1),
    "adaptformer": lambda c, a: len(a.blocks) * (bottleneck_size(c.bottleneck) + c.learned_scale),
    "compacter": compacter_size,
    "adapterdrop": adapterdrop_size,
    "llm-adapters": llm_adapters_size,
    "p-tuning": p_tuning_size,
    "p-tuning-v2": prefix_size,
    "mam": lambda c, a: prefix_size(c, a) + len(a.blocks) * bottleneck_size(c.bottleneck),
    "unipelt": unipelt_size,
    "gated-vpt": lambda c, a: sum(c.tokens * WIDTH + 2 * len(t.blocks) - 1 for t in a.towers.values()),
    "lpt": lambda c, a: len(a.towers) * (WIDTH * c.hidden + c.hidden + (c.hidden + 1) * c.tokens * WIDTH),
    "dept": lambda c, a: sum(
        c.tokens * WIDTH + c.rank * (c.length + WIDTH) for tower in a.towers.values() if tower.takes_prompt
    ),
    "llama-adapter": lambda c, a: len(a.towers) * max(1, round(c.upper * BLOCKS)) * (c.tokens * WIDTH + 1),
    "lora": low_rank,
    "rslora": low_rank,
    "lora-plus": low_rank,
    "pissa": low_rank,
    "adalora": lambda c, a: low_rank(c, a) + c.r * len(a.linears(c.targets)),
    "sora": lambda c, a: low_rank(c, a) + c.r * len(a.linears(c.targets)),
    "dylora": low_rank,
    "qlora": low_rank,
    "hiwi": hiwi,
    "krona": krona,
    "vera": lambda c, a: c.r * len(a.linears(c.targets)) + rows(c, a),
    "loha": lambda c, a: 2 * low_rank(c, a),
    "lokr": kronecker,
    "oft": lambda c, a: rotations(c.block, c.targets, a),
    "boft": lambda c, a: c.factors * rotations(c.block, c.targets, a) + (rows(c, a) if c.rescale else 0),
    "lora-fa": lambda c, a: c.r * rows(c, a),
    "dora": lambda c, a: low_rank(c, a) + rows(c, a),
    "adapter-pfeiffer": lambda c, a: len(a.blocks) * (2 * WIDTH * c.bottleneck + c.bottleneck + WIDTH),
    "bitfit": bias_sizes,
    "ln-tuning": lambda c, a: norm_sizes(a),
    "prefix": prefix_size,
    "prompt-tuning": lambda c, a: sum(c.tokens * WIDTH for tower in a.towers.values() if tower.takes_prompt),
    "vpt": lambda c, a: len(a.blocks) * c.tokens * WIDTH,
    "vpt-shallow": lambda c, a: len(a.towers) * c.tokens * WIDTH,
}


@cells
def test_trainable_count_is_the_closed_form(case: Case, name: str) -> None:
    assert case[0] in CLOSED_FORMS, "write the closed form of the docstring's trainable count here"
    t = tiny(name)
    method = attached(case, t.model)
    count = sum(parameter.numel() for _, parameter in method.adapter_parameters())
    assert method.anatomy is not None
    assert count == CLOSED_FORMS[case[0]](method.config, method.anatomy)


@cells
def test_meta_device_counts_the_same(case: Case, name: str) -> None:
    real, meta = tiny(name), tiny_on_meta(name)
    here, there = attached(case, real.model), attached(case, meta)
    assert [(k, p.shape) for k, p in here.adapter_parameters()] == [(k, p.shape) for k, p in there.adapter_parameters()]
    assert all(p.is_meta for _, p in there.adapter_parameters())


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_lora_is_one_graph(name: str) -> None:
    t = tiny(name)
    method = attached(("lora", {}), t.model)
    perturb(method)
    expected = t.outputs()
    torch._dynamo.reset()
    compiled = torch.compile(t.model, backend="eager", fullgraph=True)
    assert torch.allclose(outputs(compiled, t.inputs), expected, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bloom"])
def test_half_precision_backbone_with_full_precision_method(name: str) -> None:
    for case in CASES:
        if fits(case, name):
            t = tiny(name, dtype=torch.bfloat16)
            method = attached(case, t.model)
            assert t.outputs().dtype == torch.bfloat16, case
            if case[0] != "linear":
                t.outputs().float().sum().backward()
                assert all(p.grad is not None for _, p in method.adapter_parameters()), case
