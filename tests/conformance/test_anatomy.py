"""Every verb of every place against a reference computed by hand, in double precision."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft_atlas.bench.anatomy import Unmergeable, anatomy_of
from peft_atlas.bench.anatomy.attention import Context, attend
from peft_atlas.bench.anatomy.edits import Edits
from peft_atlas.bench.anatomy.linear import LinearPlace
from peft_atlas.bench.anatomy.tokens import widen_mask
from torch import Tensor, nn

from .tiny import BLOCKS, LACKS, NAMES, PADDED, WIDTH, outputs, tiny

DOUBLE = torch.float64
N = 3
CORES = [name for name in NAMES if "core" not in LACKS[name]]
TOKENS = [name for name in NAMES if "tokens" not in LACKS[name]]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    a, b = a.detach(), b.detach()
    return a.shape == b.shape and float((a - b).norm()) <= tolerance * (1 + float(b.norm()))


def draw(*shape: int, scale: float = 0.3) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE) * scale


class Dense(nn.Module):
    """A linear delta."""

    def __init__(self, d_out: int, d_in: int) -> None:
        super().__init__()
        self.m = nn.Parameter(draw(d_out, d_in))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.m)

    def weight_delta(self) -> Tensor:
        return self.m


class Bent(Dense):
    """A delta that no weight can express."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, self.m))

    weight_delta = property()  # type: ignore[assignment]


# matrices ----------------------------------------------------------------------------------------------------------


def whole() -> tuple[nn.Module, list[LinearPlace]]:
    module = nn.Linear(5, 6).double()
    return module, [LinearPlace(Edits(), module, "w")]


def fused(bias: bool = True) -> tuple[nn.Module, list[LinearPlace]]:
    module, edits = nn.Linear(5, 6, bias=bias).double(), Edits()
    return module, [LinearPlace(edits, module, "w", slice(i, i + 2)) for i in (0, 2, 4)]


def transposed() -> tuple[nn.Module, list[LinearPlace]]:
    from transformers.pytorch_utils import Conv1D

    module, edits = Conv1D(6, 5).double(), Edits()
    nn.init.normal_(module.bias)
    return module, [LinearPlace(edits, module, "w", slice(i, i + 2), transposed=True) for i in (0, 2, 4)]


def interleaved() -> tuple[nn.Module, list[LinearPlace]]:
    module, edits = nn.Linear(5, 6).double(), Edits()
    return module, [LinearPlace(edits, module, "w", torch.arange(6).view(2, 3)[:, i]) for i in range(3)]


KINDS: dict[str, Callable[[], tuple[nn.Module, list[LinearPlace]]]] = {
    "whole": whole, "fused": fused, "fused-no-bias": partial(fused, False), "transposed": transposed,
    "interleaved": interleaved,
}  # fmt: skip
VERBS = ("delta", "bent", "affine", "scale", "shift", "scale_in", "reparam")


def scaled_plus(scale: Tensor, shift: Tensor, w: Tensor) -> Tensor:
    return w * scale + shift


