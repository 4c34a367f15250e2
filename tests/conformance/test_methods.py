"""One battery for all methods: every method of the registry on a tiny random model of every architecture.

A new method is tested by being registered; the one thing it must add here is the closed form of its parameter count.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Anatomy, anatomy_of
from peft_atlas.bench.conformance import learning, leaving
from peft_atlas.bench.conformance.subject import Subject, bits, perturb, relative, same_bits, subject_of, traces
from peft_atlas.bench.conformance.verdicts import NotApplicable
from peft_atlas.bench.names import Name
from peft_atlas.bench.registry import registry
from peft_atlas.methods.contract import Method
from torch import nn

from .tiny import BLOCKS, LACKS, NAMES, WIDTH, outputs, tiny

SMALL = {"r": 4, "alpha": 8, "tokens": 3, "bottleneck": 4, "hidden": 8, "d": 60, "terms": 4}
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
    "lst": [{"skipped": 0, "keeps_output": True}],
    "diff-pruning": [{"structured": False}],
    "spt": [{"density": 0.1, "threshold": 0.3}],
    "kadaptation": [{"rule_rank": 0, "bias": False, "rank": 2}],
    "st-adapter": [{"before": "both", "kernel": "3x3x1"}],
    "aim": [{"before_attention": True}],
}
# Each verb of the anatomy is used by one of these, which meet every architecture; the others meet one of each family.
EVERYWHERE = {
    *("adapter-pfeiffer", "adapter-parallel", "bitfit", "dora", "full", "ia3", "linear", "ln-tuning", "lora", "oft"),
    *("fishmask", "lst", "prefix", "prompt-tuning", "ssf", "vpt"),
}
REPLACES = {"qlora"}  # quantised matrices stand in for the backbone's, whatever another method made of those
# Blocks like those of models that are here: they meet every method in half precision, and all tests of the anatomy.
ALIKE = ("hf-vit", "videomae", "vit-frames", "text-to-image")
ONE_OF_EACH = ("vit-layerscale", "bert", "llama", "t5")
CLIPS = ("vit-frames", "timesformer")  # what methods for video meet
Case = tuple[str, dict[str, Any]]
CASES: list[Case] = [(m, extra) for m in registry("methods").ids() for extra in ({}, *VARIANTS.get(m, []))]


def case_id(case: Case) -> str:
    return case[0] + "".join(f"-{value}" for value in case[1].values())


def subject(case: Case) -> Subject:
    return _subject(case[0], tuple(case[1].items()))


@cache
def _subject(name: str, extra: tuple[tuple[str, Any], ...]) -> Subject:
    fields = registry("methods").load(name).Config.model_fields
    arguments = {key: value for key, value in SMALL.items() if key in fields}
    return subject_of(Name(name, {**arguments, **dict(extra)}), "text")


def places(case: Case) -> set[str]:
    """Places that the method needs; "head" is no place of the backbone."""
    return set(subject(case).kind.requires(subject(case).config)) - {"head"}


def attached(case: Case, model: nn.Module) -> Method:
    return subject(case).attached(model)


def fits(case: Case, name: str) -> bool:
    if case == ("bitfit", {"biases": "query+intermediate"}) and name in ("llama", "t5", "gemma2", "unet"):
        return False
    return not places(case) & LACKS[name]


def models(case: Case) -> list[str]:
    """Models that a method meets in the tests of training, merging and shipping."""
    everywhere = case[0] in EVERYWHERE and case[1] in ({}, *VARIANTS.get(case[0], [])[:1])
    chosen = [name for name in NAMES if name not in ALIKE] if everywhere else ONE_OF_EACH
    if "frames" in places(case):
        chosen = CLIPS
    if "condition" in places(case):
        chosen = ("text-to-image",)
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
    learning.starts_as_claimed(subject(case), name)


@trained_cells
def test_gradients_reach_what_trains_and_nothing_else(case: Case, name: str) -> None:
    learning.gradients_reach_what_trains(subject(case), name)


@trained_cells
def test_training_lowers_the_loss_and_leaves_frozen_bits(case: Case, name: str) -> None:
    learning.training_lowers_the_loss(subject(case), name)


@trained_cells
def test_shipped_tensors_make_the_same_model_again(case: Case, name: str) -> None:
    leaving.shipped_tensors_make_the_same_model(subject(case), name)


@trained_cells
def test_the_same_seed_gives_the_same_training(case: Case, name: str) -> None:
    learning.same_seed_gives_the_same_training(subject(case), name)


@cells
def test_merge_equals_unmerged_or_is_refused(case: Case, name: str) -> None:
    try:
        leaving.merge_equals_unmerged(subject(case), name)
    except NotApplicable:
        assert case[0] not in ("lora", "full", "linear", "ln-tuning")


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
    leaving.detach_leaves_no_trace(subject(case), name)


@cells
def test_attached_config_still_prints_and_saves(case: Case, name: str) -> None:
    leaving.attached_model_prints_and_saves(subject(case), name)


@cells
def test_deepcopy_is_independent(case: Case, name: str) -> None:
    leaving.copy_is_independent(subject(case), name)


@cells
def test_pickle_keeps_the_function(case: Case, name: str) -> None:
    leaving.pickle_keeps_the_function(subject(case), name)


@trained_cells
def test_checkpointing_gives_the_same_gradients(case: Case, name: str) -> None:
    learning.checkpointing_gives_the_same_gradients(subject(case), name)


# one of each way to change a model; every method meets these and itself, before and after them
KINDS = ("lora", "bitfit", "adapter-serial", "ia3", "prefix", "vpt-shallow", "prompt-tuning", "lst", "full")
PAIRS = [
    (a, b)
    for a, b in itertools.product(CASES, repeat=2)
    if (a == b or a[0] in KINDS or b[0] in KINDS) and "linear" not in (a[0], b[0])
]


@pytest.mark.parametrize("name", ["vit-layerscale", "llama"])
@pytest.mark.parametrize("first_leaves", [True, False])
def test_two_methods_leave_in_any_order(name: str, first_leaves: bool) -> None:
    for number, pair in enumerate(PAIRS):
        if number % 2 == first_leaves or not all(fits(case, name) for case in pair):
            continue
        t = tiny(name)
        backbone, before = t.outputs(), bits(t.model)
        anatomies = [anatomy_of(t.model) for _ in pair]
        methods = []
        for case, anatomy in zip(pair, anatomies, strict=True):
            torch.manual_seed(len(methods))
            method = subject(case).kind(subject(case).config)
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
            is_outer_ladder = pair[0][0] == pair[1][0] == "lst"  # it makes the output, whatever the inner one made
            if pair[1][0] not in REPLACES and not is_outer_ladder:
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
        is_before = name in ("encoder.LayerNorm", "visual.ln_pre")  # the former, of DeBERTa's relative positions
        if is_norm(module) and not is_before and "embeddings" not in name and "pre_lay" not in name:
            total += sum(p.numel() for p in module.parameters())
    return total


def is_norm(module: nn.Module) -> bool:
    """Whether it normalises tokens; a UNet's convolutions have norms over groups of channels."""
    return "norm" in type(module).__name__.lower() and not isinstance(module, nn.GroupNorm)


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
    return sum(place.d_out for place in anatomy.linears("q+up").values())


