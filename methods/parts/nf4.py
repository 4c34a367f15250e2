"""NormalFloat: four-bit weights with double quantisation (Dettmers et al. 2023, arXiv 2305.14314, section 3).

A block of 64 weights is divided by its largest magnitude and each weight becomes the nearest of 16 levels, which are
the quantiles of a normal distribution (appendix E). The scales are quantised in turn: less their mean, in blocks of 256
with one fp32 scale each, to 8-bit floats. Storage: 4 + 8 / 64 + 32 / (64 * 256) = 4.127 bits a weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
BLOCK, SCALE_BLOCK = 64, 256


class NormalFloat(nn.Module):
    """A matrix in NF4, frozen. The codes lie two in a byte; 8-bit floats (e4m3) as bytes, which no cast touches."""

    codes: Tensor
    scales: Tensor
    scale_scales: Tensor
    mean: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = weight.shape
        blocks = _blocks(weight.detach().float().flatten(), BLOCK)
        largest = blocks.abs().amax(1)
        self._keep("mean", largest.mean())
        self._keep_scales(largest - self.mean)
        self._keep("codes", _packed(_nearest(blocks / self.block_scales().clamp_min(1e-30)[:, None])))

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)  # made again from the backbone's weights

    def _keep_scales(self, centred: Tensor) -> None:
        blocks = _blocks(centred, SCALE_BLOCK)
        unit = blocks.abs().amax(1).clamp_min(1e-30) / torch.finfo(torch.float8_e4m3fn).max
        self._keep("scale_scales", unit)
        self._keep("scales", (blocks / unit[:, None]).to(torch.float8_e4m3fn).view(torch.uint8))

    def block_scales(self) -> Tensor:
        """The restored scale of each block of weights, (blocks,)."""
        centred = self.scales.view(torch.float8_e4m3fn).to(self.mean.dtype) * self.scale_scales[:, None]
        return centred.flatten()[: -(-self.shape.numel() // BLOCK)] + self.mean

    def forward(self) -> Tensor:
        """The restored matrix."""
        levels = torch.tensor(LEVELS, dtype=self.mean.dtype, device=self.mean.device)
        codes = torch.stack([self.codes >> 4, self.codes & 15], -1).view(-1, BLOCK)
        restored = levels[codes.long()] * self.block_scales()[:, None]
        return restored.flatten()[: self.shape.numel()].view(self.shape)

    def bits(self) -> int:
        """Bits of storage."""
        return 8 * sum(tensor.numel() * tensor.element_size() for tensor in self.buffers())


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
