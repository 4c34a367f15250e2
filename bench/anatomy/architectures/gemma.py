"""Gemma, Gemma 2 and the text stack of Gemma 3 in transformers: Llama's places, norms that multiply by 1 + weight.

Gemma 2 and 3 have a norm behind each sublayer too: what it returns is added to the residual stream, so the sublayer
ends there. A shift behind such a norm has no bias to go to in a merge. The embedding module multiplies its rows by
sqrt(width), and so the anatomy does with prompts and new rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..builder import Builder
from ..tower import Tower
from .block import Parts
from .llama import decoder, parts


def tower(builder: Builder, stack: Any) -> Tower:
    """The decoder stack."""
    found = decoder(builder, stack, _parts, offset=1.0)
    assert found.embedding is not None
    found.embedding.scale = stack.config.hidden_size**0.5
    return found


def _parts(builder: Builder, module: Any, config: Any) -> Parts:
    common = replace(parts(builder, module, config), norm_offset=1.0)
    if not hasattr(module, "pre_feedforward_layernorm"):
        return common
    return replace(
        common,
        norms=(module.input_layernorm, module.pre_feedforward_layernorm),
        ends=(module.post_attention_layernorm, module.post_feedforward_layernorm),
        end_norms=True,
    )
