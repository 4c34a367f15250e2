"""Architectures that see images and clips: each place is on the rows and at the point that its name says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import anatomy_of
from peft_atlas.bench.anatomy.builder import Builder
from peft_atlas.bench.anatomy.edits import Edits
from peft_atlas.bench.anatomy.multihead import projections
from peft_atlas.bench.errors import UsageError
from torch import Tensor, nn

from .test_anatomy import DOUBLE, through
from .test_architectures import Seen, SeenCore, block_input, zeros
from .tiny import LENGTH, VOCABULARY, WIDTH, redraw, tiny

NAMES = ("hf-vit", "videomae", "timesformer", "open-clip", "unet")


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_every_matrix_of_a_block_has_one_name(name: str) -> None:
    for block in anatomy_of(tiny(name).model).blocks:
        found: dict[nn.Parameter, list[int]] = {}
        for _, place in block.linears():
            rows = torch.arange(place.parameter.shape[0])
            found.setdefault(place.parameter, []).extend((rows if place.rows is None else rows[place.rows]).tolist())
        matrices = [p for key, p in block.module.named_parameters() if p.dim() == 2 and "temporal_dense" not in key]
        assert {parameter: sorted(rows) for parameter, rows in found.items()} == {
            matrix: list(range(len(matrix))) for matrix in matrices
        }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["q", "k", "v"])
def test_silencing_rows_silences_what_they_are_named_after(name: str, target: str) -> None:
    t = tiny(name, dtype=DOUBLE)
    for attention in anatomy_of(t.model).blocks[-1].attentions:
        assert attention.core is not None
        seen = SeenCore()
        attention.core.around(seen)
        t.outputs()
        before = seen.values
        place = attention.linears[target]
        handle = place.affine(scale=torch.zeros(place.d_out, dtype=DOUBLE))
        t.outputs()
        handle.remove()
        for key, value in seen.values.items():
            assert value.shape[1] == attention.heads and value.shape[3] == attention.head_dim
            assert value.any() == (key != target)
            assert key == target or torch.equal(value, before[key])


def test_the_gate_of_a_unet_is_what_is_activated() -> None:
    """Twice the values of `up` are twice the input of `down`; twice those of `gate` are not."""
    t = tiny("unet", dtype=DOUBLE)
    feedforward = anatomy_of(t.model).blocks[-1].feedforward
    seen: list[Tensor] = []
    feedforward.down.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    t.outputs()
    for place in (feedforward.up, feedforward.gate):
        assert place is not None
        handle = place.affine(scale=torch.full((place.d_out,), 2.0, dtype=DOUBLE))
        t.outputs()
        handle.remove()
    plain, doubled, bent = seen
    assert torch.allclose(doubled, 2 * plain)
    assert not torch.allclose(bent, 2 * plain)


def passing(name: str) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """What enters the last block, the stream and the output of each of its sublayers, and what leaves the block."""
    t = tiny(name, dtype=DOUBLE)
    block = anatomy_of(t.model).blocks[-1]
    x, leaving = block_input(t, block), Seen()
    streams, outputs = ([Seen() for _ in block.sublayers] for _ in range(2))
    for sublayer, stream, output in zip(block.sublayers, streams, outputs, strict=True):
        sublayer.beside(lambda h, stream=stream: zeros(stream(h)), source="residual")
        sublayer.after(output)
    block.tap(leaving)
    t.outputs()
    return x, [seen.values[0] for seen in streams], [seen.values[0] for seen in outputs], leaving.values[0]


@pytest.mark.parametrize("name", ["hf-vit", "videomae", "open-clip", "unet"])
def test_sublayers_read_the_residual_stream_and_add_to_it(name: str) -> None:
    h, streams, outputs, leaving = passing(name)
    for stream, output in zip(streams, outputs, strict=True):
        assert torch.allclose(stream, h)
        h = h + output
    assert torch.allclose(leaving, h)


def test_timesformer_attends_over_time_and_then_over_space() -> None:
    x, (space, time, last), (from_space, from_time, from_last), leaving = passing("timesformer")
    batch, frames, patches = 2, 3, 4
    assert torch.allclose(time, x[:, 1:])
    h = (time + from_time).view(batch, patches, frames, WIDTH).transpose(1, 2).flatten(0, 1)
    assert torch.allclose(space[:, 1:], h)
    assert torch.allclose(space[:, 0], x[:, 0].repeat_interleave(frames, 0))
    token = x[:, :1] + from_space[:, 0].view(batch, frames, WIDTH).mean(1, keepdim=True)
    h = (h + from_space[:, 1:]).view(batch, frames, patches, WIDTH).transpose(1, 2).flatten(1, 2)
    assert torch.allclose(last, torch.cat([token, h], 1))
    assert torch.allclose(leaving, last + from_last)


def test_an_adapter_before_the_attention_reaches_queries_keys_and_values() -> None:
    t = tiny("open-clip", dtype=DOUBLE)
    attention = anatomy_of(t.model).blocks[0].attention
    seen = SeenCore()
    assert attention.core is not None
    attention.core.around(seen)
    attention.sublayer.before(zeros)
    t.outputs()
    for name, value in seen.values.items():
        bias = attention.linears[name].bias()
        assert bias is not None
        heads = bias.value().view(1, attention.heads, 1, attention.head_dim)
        assert torch.allclose(value, heads.expand_as(value))


HIDDEN = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "bool": {"attn_mask": HIDDEN},
    "float": {"attn_mask": torch.zeros(5, 5).masked_fill(HIDDEN, -torch.inf)},
    "heads": {"attn_mask": torch.zeros(8, 5, 5).masked_fill(HIDDEN, -2.0)},
    "padding": {"key_padding_mask": PADDING},
    "both": {"attn_mask": HIDDEN, "key_padding_mask": PADDING},
    "causal": {"attn_mask": HIDDEN, "is_causal": True},
}


@pytest.mark.parametrize("form", MASKS)
def test_multihead_attention_is_torch_s(form: str) -> None:
    module = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
    redraw(module)
    x = torch.randn(2, 5, WIDTH, requires_grad=True)  # hence without torch's fast path
    expected = module(x, x, x, need_weights=False, **MASKS[form])[0]
    for place in projections(Builder(module, Edits()), module):
        place.affine(torch.ones(place.d_out))
    assert torch.equal(module(x, x, x, need_weights=False, **MASKS[form])[0], expected)
    with pytest.raises(NotImplementedError, match="no weights"):
        module(x, x, x)


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_places_of_one_attention_leave_in_any_order(order: tuple[int, ...]) -> None:
    t = tiny("open-clip")
    before = t.outputs()
    q, o, core = (anatomy_of(t.model).blocks[0].attention for _ in range(3))
    assert core.core is not None
    doubled = torch.full((WIDTH,), 2.0)
    handles = [q.q.affine(doubled), o.o.affine(doubled), core.core.around(through)]
    for i in order:
        assert "forward" in q.q.module.__dict__
        handles[i].remove()
    assert "forward" not in q.q.module.__dict__
    assert torch.equal(t.outputs(), before)


def custom_clip(folder: Path, foreign: bool) -> nn.Module:
    """A CLIP whose towers are modules of their own: open_clip's, or timm's and transformers'."""
    import transformers as hf
    from open_clip.model import CustomTextCLIP

    common = {"width": WIDTH, "layers": 1}
    vision: dict[str, Any] = {**common, "image_size": 28, "patch_size": 14, "head_width": 16}
    text: dict[str, Any] = {**common, "context_length": LENGTH, "vocab_size": VOCABULARY, "heads": 2}
    if foreign:
        hf.BertConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        ).save_pretrained(folder)
        vision = {"timm_model_name": "test_vit", "image_size": 160}
        text = {"hf_model_name": str(folder), "hf_model_pretrained": False, "hf_proj_type": "linear"}
    return CustomTextCLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)


