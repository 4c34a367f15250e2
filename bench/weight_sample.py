"""Which backbone an adapter file belongs to: a few numbers of every matrix, kept in the file's metadata.

Matrices are read through the anatomy, under the anatomy's names, so that it does not matter which class holds them,
what is put around it, or how they are fused. Numbers are compared and not hashed, since half precision rounds them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .anatomy import Anatomy

SAMPLES = 512  # numbers in all, and at least one of each matrix
ROUNDING = 2.0**-7  # relative: twice what bfloat16 moves a number
SMALLEST = 1e-7  # below it float16 keeps nothing


@dataclass(frozen=True)
class WeightSample:
    """The matrices of a backbone as they were before a method came."""

    model: str  # name of the class
    matrices: str  # 16 hex digits over the names and shapes
    sample: np.ndarray  # (numbers,), float32

    def to_json(self) -> str:
        """One line, the sample as base64 of little-endian float32."""
        sample = base64.b64encode(self.sample.astype("<f4").tobytes()).decode("ascii")
        return json.dumps({"model": self.model, "matrices": self.matrices, "sample": sample})

    @classmethod
    def from_json(cls, text: str) -> WeightSample:
        """Inverse of `to_json`; a ValueError for anything else."""
        try:
            content = json.loads(text)
            sample = np.frombuffer(base64.b64decode(content["sample"], validate=True), "<f4")
            return cls(str(content["model"]), str(content["matrices"]), sample)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no sample of a backbone: {error}") from None

    def difference(self, other: WeightSample) -> str | None:
        """What tells the other backbone from this one, or None where nothing does."""
        if self.matrices != other.matrices or len(self.sample) != len(other.sample):
            return f"a {other.model} with other matrices than this {self.model}"
        margin = ROUNDING * np.maximum(np.abs(self.sample), np.abs(other.sample)) + SMALLEST
        differ = int((~(np.abs(self.sample - other.sample) <= margin)).sum())
        return f"{differ} of {len(self.sample)} sampled weights differ" if differ else None


def sample_weights(anatomy: Anatomy) -> WeightSample | None:
    """Of a backbone that nothing is attached to; None on the meta device."""
    places = anatomy.linears("all")
    names = hashlib.sha256("".join(f"{name} {p.d_out} {p.d_in}\n" for name, p in places.items()).encode())
    each = max(1, SAMPLES // len(places))
    parts = [_spread(place.weight().detach(), each) for place in places.values()]
    if any(part.is_meta for part in parts):
        return None
    sample = torch.cat([part.float().cpu() for part in parts]).numpy()
    return WeightSample(type(anatomy.model).__name__, names.hexdigest()[:16], sample)


def _spread(weight: Tensor, count: int) -> Tensor:
    """`count` numbers of a matrix, spread over its rows and columns."""
    steps = torch.arange(count, device=weight.device)
    return weight[(2 * steps + 1) * weight.shape[0] // (2 * count), (steps + 1) * weight.shape[1] // (count + 1)]
