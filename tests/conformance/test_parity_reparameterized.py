"""Methods that change weights: against HF PEFT at copied weights in double precision, and what their papers prove."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Unmergeable, anatomy_of
from peft_atlas.bench.anatomy.linear import LinearPlace
from peft_atlas.bench.params import count
from peft_atlas.kernels.nf4.reference import LEVELS
from peft_atlas.methods.beyond.boft import Butterfly
from peft_atlas.methods.beyond.rslora import RankStabilizedConfig
from peft_atlas.methods.contract import Method
from peft_atlas.methods.parts.nf4 import NormalFloat
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


def modules(name: str) -> dict[str, Any]:
    return {"target_modules": MODULES[name]}


@both_models
def test_vera(name: str) -> None:
    pair = compare(name, "vera", peft.VeraConfig(r=6, **modules(name)), r=6)
    shared, theirs = next(pair.sites())[0].shared, pair.theirs.base_model
    assert torch.equal(shared.a, theirs.vera_A["default"])
    assert torch.equal(shared.b, theirs.vera_B["default"])
    pair.agree(pair.copy(d="vera_lambda_d.default", b="vera_lambda_b.default"))


@both_models
@pytest.mark.parametrize("r", [2, 4])  # the low-rank and the dense form
def test_loha(name: str, r: int) -> None:
    pair = compare(name, "loha", peft.LoHaConfig(r=r, alpha=6, **modules(name)), r=r, alpha=6)
    assert next(pair.sites())[0].is_dense == (r == 4)
    ends = {"b1": "hada_w1_a.default", "a1": "hada_w1_b.default", "b2": "hada_w2_a.default", "a2": "hada_w2_b.default"}
    pair.agree(pair.copy(**ends))


def test_loha_has_the_square_of_the_rank() -> None:
    pair = compare("bert", "loha", peft.LoHaConfig(r=3, **modules("bert")), r=3)
    module = next(pair.sites())[0]
    nn.init.normal_(module.a2)
    assert torch.linalg.matrix_rank(module.weight_delta()) == 9


@both_models
@pytest.mark.parametrize(("r", "factor"), [(2, -1), (4, -1), (2, 2), (1, 5)])
def test_lokr(name: str, r: int, factor: int) -> None:
    config = peft.LoKrConfig(r=r, alpha=6, decompose_factor=factor, **modules(name))
    pair = compare(name, "lokr", config, r=r, alpha=6, factor=factor)
    is_full = next(pair.sites())[0].v is None
    assert is_full == (r == 4)
    ends = {"own": "lokr_w1.default", "b": "lokr_w2.default"}
    low_rank = {"own": "lokr_w1.default", "b": "lokr_w2_a.default", "v": "lokr_w2_b.default"}
    pair.agree(pair.copy(**(ends if is_full else low_rank)))


def test_lokr_has_the_product_of_the_ranks() -> None:
    module = next(compare("bert", "lokr", peft.LoKrConfig(r=2, **modules("bert")), r=2).sites())[0]
    nn.init.normal_(module.v)
    assert torch.linalg.matrix_rank(module.weight_delta()) == 4 * 2  # left factor (4, 4), right factor of rank 2


@both_models
@pytest.mark.parametrize("terms", [0, 4, 5])  # 3 there gives the series of 4
def test_oft(name: str, terms: int) -> None:
    """HF PEFT's series is that of (I + Q) / (I - Q), its exact transform the inverse: there Q has the other sign."""
    series = {"use_cayley_neumann": terms > 0, "num_cayley_neumann_terms": terms}
    config = peft.OFTConfig(oft_block_size=8, **series, **modules(name))
    pair = compare(name, "oft", config, block=8, terms=terms)
    pairs = pair.copy(entries="oft_R.default.weight")
    if terms == 0:
        with torch.no_grad():
            for mine, _ in pairs:
                mine.neg_()
                mine.register_hook(torch.neg)
    pair.agree(pairs)


def test_oft_keeps_the_angles_between_rows() -> None:
    pair = compare("bert", "oft", peft.OFTConfig(oft_block_size=8, **modules("bert")), block=8, terms=0)
    before = [place.weight() @ place.weight().t() for place in places(pair.method)]
    pair.copy(entries="oft_R.default.weight")
    changed = [place.weight().clone() for place in places(pair.method)]
    pair.method.merge()
    for gram, old, place in zip(before, changed, places(pair.method), strict=True):
        assert_same(place.weight() @ place.weight().t(), gram)
        assert relative(place.weight(), old) > 0.01


