"""Side networks, random subspaces, Kronecker sums and diff vectors against what their papers define, in double."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft_atlas.bench.anatomy import anatomy_of
from peft_atlas.bench.anatomy.ladder import Rung
from peft_atlas.bench.conformance.tiny_fit import TinyFit
from peft_atlas.bench.ledger import SavedTensors, tensors_of
from peft_atlas.bench.params import count
from peft_atlas.methods.contract import Method
from peft_atlas.methods.parts.allocation import allocate
from peft_atlas.methods.parts.fastfood import Fastfood
from peft_atlas.methods.parts.gated_diff import GatedDiff
from peft_atlas.methods.parts.hard_concrete import gate, logistic_noise, probability
from peft_atlas.methods.parts.pruned import channels, head_dimensions, units
from peft_atlas.methods.parts.side_network import SideBlock, SideNetwork
from scipy.linalg import hadamard
from torch import Tensor, nn

from .test_ladder import block_outputs
from .test_parity import assert_same, ours
from .tiny import WIDTH, tiny


@pytest.fixture(autouse=True)
def _double(_deterministic: None) -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# lst ---------------------------------------------------------------------------------------------------------------


def kept_for_backward(modules: tuple[nn.Module, ...], run: Any) -> int:
    """Bytes that autograd keeps while `run()` computes, without parameters."""
    with SavedTensors(tensors_of(modules)) as saved:
        result = run()
    del result
    return saved.peak


class Calls:
    """The arguments with which the functions of a method's ladders were called, in order."""

    def __init__(self, method: Method) -> None:
        self.made: list[tuple[nn.Module, tuple[Any, ...]]] = []
        for side in method.sides.values():
            side.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.made.append((module, args))

    def again(self) -> list[Tensor]:
        """The side networks alone, on what the backbone gave them."""
        calls, self.made = self.made, []
        return [module(*args) for module, args in calls]


@pytest.mark.parametrize("name", ["vit", "gpt2", "llama", "t5"])
def test_lst_keeps_nothing_of_the_backbone_for_the_backward_pass(name: str) -> None:
    t, plain = tiny(name, dtype=torch.float64), tiny(name, dtype=torch.float64)
    method = ours("lst", t.model, r=4, skipped=0)
    calls = Calls(method)
    modules = (t.model, method)
    with torch.no_grad():
        t.outputs()
    alone = kept_for_backward(modules, calls.again)
    assert kept_for_backward(modules, t.outputs) == alone > 0
    lora = ours("lora", plain.model, r=1)
    assert alone < kept_for_backward((plain.model, lora), plain.outputs)


def attention_by_hand(attention: Any, x: Tensor, allowed: Tensor) -> Tensor:
    """Softmax attention of one sequence, head by head: x (L, s), allowed (L, L)."""
    q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    dim, outputs = q.shape[-1] // attention.heads, []
    for head in range(attention.heads):
        shared = head * attention.kv_heads // attention.heads
        ours_, theirs = slice(head * dim, (head + 1) * dim), slice(shared * dim, (shared + 1) * dim)
        scores = q[:, ours_] @ k[:, theirs].t() / dim**0.5
        outputs.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v[:, theirs])
    return attention.o_proj(torch.cat(outputs, -1))


def side_by_hand(side: SideNetwork, start: Tensor, hidden: list[Tensor], allowed: Tensor, gated: bool) -> Tensor:
    """Section 3.2 of the paper for one sequence, (L, width) -> (L, s)."""
    h = side.ladders[0](start)
    for alpha, ladder, f, block in zip(side.alpha, side.ladders[1:], hidden, side.blocks, strict=True):  # type: ignore[call-overload]
        mu = 1 / (1 + torch.exp(-alpha / 0.1))
        h = mu * ladder(f) + (1 - mu) * h
        h = h + attention_by_hand(block.attentions[0], block.norms[0](h), allowed)
        x, feedforward = block.norms[1](h), block.feedforward
        inner = F.gelu(feedforward.gate(x)) * feedforward.up(x) if gated else F.gelu(feedforward.up(x))
        h = h + feedforward.down(inner)
    return side.norm(h)


