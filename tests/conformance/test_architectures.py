"""Architectures beside those of the batteries: each place is on the rows and at the point that its name says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Anatomy, anatomy_of
from peft_atlas.bench.anatomy.attention import Context
from peft_atlas.bench.anatomy.tower import Block
from torch import Tensor, nn

from .tiny import BLOCKS, LENGTH, VOCABULARY, WIDTH, Tiny, redraw

TEXT = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 4}
GATED = {**TEXT, "num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 16}


def gpt_neox(parallel: bool) -> nn.Module:
    import transformers as hf

    return hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(**TEXT, intermediate_size=64, use_parallel_residual=parallel, hidden_dropout=0.0)
    )


def phi3() -> nn.Module:
    import transformers as hf

    config = {key: value for key, value in GATED.items() if key != "head_dim"}
    return hf.Phi3ForCausalLM(hf.Phi3Config(**config, pad_token_id=0, bos_token_id=1, eos_token_id=2))


def qwen3() -> nn.Module:
    import transformers as hf

    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**GATED))


def gemma() -> nn.Module:
    import transformers as hf

    return hf.GemmaForCausalLM(hf.GemmaConfig(**GATED))


def gemma3() -> nn.Module:
    import transformers as hf

    types = ["sliding_attention", "full_attention"]
    return hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**GATED, sliding_window=4, query_pre_attn_scalar=16, layer_types=types)
    )


def mt5() -> nn.Module:
    import transformers as hf

    sizes = {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 16, "d_ff": 48, "num_layers": BLOCKS, "num_heads": 2}
    return hf.MT5ForConditionalGeneration(hf.MT5Config(**sizes, dropout_rate=0.0, feed_forward_proj="gated-gelu"))


def opt_350m() -> nn.Module:
    """Post-norm blocks, and an embedding narrower than the blocks."""
    import transformers as hf

    config = hf.OPTConfig(
        **TEXT, ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False, max_position_embeddings=64, dropout=0.0
    )
    return hf.OPTForCausalLM(config)


def gated_vit(gate_last: bool) -> nn.Module:
    from functools import partial

    from timm.layers import GluMlp
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=28, patch_size=14, embed_dim=WIDTH, depth=BLOCKS, num_heads=2, num_classes=0, init_values=0.1,
        mlp_layer=partial(GluMlp, gate_last=gate_last), act_layer=nn.SiLU,
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt-neox": lambda: gpt_neox(parallel=True),
    "gpt-neox-sequential": lambda: gpt_neox(parallel=False),
    "phi3": phi3,
    "qwen3": qwen3,
    "gemma": gemma,
    "gemma3": gemma3,
    "mt5": mt5,
    "opt-350m": opt_350m,
    "dinov2-giant": lambda: gated_vit(gate_last=False),
    "gate-last": lambda: gated_vit(gate_last=True),
}
HAS_GATE = [name for name in MODELS if "gpt" not in name and "opt" not in name]
IN_SINGLE_PRECISION = ("gemma", "gemma3")  # their norms


def case(name: str) -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]().double()
        redraw(model)
        if isinstance(model, nn.Module) and not hasattr(model, "config"):
            inputs: dict[str, Any] = {"x": torch.randn(2, 3, 28, 28, dtype=torch.float64)}
        else:
            ids = torch.randint(5, VOCABULARY - 2, (2, LENGTH))
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
            if name == "mt5":
                inputs["decoder_input_ids"] = ids[:, :4].clone()
    return Tiny(name, model.eval().requires_grad_(False), inputs)


class Seen:
    """Keeps what passes, and passes it on."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.values.append(x.clone())
        return x


