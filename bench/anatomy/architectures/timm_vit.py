"""timm's VisionTransformer: pre-norm blocks, one fused q-k-v matrix, optional layer scale."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..attention import Context, Core, ForwardWithCore
from ..builder import Builder
from ..linear import LinearPlace
from ..tokens import Tokens, Widening, same_output
from ..tower import Block, Tower


def _attention_forward(
    core: Core, module: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """timm's `Attention` on the same parameters, with our core between the projections."""
    batch, length, _ = x.shape
    gate = None if getattr(module, "gate", None) is None else module.gate(x).sigmoid()
    qkv = module.qkv(x).reshape(batch, length, 3, module.num_heads, module.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    dropout = module.attn_drop.p if module.training else 0.0
    context = Context(mask=attn_mask, causal=is_causal, scale=module.scale, dropout=dropout)
    y = core(module.q_norm(q), module.k_norm(k), v, context).transpose(1, 2).reshape(batch, length, -1)
    y = module.norm(y)
    return module.proj_drop(module.proj(y if gate is None else y * gate))


def _core(module: Any) -> Core | None:
    from timm.layers.attention import Attention

    return ForwardWithCore(_attention_forward).core(module) if type(module) is Attention else None


def _widen(args: tuple[Any, ...], kwargs: dict[str, Any], n: int, at: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > 1 or any(value is not None and value is not False for value in kwargs.values()):
        raise NotImplementedError("extra tokens in a masked timm block")
    return args, kwargs


def tower(builder: Builder, stack: Any) -> Tower:
    """The one tower of a ViT."""
    width = stack.embed_dim
    blocks = [_block(builder, i, module, width) for i, module in enumerate(stack.blocks)]
    final = stack.norm if type(stack.norm).__name__ != "Identity" else getattr(stack, "fc_norm", None)
    has_final = final is not None and type(final).__name__ != "Identity"
    grid = getattr(stack.patch_embed, "grid_size", None)
    before = [] if type(stack.norm_pre).__name__ == "Identity" else [builder.op(stack.norm_pre, width)]
    return Tower(
        edits=builder.edits,
        name="vision",
        module=stack,
        width=width,
        blocks=blocks,
        tokens=Tokens(builder.edits, list(stack.blocks), width, stack.num_prefix_tokens, Widening(_widen, same_output)),
        output=builder.op(final, width) if has_final else None,
        patch_embedding=builder.op(stack.patch_embed, width, carrier=stack.patch_embed.proj),
        other_ops=before,
        grid=None if grid is None else (1, int(grid[0]), int(grid[1])),
        special=stack.num_prefix_tokens,
        exit=stack.norm,
    )


def _block(builder: Builder, index: int, module: Any, width: int) -> Block:
    name = f"vision.blocks.{index}"
    attention, mlp = module.attn, module.mlp
    q, k, v = builder.thirds(attention.qkv)
    gate, up = _gate_and_up(builder, mlp)
    return Block(
        edits=builder.edits,
        name=name,
        index=index,
        module=module,
        width=width,
        attentions=[
            builder.attention(
                f"{name}.attention",
                (q, k, v, builder.linear(attention.proj)),
                _core(attention),
                sublayer=builder.sublayer(f"{name}.attention", width, attention, module.ls1, module.norm1),
                heads=attention.num_heads,
                kv_heads=attention.num_heads,
                head_dim=attention.head_dim,
            )
        ],
        feedforward=builder.feedforward(
            f"{name}.feedforward",
            up,
            builder.linear(mlp.fc2),
            builder.sublayer(f"{name}.feedforward", width, mlp, module.ls2, module.norm2),
            gate,
        ),
        norms=[
            builder.op(module.norm1, width, followers=(q, k, v)),
            builder.op(module.norm2, width, followers=(up,) if gate is None else (gate, up)),
        ],
        scales=[builder.op(scale, width) for scale in (module.ls1, module.ls2) if hasattr(scale, "gamma")],
    )


def _gate_and_up(builder: Builder, mlp: Any) -> tuple[LinearPlace | None, LinearPlace]:
    """The matrices before the activation: two in timm's SwiGLU, halves of one in its GluMlp (DINOv2's giant)."""
    if hasattr(mlp, "fc1_g"):
        return builder.linear(mlp.fc1_g), builder.linear(mlp.fc1_x)
    if hasattr(mlp, "gate_last"):
        first, second = builder.halves(mlp.fc1)
        return (second, first) if mlp.gate_last else (first, second)
    return None, builder.linear(mlp.fc1)
