"""NormalFloat in plain torch: four-bit weights with double quantisation (Dettmers et al. 2023, arXiv 2305.14314).

Section 3: a block of 64 weights is divided by its largest magnitude and each weight becomes the nearest of 16 levels,
which are the quantiles of a normal distribution (appendix E). The scales are quantised in turn: less their mean, in
blocks of 256 with one fp32 scale each, to 8-bit floats. Storage: 4 + 8 / 64 + 32 / (64 * 256) = 4.127 bits a weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
BLOCK, SCALE_BLOCK = 64, 256


def quantise(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(codes, scales, scale_scales, mean) of a matrix.

    codes: bytes, two weights in each, the first one high. scales (n, 256): 8-bit floats (e4m3) as bytes, which no cast
    touches. scale_scales (n,) and mean () are fp32.
    """
    blocks = _blocks(weight.detach().float().flatten(), BLOCK)
    largest = blocks.abs().amax(1)
    mean = largest.mean()
    centred = _blocks(largest - mean, SCALE_BLOCK)
    unit = centred.abs().amax(1).clamp_min(1e-30) / torch.finfo(torch.float8_e4m3fn).max
    scales = (centred / unit[:, None]).to(torch.float8_e4m3fn).view(torch.uint8)
    restored = block_scales(scales, unit, mean)[: len(blocks), None]
    return _packed(_nearest(blocks / restored.clamp_min(1e-30))), scales, unit, mean


def block_scales(scales: Tensor, scale_scales: Tensor, mean: Tensor) -> Tensor:
    """The restored scale of each block of weights, (n * 256,), in the dtype of the mean."""
    centred = scales.view(torch.float8_e4m3fn).to(mean.dtype) * scale_scales[:, None]
    return centred.flatten() + mean


def dequantise(codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor, rows: int, columns: int) -> Tensor:
    """The restored matrix (rows, columns), in the dtype of the mean."""
    levels = torch.tensor(LEVELS, dtype=mean.dtype, device=mean.device)
    pairs = torch.stack([codes >> 4, codes & 15], -1).view(-1, BLOCK)
    restored = levels[pairs.long()] * block_scales(scales, scale_scales, mean)[: len(pairs), None]
    return restored.flatten()[: rows * columns].view(rows, columns)


def _blocks(values: Tensor, size: int) -> Tensor:
    """(n,) -> (blocks, size), filled up with zeros."""
    return F.pad(values, (0, -len(values) % size)).view(-1, size)


def _nearest(scaled: Tensor) -> Tensor:
    """Indices of the nearest levels."""
    levels = torch.tensor(LEVELS, device=scaled.device)
    return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)


def _packed(codes: Tensor) -> Tensor:
    pairs = codes.view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1]
