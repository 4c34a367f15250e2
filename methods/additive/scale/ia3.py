"""(IA)^3: learned vectors rescale keys, values and feed-forward activations (Liu et al. 2022, arXiv 2205.05638).

Section 3.3: softmax(q (l_k * k)^T / sqrt(d)) (l_v * v) and (l_ff * s(W_up x)) W_down. So a projection of an attention
is scaled at its output and a matrix of a feed-forward at its input, which for `down` is l_ff. The vectors start at one.
All of it merges: rows of the projections (with their bias), columns of the feed-forward's matrices.

Trainable parameters: d_out for each chosen attention matrix, d_in for each chosen feed-forward matrix.
"""

from __future__ import annotations

import torch
from torch import nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.anatomy import FEEDFORWARD
from ...contract import TargetedConfig, parameter_name
from ...parts.targeted import TargetedMethod


class IA3(TargetedMethod):
    """One vector of scales for each chosen matrix."""

    Config = TargetedConfig
    starts_as_backbone = True
    config: TargetedConfig

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.scales = nn.ParameterDict()
        for name, place in anatomy.linears(self.config.targets).items():
            at_input = name.rpartition(".")[2] in FEEDFORWARD
            device = place.weight().device
            scale = nn.Parameter(torch.ones(place.d_in if at_input else place.d_out, device=device))
            self.scales[parameter_name(name)] = scale
            if at_input:
                place.scale_in(scale)
            else:
                place.affine(scale)