@both_models
def test_boft_of_one_factor(name: str) -> None:
    """HF PEFT keeps b * b numbers a block, and takes the skew-symmetric half, with the other sign."""
    config = peft.BOFTConfig(boft_block_size=8, boft_n_butterfly_factor=1, **modules(name))
    pair = compare(name, "boft", config, block=8, factors=1)
    row, column = torch.triu_indices(8, 8, 1)
    pairs = []
    for site, (mine, _, stem) in enumerate(pair.sites()):
        theirs, scale = pair.parameters[f"{stem}.boft_R.default"], pair.parameters[f"{stem}.boft_s.default"]
        ours_scale = list(pair.method.scales.values())[site].s
        with torch.no_grad():
            theirs.normal_(std=0.3)
            scale.normal_(mean=1.0, std=0.3)
            mine.entries.copy_(0.5 * (theirs.mT - theirs)[:, :, row, column])
            ours_scale.copy_(scale.flatten())
        pairs += [(mine.entries, theirs), (ours_scale, scale)]
    pair.agree([])
    for mine, theirs in pairs:
        assert mine.grad is not None and theirs.grad is not None
        there = theirs.grad.flatten() if mine.dim() == 1 else -2 * theirs.grad[:, :, row, column]
        assert_same(mine.grad, there)


def test_butterfly_factors_become_dense_when_the_paper_says() -> None:
    """With d = 32 and b = 4: after 1 + log2(32 / 4) = 4 factors."""
    for factors, is_dense in ((1, False), (2, False), (3, False), (4, True)):
        rotation = Butterfly(torch.empty(32, 32), 4, factors)
        nn.init.normal_(rotation.entries)
        matrix = rotation(torch.eye(32))
        assert_same(matrix @ matrix.t(), torch.eye(32))
        assert bool((matrix.abs() > 1e-12).all()) == is_dense


ADALORA = {"a": "lora_A.default", "e": "lora_E.default", "b": "lora_B.default"}


def adalora(name: str) -> Comparison:
    """HF PEFT divides alpha by r + 1e-5, which is put into our alpha."""
    schedule = {"total_step": 12, "tinit": 2, "tfinal": 4, "deltaT": 2, "orth_reg_weight": 0.1}
    config = peft.AdaLoraConfig(init_r=6, target_r=3, lora_alpha=6, **schedule, **modules(name))
    ours_schedule = {"initial": 2.5 / 12, "final": 4.5 / 12, "interval": 2, "orthogonality": 0.1}
    return compare(name, "adalora", config, init_r=6, target_r=3, alpha=36 / (6 + 1e-5), **ours_schedule)


@both_models
def test_adalora(name: str) -> None:
    pair = adalora(name)
    pair.agree(pair.copy(**ADALORA))


def test_adalora_prunes_what_hf_peft_prunes() -> None:
    pair = adalora("bert")
    pairs = pair.copy(**ADALORA)
    fit: Any = SimpleNamespace(steps=12)
    pair.method.before_fit(fit)
    mine = torch.optim.AdamW(pair.method.parameter_groups(), lr=1e-2)
    theirs = torch.optim.AdamW([p for p in pair.theirs.parameters() if p.requires_grad], lr=1e-2)
    alive = []
    for step in range(12):
        for optimizer, y, penalty in (
            (mine, pair.tiny.outputs(), pair.method.extra_loss()),
            (theirs, outputs(pair.theirs, pair.tiny.inputs), orthogonality(pair.parameters)),
        ):
            optimizer.zero_grad()
            assert penalty is not None
            (y.square().mean() + penalty).backward()
            optimizer.step()
        pair.method.after_step(step)
        pair.theirs.base_model.update_and_allocate(step)
        for a, b in pairs:
            assert_same(a.view(b.shape), b)
        alive.append(sum(int(a.count_nonzero()) for a, b in pairs if b.dim() == 2 and b.shape[1] == 1))
    assert alive[0] == 4 * 6
    assert alive[-1] == 4 * 3
    assert alive[4] == 15  # 12 + 12 (1 - 2 / 6)^3, rounded down


def orthogonality(parameters: dict[str, nn.Parameter]) -> Tensor:
    """The penalty of HF PEFT's AdaLoRA model, which it adds only where a model returns a loss."""
    grams = [p @ p.T for n, p in parameters.items() if "lora_A" in n]
    grams += [p.T @ p for n, p in parameters.items() if "lora_B" in n]
    return 0.1 * torch.stack([(gram - torch.eye(len(gram))).norm() for gram in grams]).mean()