@pytest.mark.parametrize("foreign", [True, False])
def test_towers_of_a_clip_may_come_from_other_libraries(tmp_path: Path, foreign: bool) -> None:
    model = custom_clip(tmp_path, foreign)
    redraw(model)
    model.eval()
    side = 160 if foreign else 28
    inputs = (torch.randn(2, 3, side, side), torch.randint(5, VOCABULARY, (2, LENGTH)))
    anatomy = anatomy_of(model)
    assert anatomy.towers.keys() == {"vision", "text"}
    assert {place.name for place in anatomy.tensors()} == dict(model.named_parameters()).keys()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    before = torch.cat(model(*inputs)[:2])
    for place in anatomy.linears("all").values():
        place.affine(1 + 0.1 * torch.randn(place.d_out), 0.1 * torch.randn(place.d_out))
    unmerged = torch.cat(model(*inputs)[:2])
    assert all((unmerged - before).norm(dim=1) > 1e-3)
    anatomy.merge()
    assert torch.allclose(torch.cat(model(*inputs)[:2]), unmerged, atol=1e-4)
    anatomy.detach()
    assert torch.equal(torch.cat(model(*inputs)[:2]), before)


def test_a_masked_condition_passes_through_our_core() -> None:
    t = tiny("unet")
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[1, 4:] = False
    inputs = {**t.inputs, "encoder_attention_mask": mask}
    before = t.model(**inputs).sample
    for block in anatomy_of(t.model).blocks:
        for attention in block.attentions:
            assert attention.core is not None and attention.is_cross == attention.name.endswith("cross")
            attention.core.around(through)
    assert torch.equal(t.model(**inputs).sample, before)
    assert not torch.equal(t.model(**t.inputs).sample, before)


def test_another_attention_processor_has_no_core() -> None:
    from diffusers.models.attention_processor import AttnProcessor

    model: Any = tiny("unet").model
    model.set_attn_processor(AttnProcessor())
    assert "core cannot be wrapped" in str(anatomy_of(model).missing(("core",)))


def test_blocks_that_compute_something_else_are_refused() -> None:
    from diffusers import Transformer2DModel
    from open_clip.model import CLIP

    stack = Transformer2DModel(2, 8, in_channels=8, norm_num_groups=4, norm_type="ada_norm", num_embeds_ada_norm=10)
    vision = {"width": WIDTH, "layers": 1, "image_size": 28, "patch_size": 14, "head_width": 16, "qk_norm": True}
    text = {"width": WIDTH, "layers": 1, "heads": 2, "vocab_size": VOCABULARY}
    clip = CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    for model, message in ((stack, "modulated norms"), (clip, "CustomResidualAttentionBlock")):
        with pytest.raises(UsageError, match=message):
            anatomy_of(model)
