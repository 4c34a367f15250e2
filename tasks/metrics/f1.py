"""F1 of class 1: 2 TP / (2 TP + FP + FN), as GLUE reports it for MRPC and QQP.

Source: Wang et al., "GLUE", ICLR 2019, arXiv:1804.07461, table 1.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np


class F1(evaluate.Metric):
    """predictions, references: classes 0 and 1 (N,). Result: `f1` in 0..1, 0 where class 1 occurs in neither."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="Wang et al. 2019, arXiv:1804.07461",
            inputs_description=self.__class__.__doc__ or "",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        chosen, true = np.asarray(predictions) == 1, np.asarray(references) == 1
        positive = chosen.sum() + true.sum()
        return {"f1": float(2 * (chosen & true).sum() / positive) if positive else 0.0}