def test_sora_is_lora_with_a_scaled_by_the_gate() -> None:
    pair = lora("bert", "sora")
    gates = [module.gate for module, _, _ in pair.sites()]
    pairs = pair.copy(**LORA_NAMES)
    with torch.no_grad():
        for (_, a), gate in zip(pairs[::2], gates, strict=True):
            a.mul_(gate[:, None])
    pair.agree(pairs[1::2])
    for (mine, theirs), gate in zip(pairs[::2], gates, strict=True):
        assert mine.grad is not None and theirs.grad is not None and gate.grad is not None
        assert_same(mine.grad, theirs.grad * gate[:, None])
        assert_same(gate.grad, (theirs.grad * mine).sum(1))


def test_a_step_of_sora_solves_the_proximal_problem() -> None:
    method = ours("sora", tiny("bert", dtype=torch.float64).model, lr=0.5, penalty=0.6)
    gate = next(iter(method.factors.values())).gate
    before = gate.detach().clone()
    method.after_step(0)
    candidates = torch.linspace(-3, 3, 6001)[:, None]
    cost = 0.5 * (candidates - before).square() + 0.3 * candidates.abs()
    assert torch.allclose(gate, candidates[cost.argmin(0), 0], atol=1e-3)


def test_a_closed_gate_of_sora_stays_out() -> None:
    t = tiny("bert", dtype=torch.float64)
    method = ours("sora", t.model)
    factor = next(iter(method.factors.values()))
    with torch.no_grad():
        factor.gate[2] = 0
        factor.b.normal_()
    t.outputs().square().sum().backward()
    assert factor.a.grad[2].abs().max() == 0 == factor.b.grad[:, 2].abs().max()
    assert factor.a.grad[1].abs().max() > 0


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_dylora_is_lora_of_each_lower_rank(rank: int) -> None:
    config = peft.LoraConfig(r=rank, lora_alpha=12, **modules("bert"))
    pair = compare("bert", "dylora", config, r=4, alpha=12)
    pair.method.use_rank(rank)
    for module, _, stem in pair.sites():
        a, b = (pair.parameters[f"{stem}.lora_{letter}.default.weight"] for letter in "AB")
        with torch.no_grad():
            module.a[:rank] = nn.init.normal_(a)
            module.b[:, :rank] = nn.init.normal_(b)
            module.b[:, rank:] = 1.0
    here, there = pair.tiny.outputs(), outputs(pair.theirs, pair.tiny.inputs)
    assert_same(here, there)
    here.square().sum().backward()
    there.square().sum().backward()
    for module, _, stem in pair.sites():
        assert_same(module.a.grad[:rank], pair.parameters[f"{stem}.lora_A.default.weight"].grad)
        assert_same(module.b.grad[:, :rank], pair.parameters[f"{stem}.lora_B.default.weight"].grad)
        assert module.a.grad[rank:].abs().sum() == 0 == module.b.grad[:, rank:].abs().sum()


@both_models
def test_krona_is_lokr_with_a_full_right_factor(name: str) -> None:
    pair = compare(name, "krona", peft.LoKrConfig(r=8, alpha=24, **modules(name)), scale=3.0)
    pair.agree(pair.copy(own="lokr_w1.default", b="lokr_w2.default"))


def test_krona_has_full_rank() -> None:
    module = next(compare("bert", "krona", peft.LoKrConfig(r=8, **modules("bert"))).sites())[0]
    nn.init.normal_(module.b)
    assert torch.linalg.matrix_rank(module.weight_delta()) == 32
    assert sum(p.numel() for p in module.parameters()) == 4 * 4 + 8 * 8 < 2 * (32 + 32)  # LoRA of rank 2


def test_normal_float_levels_are_normal_quantiles() -> None:
    """Appendix E of the QLoRA paper: eight quantiles above zero, seven below, and zero."""
    tail = (1 - 1 / (2 * 15) + 1 - 1 / (2 * 16)) / 2
    above = [NormalDist().inv_cdf(tail + (0.5 - tail) * i / 8) for i in range(8)]
    below = [-NormalDist().inv_cdf(tail + (0.5 - tail) * i / 7) for i in range(7)]
    levels = sorted([*above, 0.0, *below])
    assert torch.allclose(torch.tensor(LEVELS), torch.tensor(levels) / max(levels), atol=1e-4)