@pytest.mark.parametrize("name", ["vit", "bert", "llama"])
def test_lst_is_the_papers_recursion(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    hidden = block_outputs(t, next(iter(anatomy_of(t.model).towers.values())))
    method = ours("lst", t.model, r=4, skipped=0)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    calls = Calls(method)
    t.outputs()
    ((output, (_, running)),) = calls.made
    length = hidden[0].shape[1]
    allowed = torch.ones(2, length, length, dtype=torch.bool)
    if "attention_mask" in t.inputs:
        allowed &= t.inputs["attention_mask"].bool()[:, None]
    if name == "llama":
        allowed = allowed.tril()
    side, result = output.side, output(None, running)
    for i in range(2):
        expected = side_by_hand(side, running.start[i], [h[i] for h in hidden], allowed[i], name == "llama")
        assert_same(output.up(expected), result[i])


def test_lst_blocks_are_the_backbones_where_nothing_is_pruned() -> None:
    t = tiny("vit", dtype=torch.float64)
    anatomy = anatomy_of(t.model)
    outputs = block_outputs(t, anatomy.towers["vision"])
    block = anatomy.blocks[1]
    twin = SideBlock(block, 1, torch.arange(WIDTH), None, "gelu").double()
    for norm, place in zip(twin.norms, block.norms, strict=True):
        norm.load_state_dict(place.module.state_dict())
        norm.eps = place.module.eps
    assert_same(twin(outputs[0], Rung(outputs[1], None, None), None, None), outputs[1])


@pytest.mark.parametrize("name", ["vit", "gpt2", "llama"])
def test_lst_keeps_the_largest_channels_heads_dimensions_and_units(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    tower = next(iter(anatomy_of(t.model).towers.values()))
    attention, feedforward = tower.blocks[0].attention, tower.blocks[0].feedforward
    with torch.no_grad():
        for block in tower.blocks:
            for short, place in block.linears():
                place.weight()[..., [3, 17, 30]] *= 1 if short in ("o", "down") else 100
        feedforward.up.weight()[[1, 8]] *= 100
        attention.k.weight()[[2, attention.head_dim]] *= 100
    assert channels(tower, 3).tolist() == [3, 17, 30]
    assert units(feedforward, 2).tolist() == [1, 8]
    kept, group = head_dimensions(attention, 1), attention.heads // attention.kv_heads
    assert kept["k"].tolist() == [2, attention.head_dim]
    chosen = [2] * group + [0] * group
    assert kept["q"].tolist() == [head * attention.head_dim + i for head, i in enumerate(chosen)]


@pytest.mark.parametrize("name", ["vit", "t5"])
def test_lst_may_keep_the_backbones_output(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    before = t.outputs()
    method = ours("lst", t.model, r=4, keeps_output=True)
    gates = [side.alpha for side in method.sides.values() if hasattr(side, "up")]
    assert len(gates) == 1
    with torch.no_grad():
        gates[0].fill_(5.0)  # over a temperature of 0.1
    assert_same(t.outputs(), before)


# said --------------------------------------------------------------------------------------------------------------


def columns_of(projection: Fastfood) -> Tensor:
    """The projection as a matrix (n, d), by what it does to each basis vector."""
    return torch.stack([projection(e) for e in torch.eye(projection.d)], 1)


def drawn(d: int, n: int, seed: int) -> Fastfood:
    return Fastfood(d, n, torch.Generator().manual_seed(seed), torch.device("cpu")).double()


@pytest.mark.parametrize(("d", "n"), [(5, 3), (8, 8), (11, 50), (1000, 1500), (70, 4097), (2, 1)])
def test_fastfood_is_the_dense_product(d: int, n: int) -> None:
    projection = drawn(d, n, seed=3)
    blocks, size = projection.gains.shape
    h, order = torch.from_numpy(hadamard(size)).double(), projection.order.view(blocks, size) % size
    dense = torch.cat(
        [h @ torch.diag(g) @ torch.eye(size)[o] @ h @ torch.diag(b.double())
         for g, o, b in zip(projection.gains, order, projection.signs, strict=True)]
    )[:n, :d]  # fmt: skip
    assert_same(columns_of(projection), dense)
    values = torch.randn(n)
    assert_same(projection.transposed(values), dense.t() @ values)
    assert all(sorted(o.tolist()) == list(range(size)) for o in order)


def test_fastfood_is_an_isometry_in_the_mean() -> None:
    d, n, draws = 6, 20, 4000
    inner, outer = torch.zeros(d, d), torch.zeros(n, n)
    for seed in range(draws):
        p = columns_of(drawn(d, n, seed))
        inner, outer = inner + p.t() @ p / draws, outer + p @ p.t() / draws
    # entries of P have deviation n^-0.5, so those of the two products at most (3 / n)^0.5 and (3 d)^0.5 / n
    assert float((inner - torch.eye(d)).abs().max()) < 5 * (3 / n / draws) ** 0.5
    assert float((outer - torch.eye(n) * d / n).abs().max()) < 5 * (3 * d / draws) ** 0.5 / n


@pytest.mark.parametrize("name", ["vit", "gpt2", "t5"])
def test_said_moves_each_layer_by_its_scale_times_the_projection(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    method = ours("said", t.model, d=40)
    assert method.anatomy is not None
    weights, blocks = method.anatomy.weights(), method.anatomy.blocks
    inside = [set(block.module.parameters()) for block in blocks]
    with torch.no_grad():
        method.theta.normal_()
        method.scales.uniform_(0.5, 2.0)
    assert method.theta.numel() == 40 and len(method.scales) == len(blocks) + 1
    unmerged, before = t.outputs(), [places[0].value().clone() for places in weights.values()]
    direction = torch.randn_like(unmerged)
    here = torch.autograd.grad((unmerged * direction).sum(), (method.theta, method.scales))
    layers = [
        next((i for i, block in enumerate(inside) if places[0].parameter in block), len(blocks))
        for places in weights.values()
    ]
    method.merge()
    merged = {place.parameter for places in weights.values() for place in places}
    for parameter in merged:
        parameter.requires_grad_(True)
    (t.outputs() * direction).sum().backward()
    by_theta, by_scale = torch.zeros_like(method.theta), torch.zeros_like(method.scales)
    for places, projection, layer, old in zip(weights.values(), method.projections, layers, before, strict=True):
        dense, scale = columns_of(projection), method.scales[layer].detach()
        assert_same((places[0].value() - old).flatten(), scale * dense @ method.theta)
        gradients = [p.part_of(p.parameter.grad).flatten() for p in places if p.parameter.grad is not None]
        if gradients:
            back = dense.t() @ torch.stack(gradients).sum(0)
            by_theta, by_scale[layer] = by_theta + scale * back, by_scale[layer] + back @ method.theta.detach()
    assert_same(here[0], by_theta)
    assert_same(here[1], by_scale)


# kadaptation -------------------------------------------------------------------------------------------------------


def test_kadaptation_trains_as_many_numbers_as_the_authors_count() -> None:
    """Their table has averages over 20 tasks with the tasks' heads, and the heads alone as the linear probe."""
    assert count("kadaptation", "vit-base-patch32-224").adapter == 79_699 - 29_523


@pytest.mark.parametrize("rule_rank", [0, 2])
def test_kadaptation_is_a_sum_of_kronecker_products(rule_rank: int) -> None:
    t = tiny("vit", dtype=torch.float64)
    assert not any(parameter.requires_grad for parameter in t.model.parameters())
    method = ours("kadaptation", t.model, terms=4, rule_rank=rule_rank, scale=3.0)
    assert method.anatomy is not None
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.5)
    dense = tiny("vit", dtype=torch.float64).model
    modules, update = dict(dense.named_modules()), {}
    for name, place in method.anatomy.linears("q+v").items():
        letter, factor = name[-1], method.factors[name.replace(".", "_")]
        rules = [method.rules[key] for key in ([f"{letter}_left", f"{letter}_right"] if rule_rank else [letter])]
        left = rules[0] @ rules[1] if rule_rank else rules[0]
        delta = sum(torch.kron(left[i], factor.b[i] @ factor.v[i]) for i in range(4)) * 3.0
        bias = method.biases[f"{name.rpartition('.')[0]}_{WIDTH}".replace(".", "_")]
        update[place.name, letter] = (delta, bias)
    for path in {path for path, _ in update}:
        module = modules[path.removesuffix(".weight")]
        (q, shift), (v, _) = update[path, "q"], update[path, "v"]
        none = torch.zeros(WIDTH, WIDTH)
        weight = module.weight + torch.cat([q, none, v])
        bias = module.bias + torch.cat([shift, none[0], shift])
        module.forward = partial(F.linear, weight=weight, bias=bias)  # type: ignore[method-assign]
    parameters = list(method.parameters())
    here, there = t.outputs(), dense(**t.inputs).flatten()
    assert_same(here, there)
    direction = torch.randn_like(here)
    ours_, theirs = (torch.autograd.grad((y * direction).sum(), parameters) for y in (here, there))
    for a, b in zip(ours_, theirs, strict=True):
        assert_same(a, b)


# diff-pruning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-1.5, 1.5), (-0.1, 1.1)])
@pytest.mark.parametrize("alpha", [-2.0, 0.0, 3.0])
def test_gates_are_open_as_often_as_their_probability_says(low: float, high: float, alpha: float) -> None:
    draws = torch.full((400_000,), alpha)
    z = gate(draws, logistic_noise(draws), low, high)
    expected = float(probability(torch.tensor(alpha), low, high))
    assert z.min() == 0 and z.max() == 1
    # five deviations of a share of so many draws, and the margin that noise keeps from its ends
    assert abs(float((z > 0).double().mean()) - expected) < 5 * (expected * (1 - expected) / len(z)) ** 0.5 + 1e-4


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("name", ["vit", "gpt2", "t5"])
def test_diff_pruning_has_the_gradients_that_the_authors_write_out(name: str, structured: bool) -> None:
    t, low, high = tiny(name, dtype=torch.float64), -0.2, 1.3
    weights = anatomy_of(t.model).weights()
    diff = GatedDiff(weights, 0.3, low, high, structured)
    with torch.no_grad():
        for parameter in diff.parameters():
            parameter.add_(torch.randn_like(parameter))
    direction = torch.randn_like(t.outputs())
    ((t.outputs() * direction).sum() + 0.7 * diff.expected_l0()).backward()
    plain = tiny(name, dtype=torch.float64)
    for i, places in enumerate(anatomy_of(plain.model).weights().values()):
        with torch.no_grad():
            places[0].value().add_(diff.change(i))
    plain.model.requires_grad_(True)
    (plain.outputs() * direction).sum().backward()
    for i, places in enumerate(anatomy_of(plain.model).weights().values()):
        gradient = places[0].parameter.grad
        g = torch.zeros_like(diff.w[i]) if gradient is None else places[0].part_of(gradient)
        z, slope = by_hand(diff.alpha[i], diff.noise[i], low, high)
        group, group_slope = torch.ones(()), torch.zeros(())
        if structured:
            group, group_slope = by_hand(diff.group_alpha[i], diff.group_noise[i], low, high)
        always = torch.tensor(torch.inf)
        chance, shared = (
            1 / (1 + torch.exp(torch.log(torch.tensor(-low / high)) - alpha.detach()))
            for alpha in (diff.alpha[i], diff.group_alpha[i] if structured else always)
        )
        w = diff.w[i].detach()
        assert_close(diff.w[i].grad, g * z * group)
        assert_close(diff.alpha[i].grad, g * w * slope * group + 0.7 * chance * (1 - chance) * shared)
        if structured:
            penalty = 0.7 * chance.sum() * shared * (1 - shared)
            assert_close(diff.group_alpha.grad[i], (g * w * z).sum() * group_slope + penalty)


def by_hand(alpha: Tensor, noise: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """A gate and its slope by alpha."""
    s = 1 / (1 + torch.exp(-(alpha + noise).detach()))
    stretched = s * (high - low) + low
    inside = (stretched > 0) & (stretched < 1)
    return stretched.clamp(0, 1), inside * (high - low) * s * (1 - s)


def assert_close(a: Tensor | None, b: Tensor) -> None:
    assert a is not None
    assert float((a - b).norm()) < 1e-9 * (1 + float(b.norm()))


class TwoPhases(TinyFit):
    """Keeps what lies between the two phases of diff pruning."""

    def gradient_descent(self) -> None:
        if self.method.diff is None:
            self.before_second = self.method.delta.values.detach().clone()
            super().gradient_descent()
            return
        super().gradient_descent()
        self.open_gates = float((self.method.diff.settled() != 0).double().mean())
        self.change = self.method.diff.settled()


@pytest.mark.parametrize("name", ["vit", "t5"])
def test_diff_pruning_keeps_the_largest_changes_and_trains_them_on(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    method = ours("diff-pruning", t.model, density=0.02)
    fit = TwoPhases(t, method)
    method.fit(fit)  # type: ignore[arg-type]
    index = method.delta.index
    left_out = torch.ones(len(fit.change), dtype=torch.bool).index_fill(0, index, False)
    assert len(index.unique()) == int(0.02 * len(fit.change))
    assert fit.change[index].abs().min() >= fit.change[left_out].abs().max() > 0
    assert torch.equal(fit.before_second, fit.change[index])
    assert not torch.equal(method.delta.values, fit.before_second)
    assert [name for name, _ in method.adapter_parameters()] == ["delta.values"]


def test_a_larger_penalty_closes_more_gates() -> None:
    shares = []
    for penalty in (0.0, 1.0):
        t = tiny("vit", dtype=torch.float64)
        method = ours("diff-pruning", t.model, start=0.0, penalty=penalty, gate_lr=0.5)
        fit = TwoPhases(t, method, steps=8)
        method.fit(fit)  # type: ignore[arg-type]
        shares.append(fit.open_gates)
    assert shares[1] < 0.2 < 0.4 < shares[0]


# spt ---------------------------------------------------------------------------------------------------------------


def swept(scores: list[float], sizes: list[int], costs: list[int], budget: int, threshold: float) -> tuple[Any, int]:
    """The authors' sweep, one weight at a time: (updated weights, single entries that the sweep itself chooses)."""
    owner = [i for i, size in enumerate(sizes) for _ in range(size)]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    best: tuple[Any, int] = ([], 0)
    for n in range(len(order) + 1):
        counts = [sum(owner[i] == j for i in order[:n]) for j in range(len(sizes))]
        updated = [j for j, cost in enumerate(costs) if cost and counts[j] >= threshold * cost]
        single = n - sum(counts[j] for j in updated)
        if single + sum(costs[j] for j in updated) <= budget:
            best = updated, single
    return best


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_spt_divides_the_budget_as_the_authors_sweep_does(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    costs = [data.draw(st.integers(0, size)) for size in sizes]
    scores = data.draw(st.permutations(range(sum(sizes))))
    budget, threshold = data.draw(st.integers(1, sum(sizes))), data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    updated, entries = allocate(torch.tensor(scores).double(), sizes, costs, budget, threshold)
    expected, single = swept(list(map(float, scores)), sizes, costs, budget, threshold)
    assert updated == expected
    owner = [i for i, size in enumerate(sizes) for _ in range(size)]
    outside = sorted((i for i in range(len(scores)) if owner[i] not in updated), key=lambda i: -scores[i])
    room = budget - sum(costs[j] for j in updated)
    assert entries.tolist() == outside[:room] and len(entries) >= single
    assert len(entries) == room or len(entries) == len(outside)


@pytest.mark.parametrize("name", ["vit", "gpt2", "t5"])
def test_spt_puts_updates_where_the_gradients_are_largest(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    method = ours("spt", t.model, density=0.04, r=1, threshold=0.5, batches=3)
    assert method.anatomy is not None
    budget, weights = method.delta.values.numel(), method.weights
    fit = TinyFit(t, method)
    method.before_fit(fit)  # type: ignore[arg-type]
    plain = tiny(name, dtype=torch.float64)
    plain.model.requires_grad_(True)
    (plain.outputs() - fit.target).square().mean().backward()
    twins = dict(zip(t.model.parameters(), plain.model.parameters(), strict=True))
    scores = [
        place.part_of(3 * torch.zeros_like(twin) if twin.grad is None else 3 * twin.grad.square()).flatten()
        for place, twin in ((places[0], twins[places[0].parameter]) for places in weights.values())
    ]
    linears = method.anatomy.linears("all")
    costs = [linears[key].d_in + linears[key].d_out if key in linears else 0 for key in weights]
    updated, single = allocate(torch.cat(scores), [len(s) for s in scores], costs, budget, 0.5)
    assert set(method.updates) == {name.replace(".", "_") for i, name in enumerate(weights) if i in updated}
    assert updated and len(single) and torch.equal(method.delta.index, single.sort().values)
    assert sum(parameter.numel() for _, parameter in method.adapter_parameters()) == budget
    assert_same(t.outputs(), tiny(name, dtype=torch.float64).outputs())
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.1)
    expected = t.outputs()
    fresh = tiny(name, dtype=torch.float64)
    other = ours("spt", fresh.model, density=0.04, r=1)
    other.load_shipped(method.shipped())
    assert_same(fresh.outputs(), expected)
    other.merge()
    assert_same(fresh.outputs(), expected)
