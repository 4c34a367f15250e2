"""Pearson correlation, as GLUE reports it for STS-B.

Source: Wang et al., "GLUE", ICLR 2019, arXiv:1804.07461, table 1.
"""

from __future__ import annotations

import datasets
import evaluate
from scipy.stats import pearsonr


class Pearson(evaluate.Metric):
    """predictions, references: numbers (N,). Result: `pearson` in -1..1, 0 where one of them is constant."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="Wang et al. 2019, arXiv:1804.07461",
            inputs_description=self.__class__.__doc__ or "",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        constant = len(set(predictions)) == 1 or len(set(references)) == 1
        return {"pearson": 0.0 if constant else float(pearsonr(predictions, references).statistic)}