def test_normal_float_needs_the_published_bits() -> None:
    stored = NormalFloat(torch.randn(512, 512))
    assert stored.bits() / 512**2 == pytest.approx(4 + 0.127, abs=5e-4)


def test_normal_float_suits_normal_weights() -> None:
    weight = torch.randn(256, 256)
    blocks = weight.view(-1, 64)
    unit = blocks.abs().amax(1, keepdim=True) / 7
    equidistant = ((blocks / unit).round() * unit).view_as(weight)
    assert relative(NormalFloat(weight)(), weight) < 0.95 * relative(equidistant, weight) < 0.2


def test_normal_float_restores_its_own_levels_and_zero() -> None:
    weight = torch.tensor(LEVELS).repeat(64, 16) * 0.5
    assert relative(NormalFloat(weight)(), weight) < 1e-6
    assert NormalFloat(torch.zeros(8, 64))().abs().max() == 0
    assert NormalFloat(torch.randn(3, 7))().shape == (3, 7)


def test_qlora_quantises_every_matrix_and_nothing_else() -> None:
    t = tiny("bert")
    expected = copy.deepcopy(t)
    for block in expected.model.encoder.layer:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = NormalFloat(module.weight)().to(module.weight.dtype)
    before = t.outputs()
    ours("qlora", t.model).float()
    assert_close = torch.allclose(t.outputs(), expected.outputs(), atol=1e-5)
    assert assert_close and not torch.allclose(t.outputs(), before, atol=1e-3)


def test_hiwi_leaves_changed_biases_only() -> None:
    t = tiny("bert", dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in t.model.state_dict().items()}
    method = ours("hiwi", t.model)
    with torch.no_grad():
        for adapter in method.adapters.values():
            adapter.up.normal_()
    y = t.outputs()
    method.merge()
    after = t.model.state_dict()
    assert relative(t.outputs(), y) < 1e-10
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {f"encoder.layer.{i}.{part}.dense.bias" for i in range(2) for part in ("intermediate", "output")}


def test_hiwi_stores_the_published_share_of_roberta_large() -> None:
    counts = count("hiwi", "roberta-large")
    biases = sum(t.numel for t in counts.tensors if t.name.endswith(".up")) // 4
    assert biases == 24 * (4096 + 1024)
    assert 100 * biases / counts.backbone_parameters == pytest.approx(0.03, abs=0.005)


class Turn:
    """x -> x M."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.matrix

    def on_weight(self, weight: Tensor) -> Tensor:
        return weight @ self.matrix.t()


class Halve:
    """(y, x) -> y / 2."""

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        return y / 2

    def merged(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return weight / 2, bias / 2


@pytest.mark.parametrize("name", ["bert", "gpt2"])  # a matrix of its own, and a slice of a fused one
def test_input_maps_and_revisions_act_in_the_order_of_registration(name: str) -> None:
    model = tiny(name, dtype=torch.float64).model
    anatomy = anatomy_of(model)
    q, v = (next(iter(anatomy.linears(letter).values())) for letter in "qv")
    bias = q.bias()
    assert bias is not None
    weight, offset = q.weight().clone(), bias.value().clone()
    first, second = Turn(torch.randn(32, 32)), Turn(torch.randn(32, 32))
    update = LowRank(q.weight(), 4, 1.0, 0.0, "kaiming")
    nn.init.normal_(update.b)
    x = torch.randn(2, 5, 32)
    rows = slice(None) if q.rows is None else q.rows
    before = q.module(x)
    q.map_in(first)
    q.delta(update)
    q.map_in(second)
    q.revise(Halve())
    turned = second(x)
    expected = (first(turned) @ weight.t() + offset + update(turned)) / 2
    assert_same(q.module(x)[..., rows], expected)
    if v.module is q.module:
        assert_same(q.module(x)[..., v.rows], before[..., v.rows])
    handle = anatomy.merge()
    assert_same(q.module(x)[..., rows], expected)
    handle.remove()
    anatomy.detach()
    assert torch.equal(q.module(x), before)


@pytest.mark.parametrize("verb", ["map_in", "revise"])
def test_a_map_that_is_no_matrix_is_not_merged(verb: str) -> None:
    anatomy = anatomy_of(tiny("bert", dtype=torch.float64).model)
    place = next(iter(anatomy.linears("q").values()))
    getattr(place, verb)(torch.add if verb == "revise" else torch.tanh)
    with pytest.raises(Unmergeable):
        anatomy.merge()
