"""Clips in the anatomy: where each frame's patches are, and a block's attention on another sequence."""

from __future__ import annotations

from typing import Any

import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench.anatomy import anatomy_of
from peft_atlas.bench.anatomy.frames import FrameAverage, FrameLayout
from peft_atlas.bench.anatomy.reuse import added_by
from peft_atlas.bench.errors import UnsupportedError, UsageError
from torch import Tensor, nn

from .test_architectures import Seen, block_input, zeros
from .tiny import LACKS, NAMES, SEE_CLIPS, WIDTH, Tiny, tiny

DOUBLE = torch.float64
GRID = 2  # rows and columns of patches of 14 pixels
REUSED = ("vit", "vit-layerscale", "clip-vision", "hf-vit", "videomae", "timesformer", "vit-frames", "open-clip")


def layout_of(t: Tiny) -> FrameLayout:
    layout = anatomy_of(t.model).towers["vision"].frames
    assert layout is not None
    return layout


def entering(t: Tiny) -> Tensor:
    """What enters the first block."""
    return block_input(t, anatomy_of(t.model).blocks[0])


@pytest.mark.parametrize("name", SEE_CLIPS)
def test_a_patch_of_a_frame_is_where_the_layout_says(name: str) -> None:
    """Another picture in one patch of one frame changes one token of those that enter the first block."""
    t = tiny(name, dtype=DOUBLE)
    layout = layout_of(t)
    (key,) = t.inputs
    pixels: Tensor = t.inputs[key]
    together = pixels.shape[1] // layout.frames  # frames that one token covers (VideoMAE's tubes)
    before = layout.split(entering(t))
    special = before.shape[2] - GRID * GRID
    assert before.shape == (2, layout.frames, special + GRID * GRID, WIDTH)
    for frame, row, column in [(0, 0, 1), (1, 1, 0), (layout.frames - 1, 1, 1)]:
        changed = pixels.clone()
        rows, columns = slice(14 * row, 14 * row + 14), slice(14 * column, 14 * column + 14)
        changed[1, frame * together, :, rows, columns] += 1.0
        after = layout.split(entering(Tiny(name, t.model, {key: changed})))
        moved = (after - before).abs().sum(-1).nonzero().tolist()
        assert moved == [[1, frame, special + row * GRID + column]]


@pytest.mark.parametrize("name", SEE_CLIPS)
def test_frames_are_joined_as_they_were_split(name: str) -> None:
    x = entering(tiny(name, dtype=DOUBLE))
    layout = layout_of(tiny(name))
    assert torch.allclose(layout.join(layout.split(x), like=x), x, rtol=1e-15)
    assert torch.equal(layout.join(torch.zeros_like(layout.split(x)), like=x), torch.zeros_like(x))


def test_special_tokens_of_a_sequence_go_to_each_frame_and_come_back_as_their_mean() -> None:
    layout = FrameLayout(frames=3, rows=1, columns=2, order="patches-first")
    x = torch.arange(1.0, 8.0).view(1, 7, 1)  # one special token, then the frames of each patch
    frames = layout.split(x)
    assert frames[0, :, :, 0].tolist() == [[1, 2, 5], [1, 3, 6], [1, 4, 7]]
    frames = frames.clone()
    frames[0, :, 0, 0] = torch.tensor([1.0, 2.0, 6.0])
    assert layout.join(frames, like=x).flatten().tolist() == [3, 2, 3, 4, 5, 6, 7]
    alone = torch.randn(6, 3, 1)  # each frame as an item, which a sublayer of the tower may see
    assert torch.equal(layout.split(alone), alone.view(2, 3, 3, 1))
    assert torch.equal(layout.join(layout.split(alone), like=alone), alone)


def test_a_timesformer_that_knows_no_time_has_its_frames_in_the_batch() -> None:
    import transformers as hf

    config = hf.TimesformerConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=28,
        patch_size=14, num_frames=3, attention_type="space_only",
    )  # fmt: skip
    t = Tiny("timesformer", hf.TimesformerModel(config).eval(), {"pixel_values": torch.randn(2, 3, 3, 28, 28)})
    assert layout_of(t).order == "items"
    assert layout_of(t).split(entering(t)).shape == (2, 3, 1 + GRID * GRID, WIDTH)


def test_features_of_frames_are_averaged() -> None:
    t = tiny("vit-frames", dtype=DOUBLE)
    model: Any = t.model
    clips = t.inputs["clips"]
    alone = torch.stack([model.encoder(clips[:, i]) for i in range(3)])
    assert torch.allclose(model(clips), alone.mean(0))
    with pytest.raises(ValueError, match="clips of 2 frames, where 3 were announced"):
        model(clips[:, :2])


def test_a_model_of_one_s_own_sees_clips_within_a_frame_average() -> None:
    encoder: Any = tiny("vit").model
    with pytest.raises(UnsupportedError, match="an image encoder within FrameAverage does"):
        pa.attach(encoder, "st-adapter(bottleneck=4)")
    clips, model = torch.randn(2, 5, 3, 28, 28), pa.FrameAverage(encoder, frames=5)
    before = model(clips)
    handle = pa.attach(model, "st-adapter(bottleneck=4)")
    assert handle.trainable == 2 * (2 * WIDTH * 4 + 4 * 5 + WIDTH)
    model(clips).sum().backward()
    assert handle.method.adapters["vision_blocks_0_attention"].conv.weight.grad.any()
    handle.detach()
    assert torch.equal(model(clips), before)


def test_an_encoder_without_a_grid_of_patches_sees_no_frames() -> None:
    for encoder, message in ((nn.Linear(3, 3), "no known stack"), (tiny("bert").model, "no grid of patches")):
        with pytest.raises(UsageError, match=message):
            anatomy_of(FrameAverage(encoder, 3))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SEE_CLIPS])
def test_models_without_clips_say_so(name: str) -> None:
    assert "frames" in LACKS[name]
    assert "sees no clips" in str(anatomy_of(tiny(name).model).missing(("frames",)))


class Doubled:
    """A change of a matrix's output."""

    def __call__(self, y: Tensor) -> Tensor:
        return 2 * y


@pytest.mark.parametrize("name", REUSED)
def test_attention_on_another_sequence_is_the_block_s_own(name: str) -> None:
    """On the sequence that the block sees, it adds what the block's sublayer adds; edits of matrices act on both, what
    is put around the sublayer only on the latter."""
    t = tiny(name, dtype=DOUBLE)
    attention = anatomy_of(t.model).towers["vision"].blocks[-1].attention
    stream, added = Seen(), Seen()
    attention.sublayer.beside(lambda h: zeros(stream(h)), source="residual")
    attention.sublayer.after(added)
    t.outputs()
    before = added_by(attention, stream.values[0])
    assert torch.allclose(before, added.values[0])
    attention.v.affine(scale=torch.full((attention.v.d_out,), 2.0, dtype=DOUBLE))
    attention.sublayer.after(Doubled())
    t.outputs()
    after = added_by(attention, stream.values[0])
    assert torch.allclose(after, added.values[1])
    assert not torch.allclose(after, before)
    longer = torch.cat([stream.values[0]] * 2, dim=1)  # each token twice: the same attention
    twice = torch.cat([after, after], dim=1)
    assert torch.allclose(added_by(attention, longer), twice)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_attention_behind_its_norm_or_with_a_mask_is_not_reused(name: str) -> None:
    attention = anatomy_of(tiny(name).model).blocks[0].attention
    with pytest.raises(ValueError, match="cannot be used for another sequence"):
        added_by(attention, torch.randn(2, 3, WIDTH))