def bottleneck_size(bottleneck: int) -> int:
    return 2 * WIDTH * bottleneck + bottleneck + WIDTH


def all_norms(anatomy: Anatomy) -> int:
    """Weights and biases of all norms, those of the embeddings included."""
    norms = [m for m in anatomy.model.modules() if is_norm(m)]
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
    chosen = [place for name, place in anatomy.linears("all").items() if not name.endswith((".o", ".gate"))]
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


def cross_attention_sizes(anatomy: Anatomy) -> list[int]:
    """The sizes of the keys' and values' matrices."""
    named = anatomy.model.named_parameters()
    return [p.numel() for name, p in named if "attn2.to_k" in name or "attn2.to_v" in name]


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


def lst(config: Any, anatomy: Anatomy) -> int:
    s, read = WIDTH // config.r, BLOCKS - min(config.skipped, BLOCKS - 1)
    crosses = {tower.name: any(a.is_cross for a in tower.blocks[0].attentions) for tower in anatomy.towers.values()}
    total = 0
    for tower in anatomy.towers.values():
        total += (read + 1) * (WIDTH * s + s) + read + 2 * s
        for block in tower.blocks[-read:]:
            for a in (block.attention, *(a for a in block.attentions if a.is_cross)):
                q, kv = (heads * max(1, a.head_dim // config.r) for heads in (a.heads, a.kv_heads))
                biases = zip(a.linears.values(), (q, kv, kv, s), strict=True)
                total += 2 * s + 2 * s * (q + kv) + sum(n for place, n in biases if place.bias() is not None)
            inner, ff = block.feedforward.up.d_out // config.r, block.feedforward
            total += 2 * s + len(ff.linears) * s * inner + (inner + s if ff.up.bias() is not None else 0)
        if crosses[tower.name] or not any(crosses.values()):
            total += s * WIDTH + WIDTH + config.keeps_output
    return total


def kadaptation(config: Any, anatomy: Anatomy) -> int:
    chosen = anatomy.linears("q+v").items()
    rules = 2 * (2 * config.rule_rank * config.terms**2 if config.rule_rank else config.terms**3)
    biases = {(name.rpartition(".")[0], place.d_out) for name, place in chosen} if config.bias else set()
    return rules + config.rank * sum(p.d_in + p.d_out for _, p in chosen) + sum(size for _, size in biases)


def st_adapter(config: Any, anatomy: Anatomy) -> int:
    taps = {"3x1x1": 3, "3x3x1": 9}[config.kernel]
    each = 2 * WIDTH * config.bottleneck + config.bottleneck * (taps + 2) + WIDTH
    return len(anatomy.blocks) * each * (2 if config.before == "both" else 1)


def aim(config: Any, anatomy: Anatomy) -> int:
    adapters = len(anatomy.blocks) * (4 if config.before_attention else 3)
    frames = anatomy.towers["vision"].frames
    assert frames is not None
    return adapters * bottleneck_size(config.bottleneck) + frames.frames * WIDTH


def spt(config: Any, anatomy: Anatomy) -> int:
    modules = [block.module for block in anatomy.blocks]
    modules += [tower.output.module for tower in anatomy.towers.values() if tower.output is not None]
    return int(config.density * sum(p.numel() for module in modules for p in module.parameters()))


CLOSED_FORMS: dict[str, Callable[[Any, Anatomy], int]] = {
    "lst": lst,
    "st-adapter": st_adapter,
    "aim": aim,
    "textual-inversion": lambda c, a: c.tokens * WIDTH,
    "custom-diffusion": lambda c, a: c.tokens * WIDTH + sum(cross_attention_sizes(a)),
    "said": lambda c, a: c.d + len(a.blocks) + 1,
    "kadaptation": kadaptation,
    "diff-pruning": share,
    "spt": spt,
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
    learning.count_is_the_closed_form(subject(case), name, CLOSED_FORMS[case[0]])


@cells
def test_meta_device_counts_the_same(case: Case, name: str) -> None:
    learning.meta_device_counts_the_same(subject(case), name)


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_lora_is_one_graph(name: str) -> None:
    t = tiny(name)
    method = attached(("lora", {}), t.model)
    perturb(method)
    expected = t.outputs()
    torch._dynamo.reset()
    compiled = torch.compile(t.model, backend="eager", fullgraph=True)
    assert torch.allclose(outputs(compiled, t.inputs), expected, atol=1e-6)


@every_model
def test_half_precision_backbone_with_full_precision_method(name: str) -> None:
    for case in CASES:
        if fits(case, name):
            try:
                learning.half_precision_backbone(subject(case), name)
            except NotApplicable:
                assert case[0] == "linear", case
