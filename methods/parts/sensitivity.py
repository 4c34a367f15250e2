"""How much the loss depends on each weight, smoothed over steps (Zhang et al. 2023, arXiv 2303.10512, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SmoothedSensitivity:
    """|w g| as a moving average, and how far it strays from that average, both of one parameter."""

    def __init__(self, parameter: nn.Parameter, beta1: float, beta2: float) -> None:
        self.parameter, self.beta1, self.beta2 = parameter, beta1, beta2
        self.average = torch.zeros_like(parameter)
        self.uncertainty = torch.zeros_like(parameter)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weight and gradient (equations 8 to 10)."""
        gradient = self.parameter.grad
        if gradient is None:
            return
        sensitivity = (self.parameter * gradient).abs()
        self.average.lerp_(sensitivity, 1 - self.beta1)
        self.uncertainty.lerp_((sensitivity - self.average).abs(), 1 - self.beta2)

    def score(self) -> Tensor:
        """Importance of each weight, of the parameter's shape (equation 11)."""
        return self.average * self.uncertainty
