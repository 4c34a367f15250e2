"""Methods for video against what their papers say, written out on a timm ViT's own modules, in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from peft_atlas.bench.anatomy import anatomy_of
from peft_atlas.bench.anatomy.frames import FrameAverage
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.params import count
from peft_atlas.bench.recipes import configure, resolve
from peft_atlas.bench.registry import registry
from peft_atlas.methods.contract import Method
from torch import Tensor, nn

from .tiny import SEE_CLIPS, WIDTH, tiny

DOUBLE = torch.float64
FRAMES, PATCHES = 3, 4


def attached(method_id: str, model: nn.Module, **arguments: Any) -> Any:
    """The method on a model, in its precision, moved away from its start."""
    kind: type[Method] = registry("methods").load(method_id)
    torch.manual_seed(3)
    method = kind(configure(method_id, resolve(method_id, arguments, "video", "tiny", "tiny")))
    method.attach(anatomy_of(model))
    method.to(next(model.parameters()).dtype)
    if not next(model.parameters()).is_meta:
        with torch.no_grad():
            for _, parameter in method.adapter_parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def tokens_of(vit: Any, clips: Tensor) -> Tensor:
    """What enters the first block: (B, T, 1 + patches, width)."""
    x = vit.patch_embed(clips.flatten(0, 1))
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], dim=1) + vit.pos_embed
    return x.unflatten(0, (-1, FRAMES))


def read_out(vit: Any, x: Tensor) -> Tensor:
    """Features of the frames, averaged."""
    patches = x[:, :, 1:].mean(2)
    return vit.fc_norm(patches).mean(1)


def mlp(vit: Any, index: int, x: Tensor) -> Tensor:
    block = vit.blocks[index]
    return block.mlp(block.norm2(x))


def attend(vit: Any, index: int, x: Tensor) -> Tensor:
    """Attention over the last but one dimension of (B, N, L, width)."""
    block = vit.blocks[index]
    return block.attn(block.norm1(x.flatten(0, 1))).unflatten(0, x.shape[:2])


@torch.no_grad()
def test_aim_is_its_three_equations() -> None:
    t = tiny("vit-frames", dtype=DOUBLE)
    vit: Any = t.model.encoder
    method = attached("aim", t.model, bottleneck=8, scale=0.7)
    adapted = t.outputs()
    adapters, positions = method.adapters, method.positions["vision"]
    assert method.anatomy is not None
    method.anatomy.detach()
    before = t.outputs()

    def adapter(index: int, kind: str, y: Tensor) -> Tensor:
        bottleneck = adapters[f"vision_blocks_{index}_{kind}"]
        return bottleneck.up(F.gelu(bottleneck.down(y)))

    z = tokens_of(vit, t.inputs["clips"]) + positions[None, :, None]
    for index in range(2):
        over_time = attend(vit, index, z.transpose(1, 2)).transpose(1, 2)
        z = z + adapter(index, "temporal", over_time)
        over_space = attend(vit, index, z)
        z = z + over_space + adapter(index, "spatial", over_space)
        joint = adapter(index, "joint", vit.blocks[index].norm2(z))
        z = z + mlp(vit, index, z) + 0.7 * joint
    assert torch.allclose(adapted, read_out(vit, z).flatten(), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(adapted, before)


@torch.no_grad()
def test_a_second_temporal_adapter_of_aim_comes_behind_the_norm() -> None:
    t = tiny("vit-frames", dtype=DOUBLE)
    vit: Any = t.model.encoder
    method = attached("aim", t.model, bottleneck=8, before_attention=True)
    with torch.no_grad():
        for name, adapter in method.adapters.items():
            if not name.endswith(("before", "temporal")):
                adapter.up.weight.zero_(), adapter.up.bias.zero_()
        method.positions["vision"].zero_()
    adapted = t.outputs()
    method.anatomy.detach()
    z = tokens_of(vit, t.inputs["clips"])
    for index, block in enumerate(vit.blocks):
        first, second = (method.adapters[f"vision_blocks_{index}_{kind}"] for kind in ("before", "temporal"))
        x = block.norm1(z).transpose(1, 2)
        x = x + first.up(F.gelu(first.down(x)))
        y = block.attn(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        z = z + second.up(F.gelu(second.down(y))).transpose(1, 2)
        z = z + attend(vit, index, z)
        z = z + mlp(vit, index, z)
    assert torch.allclose(adapted, read_out(vit, z).flatten(), rtol=1e-10, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("before", ["attention", "feedforward", "both"])
def test_st_adapter_mixes_each_channel_over_neighbouring_frames(before: str) -> None:
    t = tiny("vit-frames", dtype=DOUBLE)
    vit: Any = t.model.encoder
    method = attached("st-adapter", t.model, bottleneck=8, before=before)
    adapted = t.outputs()
    method.anatomy.detach()

    def adapter(index: int, sublayer: str, z: Tensor) -> Tensor:
        """The class token as it is, patches by a sum over three frames for each channel."""
        own = method.adapters[f"vision_blocks_{index}_{sublayer}"]
        hidden = F.pad(own.down(z[:, :, 1:]), (0, 0, 0, 0, 1, 1))
        taps = own.conv.weight.view(8, 3)
        mixed = sum(taps[:, i] * hidden[:, i : i + FRAMES] for i in range(3)) + own.conv.bias
        return torch.cat([z[:, :, :1], z[:, :, 1:] + own.up(mixed)], dim=2)

    z = tokens_of(vit, t.inputs["clips"])
    for index in range(2):
        z = adapter(index, "attention", z) if before != "feedforward" else z
        z = z + attend(vit, index, z)
        z = adapter(index, "feedforward", z) if before != "attention" else z
        z = z + mlp(vit, index, z)
    assert torch.allclose(adapted, read_out(vit, z).flatten(), rtol=1e-10, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("name", SEE_CLIPS)
def test_a_kernel_with_its_centre_alone_is_a_plain_adapter(name: str) -> None:
    t = tiny(name, dtype=DOUBLE)
    method = attached("st-adapter", t.model, bottleneck=8, kernel="3x3x3")
    layout = method.anatomy.towers["vision"].frames
    adapter = method.adapters["vision_blocks_0_attention"]
    adapter.conv.weight.zero_(), adapter.conv.bias.zero_()
    adapter.conv.weight[:, :, 1, 1, 1] = 1.0
    x = torch.randn(2 * FRAMES, 1 + layout.patches, WIDTH, dtype=DOUBLE)
    if layout.order != "items":
        x = x.view(2, -1, WIDTH)[:, : 1 + layout.frames * layout.patches]
    plain = adapter.up(adapter.down(x))
    plain[:, : 1 if layout.order == "items" else x.shape[1] - layout.frames * layout.patches] = 0
    assert torch.allclose(adapter(x), plain)


@torch.no_grad()
@pytest.mark.parametrize("method_id", ["st-adapter", "aim"])
def test_the_order_of_frames_is_seen(method_id: str) -> None:
    """The backbone averages over frames and cannot see it."""
    t = tiny("vit-frames", dtype=DOUBLE)
    backwards = {"clips": t.inputs["clips"].flip(1)}
    assert torch.allclose(t.model(**t.inputs), t.model(**backwards))
    attached(method_id, t.model, bottleneck=8)
    assert not torch.allclose(t.model(**t.inputs), t.model(**backwards), rtol=1e-3)


# ViT-B/16 as the authors take it. ST-Adapter: shapes of their code; AIM: their table has 11M, with 400 classes.
@pytest.mark.parametrize(
    ("method_id", "arguments", "trainable"),
    [
        ("st-adapter", {"before": "feedforward"}, 7_110_144),
        ("st-adapter", {"before": "both"}, 14_220_288),
        ("aim", {}, 10_657_536),
    ],
)
def test_published_counts(method_id: str, arguments: dict[str, Any], trainable: int) -> None:
    with torch.device("meta"):
        model = FrameAverage(timm.create_model("vit_base_patch16_224", num_classes=0), frames=8)
    method = attached(method_id, model, **arguments)
    found = sum(parameter.numel() for _, parameter in method.adapter_parameters())
    assert found == trainable
    if method_id == "aim":
        assert round((found + 400 * 768 + 400) / 1e6) == 11
    elif arguments["before"] == "feedforward":
        assert round(found / sum(p.numel() for p in model.parameters()), 2) == 0.08  # the abstract's 8%


@pytest.mark.parametrize("method_id", ["st-adapter", "aim"])
def test_a_budget_sets_the_width(method_id: str) -> None:
    wanted = 0.005 * registry("backbones").card("dinov2-small-video").parameters
    assert abs(count(f"{method_id}(budget=0.5%)", "dinov2-small-video").adapter / wanted - 1) < 0.02


@pytest.mark.parametrize("kernel", ["3x2x1", "3x1", "0x1x1", "3x1x1x1"])
def test_kernels_without_a_centre_are_refused(kernel: str) -> None:
    with pytest.raises(UsageError, match="kernel"):
        configure("st-adapter", resolve("st-adapter", {"kernel": kernel}, "video", "tiny", "tiny"))