class SeenCore:
    """Keeps the queries, keys and values of the last pass."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def __call__(self, next: Any, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        self.values = {"q": q.clone(), "k": k.clone(), "v": v.clone()}
        return next(q, k, v, context)


def zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def block_input(t: Tiny, block: Block) -> Tensor:
    """The hidden states that enter a block."""
    seen = Seen()
    handle = block.around(lambda next, x: next(seen(x)))
    t.outputs()
    handle.remove()
    return seen.values[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_row_of_every_matrix_of_a_block_has_one_name(name: str) -> None:
    for block in anatomy_of(case(name).model).blocks:
        found: dict[nn.Module, list[int]] = {}
        for _, place in block.linears():
            rows = torch.arange(place.parameter.shape[0])
            found.setdefault(place.module, []).extend((rows if place.rows is None else rows[place.rows]).tolist())
        linears = [module for module in block.module.modules() if isinstance(module, nn.Linear)]
        assert {module: sorted(rows) for module, rows in found.items()} == {
            module: list(range(module.out_features)) for module in linears
        }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["q", "k", "v"])
def test_silencing_rows_silences_what_they_are_named_after(name: str, target: str) -> None:
    t = case(name)
    attention = anatomy_of(t.model).blocks[0].attention
    assert attention.core is not None
    seen = SeenCore()
    attention.core.around(seen)
    t.outputs()
    before = seen.values
    place = attention.linears[target]
    place.affine(scale=torch.zeros(place.d_out, dtype=torch.float64))
    t.outputs()
    for key, value in seen.values.items():
        assert value.shape[1] == (attention.heads if key == "q" else attention.kv_heads)
        assert value.shape[3] == attention.head_dim
        assert value.any() == (key != target)
        assert key == target or torch.equal(value, before[key])


@pytest.mark.parametrize("name", HAS_GATE)
def test_the_gate_is_what_is_activated(name: str) -> None:
    """Twice the values of `up` are twice the input of `down`; twice those of `gate` are not."""
    t = case(name)
    feedforward = anatomy_of(t.model).blocks[0].feedforward
    seen: list[Tensor] = []
    feedforward.down.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    t.outputs()
    for place in (feedforward.up, feedforward.gate):
        assert place is not None
        handle = place.affine(scale=torch.full((place.d_out,), 2.0, dtype=torch.float64))
        t.outputs()
        handle.remove()
    plain, doubled, bent = seen
    assert torch.allclose(doubled, 2 * plain)
    assert not torch.allclose(bent, 2 * plain)


@pytest.mark.parametrize("name", MODELS)
def test_sublayers_read_the_residual_stream_and_add_to_it(name: str) -> None:
    t = case(name)
    block = anatomy_of(t.model).blocks[0]
    x = block_input(t, block)
    streams, outputs = (Seen(), Seen()), (Seen(), Seen())
    parts = (block.attention.sublayer, block.feedforward.sublayer)
    for sublayer, stream, output in zip(parts, streams, outputs, strict=True):
        sublayer.beside(lambda h, stream=stream: zeros(stream(h)), source="residual")
        sublayer.after(output)
    leaving = Seen()
    block.tap(leaving)
    t.outputs()
    between = streams[1].values[0]
    assert torch.equal(streams[0].values[0], x)
    if name == "gpt-neox":
        assert torch.equal(between, x)
        expected = x + outputs[0].values[0] + outputs[1].values[0]
    else:
        norms = [norm.module for norm in block.norms] if name == "opt-350m" else [nn.Identity(), nn.Identity()]
        assert torch.allclose(between, norms[0](x + outputs[0].values[0]))
        expected = norms[1](between + outputs[1].values[0])
    assert torch.allclose(leaving.values[0], expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_sublayer_sees_sequences(name: str) -> None:
    t = case(name)
    block = anatomy_of(t.model).blocks[0]
    shape, seen = block_input(t, block).shape, Seen()
    for sublayer in block.sublayers:
        sublayer.before(seen)
        sublayer.after(seen)
        sublayer.beside(seen)
    t.outputs()
    assert [value.shape for value in seen.values] == [shape] * 6


def disturb(anatomy: Anatomy) -> None:
    """Scales and shifts on all matrices and, as far as a merge can take them, on all norms."""
    for place in anatomy.linears("all").values():
        place.affine(1 + 0.1 * torch.randn(place.d_out).double(), 0.1 * torch.randn(place.d_out).double())
    for block in anatomy.blocks:
        for norm in block.norms:
            takes_shift = bool(norm.followers) or "bias" in norm.tensors
            shift = 0.1 * torch.randn(norm.width).double() if takes_shift else None
            norm.affine(1 + 0.1 * torch.randn(norm.width).double(), shift)


@pytest.mark.parametrize("name", MODELS)
def test_what_was_changed_merges_and_goes(name: str) -> None:
    t = case(name)
    before = t.outputs()
    anatomy = anatomy_of(t.model)
    torch.manual_seed(1)
    disturb(anatomy)
    unmerged = t.outputs()
    assert not torch.allclose(unmerged, before, rtol=1e-3)
    anatomy.merge()
    tolerance = 1e-6 if name in IN_SINGLE_PRECISION else 1e-12
    assert float((t.outputs() - unmerged).norm() / unmerged.norm()) < tolerance
    anatomy.detach()
    assert torch.equal(t.outputs(), before)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("dinov2-giant", "gate-last", "mt5")])
def test_a_prompt_stands_before_the_text(name: str) -> None:
    t = case(name)
    tower = anatomy_of(t.model).towers["text"]
    assert tower.embedding is not None
    prompt = torch.randn(3, tower.embedding.width, dtype=torch.float64)
    words = t.model.get_input_embeddings()(t.inputs["input_ids"])  # type: ignore[operator]
    scale = tower.width**0.5 if name.startswith("gemma") else 1.0
    embeds = torch.cat([(prompt * scale).expand(2, -1, -1), words], 1)
    by_hand = t.model(inputs_embeds=embeds, use_cache=False).logits[:, 3:]
    tower.prompt(prompt, 3)
    assert torch.allclose(t.model(**t.inputs).logits, by_hand)
