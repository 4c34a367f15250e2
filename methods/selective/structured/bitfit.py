"""BitFit: only bias vectors train (Ben Zaken et al. 2021, arXiv 2106.10199).

Trainable parameters: the lengths of all biases, those of norms and of the patch embedding included; or, for the
paper's subset, d_out of the query and of the first feed-forward matrix of each block.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method, parameter_name


class BitFitConfig(GradientConfig):
    """Which biases train."""

    biases: Literal["all", "query+intermediate"] = Field("all", description="all, or the subset of section 4.2")


class BitFit(Method):
    """Trains biases in place; a query's rows of a fused bias are trained as a parameter that stands in for them."""

    Config = BitFitConfig
    starts_as_backbone = True
    config: BitFitConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("biases",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.rows = nn.ParameterDict()
        if self.config.biases == "all":
            places = anatomy.biases()
        else:
            chosen = anatomy.linears("q+up").values()
            places = [bias for place in chosen if (bias := place.bias()) is not None]
        for place in places:
            if place.rows is None:
                place.train()
            else:
                self.rows[parameter_name(place.name)] = place.train_rows()
