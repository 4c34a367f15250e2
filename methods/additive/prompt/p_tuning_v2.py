"""P-tuning v2: a prefix in every layer, trained directly (Liu et al. 2022, arXiv 2110.07602, section 3.2).

The mechanism of `prefix` without the network that makes the prefix, which the paper finds to help on some tasks only;
`projection` brings it back. Predictions come from a classification head and not from a verbaliser, as for every method
of this suite.

Trainable parameters: tokens * the sum of 2 * kv_heads * head_dim over all attentions; with `projection` see `prefix`.
"""

from __future__ import annotations

from .prefix import Prefix


class PTuningV2(Prefix):
    """One table of keys and values for all attentions."""
