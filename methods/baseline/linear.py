"""Linear probe: multinomial logistic regression on frozen features.

The features of all training items are computed once, standardised, and a logistic regression with an L2 penalty is
solved to convergence; the standardisation is then folded into the task's linear head. A head trained for a hundred
raw steps would stop far from this optimum, and would flatter every method that is compared with it.

Trainable parameters: none in the backbone; the head's own width * classes + classes.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import nn

from ...bench.anatomy import Anatomy
from ..contract import Method, MethodConfig

if TYPE_CHECKING:
    from ...bench.trainer import Fit


class LinearConfig(MethodConfig):
    """Strength of the penalty; there is no learning rate."""

    c: float = Field(gt=0, description="inverse strength of the L2 penalty")


class Linear(Method):
    """The fair lower bar of a comparison."""

    Config = LinearConfig
    starts_as_backbone = True
    config: LinearConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("head",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy

    def fit(self, fit: Fit) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        features, labels = fit.features()
        mean, deviation = features.mean(0), features.std(0) + 1e-6
        model = LogisticRegression(C=self.config.c, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            model.fit((features - mean) / deviation, labels)
        if not isinstance(fit.head, nn.Linear):
            raise TypeError(f"a linear probe needs a linear head, not {type(fit.head).__name__}")
        coefficients, intercept = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
            coefficients = (coefficients / 2).repeat(2, axis=0) * [[-1.0], [1.0]]
            intercept = (intercept / 2).repeat(2) * [-1.0, 1.0]
        weight = coefficients / deviation
        with torch.no_grad():
            fit.head.weight.zero_()
            fit.head.bias.fill_(-1e4)  # classes without a training item
            fit.head.weight[model.classes_] = torch.as_tensor(weight, dtype=fit.head.weight.dtype)
            fit.head.bias[model.classes_] = torch.as_tensor(intercept - weight @ mean, dtype=fit.head.bias.dtype)
