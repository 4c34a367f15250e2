"""Spearman correlation: Pearson's of the ranks, ties at their mean rank; GLUE reports it for STS-B beside Pearson's.

Source: Wang et al., "GLUE", ICLR 2019, arXiv:1804.07461, table 1.
"""

from __future__ import annotations

import datasets
import evaluate
from scipy.stats import spearmanr


class Spearman(evaluate.Metric):
    """predictions, references: numbers (N,). Result: `spearman` in -1..1, 0 where one of them is constant."""

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
        return {"spearman": 0.0 if constant else float(spearmanr(predictions, references).statistic)}
