"""Matthews correlation of two binary variables, as GLUE reports it for CoLA: their Pearson correlation.

Sources: Matthews, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme", 1975;
Wang et al., "GLUE", ICLR 2019, arXiv:1804.07461, table 1.
"""

from __future__ import annotations

import datasets
import evaluate
from sklearn.metrics import matthews_corrcoef


class Matthews(evaluate.Metric):
    """predictions, references: classes 0 and 1 (N,). Result: `matthews` in -1..1, 0 where one of them is constant."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="Matthews 1975; Wang et al. 2019, arXiv:1804.07461",
            inputs_description=self.__class__.__doc__ or "",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"matthews": float(matthews_corrcoef(references, predictions))}