def apply_verbs(
    places: list[LinearPlace], verbs: list[tuple[int, str]]
) -> tuple[Callable[[Tensor], Tensor], list[Any]]:
    """Do the verbs, and return what they should compute: the definitions in the docstring of `linear`, as closures."""
    module: Any = places[0].module
    matrix = module.weight.detach().clone()
    matrix = matrix.t() if places[0].transposed else matrix
    bias = torch.zeros(6, dtype=DOUBLE) if module.bias is None else module.bias.detach().clone()
    index = [torch.arange(6) if p.rows is None else torch.arange(6)[p.rows] for p in places]
    weights = [matrix[rows] for rows in index]
    handles = []
    steps: list[list[Callable[[Any], Callable[[Tensor], Tensor]]]] = [[] for _ in places]
    for i, verb in verbs:
        place = places[i]
        if verb in ("delta", "bent"):
            f = (Dense if verb == "delta" else Bent)(place.d_out, 5)
            handles.append(place.delta(f))
            steps[i].append(lambda g, f=f: lambda x: g(x) + f(x))
        elif verb == "scale_in":
            v = draw(5)
            handles.append(place.scale_in(v))
            steps[i].append(lambda g, v=v: lambda x: g(v * x))
        elif verb == "reparam":
            function = partial(scaled_plus, draw(1), draw(place.d_out, 5))
            handles.append(place.reparam(function))
            weights[i] = function(weights[i])
        else:
            s = draw(place.d_out) if verb != "shift" else None
            t = draw(place.d_out) if verb != "scale" else None
            handles.append(place.affine(s, t))
            steps[i].append(lambda g, s=s, t=t: lambda x: g(x) * (1.0 if s is None else s) + (0.0 if t is None else t))
    functions = []
    for w, rows, more in zip(weights, index, steps, strict=True):
        g: Callable[[Tensor], Tensor] = partial(F.linear, weight=w, bias=bias[rows])
        for step in more:
            g = step(g)
        functions.append(g)

    def expected(x: Tensor) -> Tensor:
        y = x.new_zeros(*x.shape[:-1], 6)
        for g, rows in zip(functions, index, strict=True):
            y = y.index_copy(-1, rows, g(x))
        return y

    return expected, handles


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_verbs_of_a_matrix_in_any_order(kind: str, data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    module, places = KINDS[kind]()
    x = torch.randn(2, 4, 5, dtype=DOUBLE, requires_grad=True)
    original, names = module(x), list(module.state_dict())
    verb = st.tuples(st.integers(0, len(places) - 1), st.sampled_from(VERBS))
    verbs = data.draw(st.lists(verb, min_size=1, max_size=7))
    expected, handles = apply_verbs(places, verbs)
    assert close(module(x), expected(x))
    weights = draw(2, 4, 6)
    (here,) = torch.autograd.grad((module(x) * weights).sum(), x)
    (there,) = torch.autograd.grad((expected(x) * weights).sum(), x)
    assert close(here, there)
    record = places[0].edits
    if any(verb == "bent" for _, verb in verbs):
        with pytest.raises(Unmergeable):
            record.merge()
    else:
        merged = record.merge()
        assert close(module(x), expected(x))
        with pytest.raises(RuntimeError, match="merged"):
            places[0].delta(Dense(places[0].d_out, 5))
        merged.remove()
    assert close(module(x), expected(x))
    for handle in data.draw(st.permutations(handles)):
        handle.remove()
    assert torch.equal(module(x), original)
    assert list(module.state_dict()) == names
    assert "forward" not in module.__dict__ and not [key for key in module.__dict__ if "atlas" in key]


@pytest.mark.parametrize("kind", KINDS)
def test_reading_a_matrix(kind: str) -> None:
    module, places = KINDS[kind]()
    x = draw(2, 5)
    for place in places:
        rows = slice(None) if place.rows is None else place.rows
        assert place.weight().shape == (place.d_out, place.d_in)
        assert close(place.linear(x), module(x)[:, rows])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_can_be_trained_apart(kind: str) -> None:
    module, places = KINDS[kind]()
    x = draw(2, 5)
    before = module(x)
    place = places[-1]
    weight = place.train_rows()
    assert close(module(x), before)
    module(x).sum().backward()
    assert weight.grad is not None and weight.grad.shape == (place.d_out, 5)
    with torch.no_grad():
        weight.add_(1.0)
    expected = before.clone()
    expected[:, slice(None) if place.rows is None else place.rows] += x.sum(-1, keepdim=True)
    assert close(module(x), expected)
    bias = place.bias()
    if bias is not None:
        rows = bias.train_rows()
        with torch.no_grad():
            rows.add_(2.0)
        expected[:, slice(None) if place.rows is None else place.rows] += 2.0
        assert close(module(x), expected)


def test_a_tensor_and_its_matrix_may_both_be_changed() -> None:
    for order in itertools.permutations(("tensor", "matrix")):
        t = tiny("bert", dtype=DOUBLE)
        anatomy = anatomy_of(t.model)
        q = anatomy.blocks[0].attention.q
        (tensor,) = [place for place in anatomy.tensors() if place.name == q.name]
        before, x = q.linear(draw(1, WIDTH)), draw(4, WIDTH)
        w, b = q.weight().detach().clone(), q.bias().value()  # type: ignore[union-attr]
        for kind in order:
            if kind == "tensor":
                tensor.reparam(partial(torch.mul, torch.tensor(2.0, dtype=DOUBLE)))
            else:
                q.affine(scale=torch.full((WIDTH,), 3.0, dtype=DOUBLE))
        assert close(q.module(x), 3 * F.linear(x, 2 * w, b))
        assert before is not None


# ops ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_affines_of_every_op_merge(name: str) -> None:
    """Two affines on each norm, layer scale and patch embedding, together with deltas on the matrices behind."""
    t = tiny(name, dtype=DOUBLE)
    before = t.outputs()
    anatomy = anatomy_of(t.model)
    for tower in anatomy.towers.values():
        ops = [norm for block in tower.blocks for norm in (*block.norms, *block.scales)]
        ops += [op for op in (tower.patch_embedding,) if op is not None]
        for op in ops:
            is_scale = op in [s for block in tower.blocks for s in block.scales]
            for _ in range(2):
                # neither a layer scale nor a norm at the end of a sublayer (Gemma 2) has a bias to take a shift
                takes_no_shift = is_scale or (name == "gemma2" and "post_" in op.name)
                op.affine(1 + draw(op.width, scale=0.1), None if takes_no_shift else draw(op.width, scale=0.1))
        for block in tower.blocks:
            for _, place in block.linears():
                place.delta(Dense(place.d_out, place.d_in))
    unmerged = t.outputs()
    assert not close(unmerged, before, 1e-3)
    anatomy.merge()
    assert close(t.outputs(), unmerged, 1e-6 if name == "gemma2" else 1e-10)  # Gemma's norms are in single precision
    anatomy.detach()
    assert torch.equal(t.outputs(), before)


def test_op_place_by_hand() -> None:
    t = tiny("bert", dtype=DOUBLE)
    norm = anatomy_of(t.model).blocks[0].norms[0]
    x, scale, shift = draw(2, 4, WIDTH), draw(WIDTH), draw(WIDTH)
    plain = norm.module(x)
    first = norm.affine(scale, shift)
    norm.after(torch.tanh)
    assert close(norm.module(x), torch.tanh(plain * scale + shift))
    first.remove()
    assert close(norm.module(x), torch.tanh(plain))
    norm.edits.undo()
    assert torch.equal(norm.module(x), plain)


def test_a_shift_with_nowhere_to_go_changes_nothing() -> None:
    t = tiny("llama", dtype=DOUBLE)
    anatomy = anatomy_of(t.model)
    final = anatomy.towers["text"].output
    assert final is not None
    final.affine(1 + draw(WIDTH), draw(WIDTH))
    anatomy.blocks[0].attention.q.delta(Dense(WIDTH, WIDTH))
    before = t.outputs()
    with pytest.raises(Unmergeable, match="no bias"):
        anatomy.merge()
    assert torch.equal(t.outputs(), before)


def test_an_edit_that_was_removed_does_not_stop_a_merge() -> None:
    anatomy = anatomy_of(tiny("vit").model)
    handle = anatomy.blocks[0].feedforward.sublayer.after(torch.tanh)
    with pytest.raises(Unmergeable):
        anatomy.merge()
    handle.remove()
    anatomy.merge()


# sublayers ---------------------------------------------------------------------------------------------------------


def parts(name: str, block: Any) -> list[tuple[Any, Callable[[Tensor], Tensor], Any]]:
    """(norm before or None, sublayer's own function, norm behind or None) for attention and feed-forward."""
    if name == "vit-layerscale":
        return [(block.norm1, lambda z: block.ls1(block.attn(z)), None),
                (block.norm2, lambda z: block.ls2(block.mlp(z)), None)]  # fmt: skip
    if name == "opt":
        return [(block.self_attn_layer_norm, lambda z: block.self_attn(z)[0], None),
                (block.final_layer_norm, lambda z: block.fc2(block.activation_fn(block.fc1(z))), None)]  # fmt: skip
    if name == "gpt2":
        return [(block.ln_1, lambda z: block.attn(z)[0], None), (block.ln_2, block.mlp, None)]
    attention = block.attention
    return [(None, lambda z: attention.output.dense(attention.self(z)[0]), attention.output.LayerNorm),
            (None, lambda z: block.output.dense(block.intermediate(z)), block.output.LayerNorm)]  # fmt: skip


SUBLAYER_VERBS = ("before", "after", "beside", "stream", "residual")


def do(sublayer: Any, verb: str, f: Callable[[Tensor], Tensor]) -> None:
    if verb in ("beside", "stream"):
        sublayer.beside(f, source="in" if verb == "beside" else "residual")
    else:
        getattr(sublayer, verb)(f)


@pytest.mark.parametrize("name", ["vit-layerscale", "gpt2", "bert", "opt"])
@pytest.mark.parametrize("verbs", list(itertools.permutations(SUBLAYER_VERBS))[::9], ids="-".join)
def test_sublayer_verbs_in_any_order(name: str, verbs: tuple[str, ...]) -> None:
    t, twin = tiny(name, dtype=DOUBLE), tiny(name, dtype=DOUBLE)
    place = anatomy_of(t.model).blocks[0]
    block = anatomy_of(twin.model).blocks[0].module
    functions = [{verb: Bent(WIDTH, WIDTH) for verb in verbs} for _ in range(2)]
    for sublayer, chosen in zip(place.sublayers, functions, strict=True):
        for verb in verbs:
            do(sublayer, verb, chosen[verb])
    x = draw(2, 4, WIDTH)
    h = x
    for (norm, own, behind), f in zip(parts(name, block), functions, strict=True):
        z = f["before"](h if norm is None else norm(h))
        y = own(z)
        for verb in verbs:
            if verb == "after":
                y = f[verb](y)
            elif verb != "before":
                y = y + f[verb]({"beside": z, "stream": h, "residual": h + y}[verb])
        h = h + y
        h = h if behind is None else behind(h)
    result = place.module(x)
    assert close(result[0] if isinstance(result, tuple) else result, h)


@pytest.mark.parametrize("name", NAMES)
def test_behind_a_sublayer_means_behind_its_matrices(name: str) -> None:
    """`after`, put in first, still sees what a delta that came later adds to the last matrix."""

    def run(first: str) -> Tensor:
        t = tiny(name, dtype=DOUBLE)
        block = anatomy_of(t.model).blocks[0]
        torch.manual_seed(0)
        f, deltas = Bent(WIDTH, WIDTH), [Dense(p.d_out, p.d_in) for p in (block.attention.o, block.feedforward.down)]
        for kind in (first, "delta" if first == "after" else "after"):
            for sublayer, place, delta in zip(
                (block.attention.sublayer, block.feedforward.sublayer),
                (block.attention.o, block.feedforward.down),
                deltas,
                strict=True,
            ):
                if kind == "after":
                    sublayer.after(f)
                else:
                    place.delta(delta)
        return t.outputs()

    assert close(run("after"), run("delta"))


@pytest.mark.parametrize("name", ["vit", "gpt2", "llama", "clip-text"])
def test_a_sublayer_may_be_wrapped_skipped_and_repeated(name: str) -> None:
    t = tiny(name, dtype=DOUBLE)
    sublayer = anatomy_of(t.model).blocks[0].attention.sublayer
    if not sublayer.is_one_module:
        with pytest.raises(ValueError, match="spans several modules"):
            sublayer.around(lambda next, x: next(x))
        return
    before = t.outputs()
    handle = sublayer.around(lambda next, x: next(x))
    assert torch.equal(t.outputs(), before)
    handle.remove()
    handle = sublayer.around(lambda next, x: torch.zeros_like(x))
    skipped = t.outputs()
    handle.remove()
    o = anatomy_of(t.model).blocks[0].attention.o
    o.affine(torch.zeros(WIDTH, dtype=DOUBLE))
    assert close(skipped, t.outputs())


# blocks ------------------------------------------------------------------------------------------------------------


class Keep:
    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> None:
        self.seen.append(x)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_can_be_watched_skipped_and_repeated(name: str) -> None:
    t = tiny(name, dtype=DOUBLE)
    anatomy = anatomy_of(t.model)
    before = t.outputs()
    tower = list(anatomy.towers.values())[-1]
    taps = [Keep(), Keep(), Keep()]
    tower.blocks[0].tap(taps[0])
    tower.blocks[1].tap(taps[1])
    assert torch.equal(t.outputs(), before)
    tower.blocks[1].around(lambda next, x: x)  # skipped: the tap inside sees nothing
    t.outputs()
    assert len(taps[1].seen) == 1
    tower.blocks[1].tap(taps[2])
    t.outputs()
    assert torch.equal(taps[2].seen[0], taps[0].seen[0])
    anatomy.detach()
    tower.blocks[1].around(lambda next, x: next(next(x)))
    tower.blocks[1].tap(taps[2])
    twice = t.outputs()
    assert not close(twice, before, 1e-6)
    anatomy.detach()
    assert torch.equal(t.outputs(), before)


# attention ---------------------------------------------------------------------------------------------------------


def through(next: Any, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
    return next(q, k, v, context)


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("padded", [True, False])
def test_our_core_is_the_library_s(name: str, padded: bool) -> None:
    t = tiny(name, padded=padded)
    before = t.outputs()
    anatomy = anatomy_of(t.model)
    for block in anatomy.blocks:
        for attention in block.attentions:
            assert attention.core is not None
            attention.core.around(through)
    assert torch.equal(t.outputs(), before)


def explicit(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, bias: Tensor | float, scale: float) -> Tensor:
    """Softmax attention written out; `allowed` is bool (B, heads, L, S)."""
    repeats = q.shape[1] // k.shape[1]
    k = torch.stack([k[:, i // repeats] for i in range(q.shape[1])], 1)
    v = torch.stack([v[:, i // repeats] for i in range(q.shape[1])], 1)
    scores = torch.einsum("bhld,bhsd->bhls", q, k) * scale + bias
    return torch.einsum("bhls,bhsd->bhld", scores.masked_fill(~allowed, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("form", ["none", "causal", "bool", "float"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("keys", [5, 8])
def test_a_prefix_in_front_of_the_keys(form: str, with_bias: bool, keys: int) -> None:
    q, k, v = draw(2, 4, 5, 8), draw(2, 2, keys, 8), draw(2, 2, keys, 8)
    more_k, more_v = draw(2, 2, N, 8), draw(2, 2, N, 8)
    allowed = torch.ones(2, 1, 5, keys, dtype=torch.bool)
    mask = None
    if form == "causal":
        allowed &= torch.ones(5, keys, dtype=torch.bool).tril(keys - 5)
    elif form != "none":
        allowed = torch.rand(2, 1, 5, keys) > 0.4
        allowed[..., 0] = True
        mask = allowed if form == "bool" else torch.zeros(allowed.shape, dtype=DOUBLE).masked_fill(~allowed, -1e300)
    bias = draw(1, 4, 5, keys) if with_bias else None
    context = Context(mask=mask, bias=bias, causal=form == "causal", scale=0.3)
    if keys == 5 or form != "causal":  # torch's own causal flag is for equal lengths
        assert close(
            attend(q, k, v, context), explicit(q, k, v, allowed.expand(2, 4, 5, keys), bias if with_bias else 0.0, 0.3)
        )
    wide = context.widen(N, 5, keys, q.device)
    visible = torch.cat([torch.ones(2, 1, 5, N, dtype=torch.bool), allowed], -1).expand(2, 4, 5, keys + N)
    zero = 0.0 if bias is None else F.pad(bias, (N, 0))
    keys_, values = torch.cat([more_k, k], 2), torch.cat([more_v, v], 2)
    assert close(attend(q, keys_, values, wide), explicit(q, keys_, values, visible, zero, 0.3))


class PrefixOf:
    """Keys and values of `tokens` as the block itself would project them, unrotated."""

    def __init__(self, attention: Any, norm: Callable[[Tensor], Tensor], tokens: Tensor) -> None:
        x = norm(tokens)
        shape = (1, tokens.shape[0], attention.kv_heads, attention.head_dim)
        self.k = attention.k.linear(x).view(shape).transpose(1, 2)
        self.v = attention.v.linear(x).view(shape).transpose(1, 2)

    def __call__(self, next: Any, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        wide = context.widen(self.k.shape[2], q.shape[2], k.shape[2], k.device)
        batch = k.shape[0]
        k, v = (torch.cat([new.expand(batch, -1, -1, -1), old], 2) for new, old in ((self.k, k), (self.v, v)))
        return next(q, k, v, wide)


def last_hidden(t: Any, tower: Any) -> Tensor:
    """What the last block of the tower returns, (B, L, width)."""
    keep = Keep()
    handle = tower.blocks[-1].tap(keep)
    t.outputs()
    handle.remove()
    return keep.seen[-1]


# tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("padded", [True, False])
def test_tokens_of_one_block_are_keys_and_values_for_the_others(name: str, padded: bool) -> None:
    """In the last block alone, extra tokens act on the text as their own keys and values would, at no position."""
    t = tiny(name, padded=padded, dtype=DOUBLE)
    anatomy = anatomy_of(t.model)
    for tower in anatomy.towers.values():
        block = tower.blocks[-1]
        plain = last_hidden(t, tower)
        tokens = draw(N, WIDTH, scale=1.0)
        norm = (lambda x: x) if name in ("bert", "roberta") else block.norms[0].module
        prefix = PrefixOf(block.attention, norm, tokens)
        tower.tokens.insert(tokens, N, at=BLOCKS - 1, until=BLOCKS)
        inserted = last_hidden(t, tower)
        anatomy.detach()
        assert block.attention.core is not None
        block.attention.core.around(prefix)
        prefixed = last_hidden(t, tower)
        anatomy.detach()
        special = tower.special if tower.is_causal else 0  # what stands before the tokens does not see them
        assert torch.equal(inserted[:, :special], plain[:, :special])
        assert close(inserted[:, special:], prefixed[:, special:])
        assert not close(inserted[:, special:], plain[:, special:], 1e-4)


@pytest.mark.parametrize("deep", [True, False])
def test_tokens_of_a_vision_transformer_by_hand(deep: bool) -> None:
    t = tiny("vit", dtype=DOUBLE)
    model: Any = t.model
    sources = [draw(N, WIDTH) for _ in range(BLOCKS)]
    images = t.inputs["x"]
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    for i, block in enumerate(model.blocks):
        if i == 0 or deep:
            x = torch.cat([x[:, :1], sources[i].expand(2, -1, -1), x[:, 1:]], 1)
        x = block(x)
        if deep or i == BLOCKS - 1:
            x = torch.cat([x[:, :1], x[:, 1 + N :]], 1)
    expected = model.forward_head(model.norm(x))
    tokens = anatomy_of(model).towers["vision"].tokens
    if deep:
        for i, source in enumerate(sources):
            tokens.insert(source, N, at=i, until=i + 1)
    else:
        tokens.insert(sources[0], N)
    assert close(model(images), expected)


@pytest.mark.parametrize("name", TOKENS)
def test_nested_tokens_do_not_depend_on_the_order_of_insertion(name: str) -> None:
    def run(inner_first: bool, at: int) -> Tensor:
        t = tiny(name, dtype=DOUBLE)
        torch.manual_seed(5)
        for tower in anatomy_of(t.model).towers.values():
            outer, inner = draw(N, WIDTH), draw(2, WIDTH)
            calls = [partial(tower.tokens.insert, outer, N), partial(tower.tokens.insert, inner, 2, at, at + 1)]
            for call in calls[::-1] if inner_first else calls:
                call()
        return t.outputs()

    for at in range(BLOCKS):
        assert close(run(True, at), run(False, at))


def test_crossing_tokens_are_refused() -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=28, patch_size=14, embed_dim=WIDTH, depth=3, num_heads=2, num_classes=0)
    tokens = anatomy_of(model).towers["vision"].tokens
    tokens.insert(torch.randn(2, WIDTH), 2, at=0, until=2)
    with pytest.raises(ValueError, match="cross"):
        tokens.insert(torch.randn(2, WIDTH), 2, at=1, until=3)
    with pytest.raises(ValueError, match="not within"):
        tokens.insert(torch.randn(2, WIDTH), 2, at=2, until=9)


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("what", ["tokens", "prompt", "prefix"])
def test_padding_does_not_leak(name: str, what: str) -> None:
    """With anything in front, the ids under the padding mask change nothing at the places that are not padded."""
    place = {"prefix": "core"}.get(what, what)
    if place in LACKS[name]:
        pytest.skip(f"{name} has no place for {what}")
    t = tiny(name, dtype=DOUBLE)
    for tower in anatomy_of(t.model).towers.values():
        if what == "tokens":
            tower.tokens.insert(draw(N, WIDTH), N)
        elif what == "prompt" and tower.takes_prompt:
            tower.prompt(draw(N, WIDTH), N)
        elif what == "prefix":
            for block in tower.blocks:
                assert block.attention.core is not None
                block.attention.core.around(PrefixOf(block.attention, lambda x: x, draw(N, WIDTH)))
    ids = t.inputs["input_ids"].clone()
    ids[1, 5:] = torch.tensor([9, 11])
    if name == "roberta":  # positions are counted from the ids that are not the padding id
        ids[1, 5:] = torch.tensor([1, 1])
        t.inputs["input_ids"][1, 5:] = torch.tensor([1, 1])
    result, other = t.model(**t.inputs), t.model(**{**t.inputs, "input_ids": ids})
    key = "logits" if hasattr(result, "logits") else "last_hidden_state"
    keep = slice(None) if name == "t5" else slice(0, 5)
    assert close(getattr(result, key)[1, keep], getattr(other, key)[1, keep])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    length=st.integers(2, 6), n=st.integers(1, 4), at=st.integers(0, 1), causal=st.booleans(), boolean=st.booleans(),
    seed=st.integers(0, 100), row=st.booleans(),
)  # fmt: skip
def test_widened_masks(length: int, n: int, at: int, causal: bool, boolean: bool, seed: int, row: bool) -> None:
    torch.manual_seed(seed)
    keys = torch.rand(2, 1, 1, length) > 0.3
    keys[..., : at + 1] = True
    allowed = keys.expand(2, 1, length, length)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool).tril()
    elif row:
        allowed = keys
    mask = allowed if boolean else torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    wide = widen_mask(mask, n, at, causal)
    assert wide is not None and wide.dtype == mask.dtype
    seen = wide if boolean else wide == 0
    seen = seen.expand(2, 1, length + n, length + n)
    old = torch.tensor([i for i in range(length + n) if not at <= i < at + n])
    assert torch.equal(seen[:, :, old][..., old], allowed.expand(2, 1, length, length))
    new = slice(at, at + n)
    for i in old.tolist():
        assert bool(seen[:, :, i, new].all()) == (not causal or i >= at + n)
    triangle = torch.ones(n, n, dtype=torch.bool).tril() if causal else torch.ones(n, n, dtype=torch.bool)
    assert torch.equal(seen[:, :, new, new], triangle.expand(2, 1, n, n))
    assert seen[:, :, new, :at].all()
    behind = seen[:, :, new, at + n :]
    assert torch.equal(behind, torch.zeros_like(behind) if causal else keys[..., at:].expand_as(behind))


# prompts, caches, embeddings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if "prompt" not in LACKS[n] and n not in ("t5", "roberta")])
def test_a_prompt_is_embeddings_in_front(name: str) -> None:
    t = tiny(name, dtype=DOUBLE)
    tower = anatomy_of(t.model).towers["text"]
    prompt = draw(N, WIDTH)
    scaled = prompt * WIDTH**0.5 if name == "gemma2" else prompt  # as Gemma does with the rows of its table
    embeds = torch.cat([scaled.expand(2, -1, -1), t.model.get_input_embeddings()(t.inputs["input_ids"])], 1)
    mask = F.pad(t.inputs["attention_mask"], (N, 0), value=1)
    more = {key: value for key, value in t.inputs.items() if key == "use_cache"}
    by_hand = tower.module(inputs_embeds=embeds, attention_mask=mask, **more).last_hidden_state[:, N:]
    tower.prompt(prompt, N)
    stack = {key: value for key, value in t.inputs.items() if key != "decoder_input_ids"}
    assert torch.equal(tower.module(**stack).last_hidden_state, by_hand)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma2"])
@pytest.mark.parametrize("what", ["prompt", "prefix", "shifted"])
def test_a_cache_gives_the_same_logits(name: str, what: str) -> None:
    t = tiny(name, padded=False, dtype=DOUBLE)
    tower = anatomy_of(t.model).towers["text"]
    if what == "prompt":
        tower.prompt(draw(N, WIDTH), N)
    else:
        for block in tower.blocks:
            assert block.attention.core is not None
            block.attention.core.around(PrefixOf(block.attention, lambda x: x, draw(N, WIDTH)))
    if what == "shifted":
        tower.shift_positions(N)
    ids = t.inputs["input_ids"]
    full = t.model(input_ids=ids, use_cache=False).logits
    first = t.model(input_ids=ids[:, :4], use_cache=True)
    logits, cache = [first.logits], first.past_key_values
    for i in range(4, ids.shape[1]):
        step = t.model(input_ids=ids[:, i : i + 1], past_key_values=cache, use_cache=True)
        logits.append(step.logits)
    assert close(torch.cat(logits, 1), full)
    if what != "shifted":  # greedy continuation by the library: its own positions, its own mask
        mask = torch.ones_like(ids)
        options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        steps: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
        made = [
            torch.stack(t.model.generate(ids, attention_mask=mask, use_cache=c, **options, **steps).logits)
            for c in (True, False)
        ]
        assert close(made[0], made[1])


def test_embedding_verbs() -> None:
    t = tiny("bert", dtype=DOUBLE)
    anatomy = anatomy_of(t.model)
    embedding = anatomy.towers["text"].embedding
    assert embedding is not None
    table, module = embedding.weight.value().detach(), embedding.module
    ids = torch.tensor([[3, embedding.vocabulary, 5], [embedding.vocabulary + 1, 7, 8]])
    rows = embedding.rows(2)
    with torch.no_grad():
        rows.copy_(draw(2, WIDTH))
    expected = torch.cat([table, rows])[ids]
    assert torch.equal(module(ids), expected)
    module(ids).sum().backward()
    assert rows.grad is not None and rows.grad.ne(0).all()
    handle = embedding.delta(lambda ids: ids.unsqueeze(-1) * torch.ones(WIDTH, dtype=DOUBLE))
    assert close(module(ids), expected + ids.unsqueeze(-1))
    handle.remove()
    new = draw(1, 2, WIDTH)
    embedding.overwrite(slice(1, 3), lambda y: new)
    assert torch.equal(module(ids), torch.cat([expected[:, :1], new.expand(2, -1, -1)], 1))
    anatomy.detach()
    assert torch.equal(module(ids.clamp(max=9)), table[ids.clamp(max=9)])


# the whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_places_are_the_parameters(name: str) -> None:
    t = tiny(name)
    anatomy = anatomy_of(t.model)
    parameters = dict(t.model.named_parameters())
    assert {place.name: place.parameter for place in anatomy.tensors()}.keys() == parameters.keys()
    assert all(place.parameter is parameters[place.name] for place in anatomy.tensors())
    named = [*anatomy.linears("all").values(), *(op for tower in anatomy.towers.values() for op in tower.norms)]
    names = t.model.state_dict().keys()
    assert all(place.name in names or place.name + ".weight" in names for place in named)
    assert not any(parameter.requires_grad for parameter in t.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_snapshot_and_restore(name: str) -> None:
    t = tiny(name)
    before = t.outputs()
    anatomy = anatomy_of(t.model)
    snapshot = anatomy.snapshot()
    with torch.no_grad():
        for place in anatomy.tensors():
            place.parameter.add_(0.1)
    assert not torch.equal(t.outputs(), before)
    anatomy.restore(snapshot)
    assert torch.equal(t.outputs(), before)


def test_a_classifier_on_top_stays_trainable() -> None:
    import transformers as hf
    from timm.models.vision_transformer import VisionTransformer

    config = hf.BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    bert = hf.BertForSequenceClassification(config)
    vit = VisionTransformer(img_size=28, patch_size=14, embed_dim=32, depth=1, num_heads=2, num_classes=5)
    for model, head in ((bert, "classifier."), (vit, "head.")):
        anatomy = anatomy_of(model)
        assert {name for name, p in model.named_parameters() if p.requires_grad} == {head + "weight", head + "bias"}
        assert not [place.name for place in anatomy.tensors() if place.name.startswith(head)]


def test_two_towers_of_one_kind_have_places_of_their_own() -> None:
    pair = nn.ModuleDict({"query": tiny("bert").model, "document": tiny("bert", seed=1).model})
    anatomy = anatomy_of(pair)
    assert len(anatomy.towers) == 2
    assert len(anatomy.linears("q")) == 2 * BLOCKS
    assert len({place.module for place in anatomy.linears("all").values()}) == 2 * 6 * BLOCKS
    assert len({block.name for block in anatomy.blocks}) == 2 * BLOCKS


def test_training_a_tensor_is_undone() -> None:
    t = tiny("bert")
    anatomy = anatomy_of(t.model)
    place = anatomy.tensors()[3]
    before = place.value().detach().clone()
    place.train()
    assert anatomy.trained() == {place.name: place.parameter}
    with torch.no_grad():
        place.parameter.add_(1.0)
    copied = copy.deepcopy((t.model, anatomy))
    copied[1].detach()
    assert place.parameter.requires_grad and not torch.equal(place.value(), before)
    assert torch.equal(outputs(copied[0], t.inputs), tiny("bert").outputs())
    anatomy.detach()
    assert not place.parameter.requires_grad and torch.equal(place.value(), before)
    sliced = anatomy_of(tiny("vit").model).blocks[0].attention.q
    with pytest.raises(ValueError, match="slice"):
        sliced.train()
