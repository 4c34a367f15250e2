"""A matrix stored in four bits: NormalFloat with double quantisation, see `kernels/nf4`."""

from __future__ import annotations

from torch import Tensor, nn

from ...kernels.nf4.apply import nf4_dequantise
from ...kernels.nf4.reference import quantise


class NormalFloat(nn.Module):
    """A matrix in NF4, frozen."""

    codes: Tensor
    scales: Tensor
    scale_scales: Tensor
    mean: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        for name, tensor in zip(("codes", "scales", "scale_scales", "mean"), quantise(weight), strict=True):
            self.register_buffer(name, tensor, persistent=False)  # made again from the backbone's weights

    def forward(self) -> Tensor:
        """The restored matrix."""
        return nf4_dequantise(self.codes, self.scales, self.scale_scales, self.mean, (self.rows, self.columns))

    def bits(self) -> int:
        """Bits of storage."""
        return 8 * sum(tensor.numel() * tensor.element_size() for tensor in self.buffers())
