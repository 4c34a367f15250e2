"""Macro F1: the mean over classes of 2 TP / (2 TP + FP + FN).

Classes are those that occur in predictions or references, as in scikit-learn's `f1_score(average="macro")`
(Opitz and Burst, "Macro F1 and Macro F1", 2019, arXiv:1911.03347, equation for the mean of F1 scores).
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np


class MacroF1(evaluate.Metric):
    """predictions, references: class indices (N,). Result: `macro_f1` in 0..1."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="Opitz and Burst 2019, arXiv:1911.03347",
            inputs_description=self.__class__.__doc__ or "",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        chosen, true = np.asarray(predictions), np.asarray(references)
        scores = []
        for label in np.union1d(chosen, true):
            hits = np.sum((chosen == label) & (true == label))
            scores.append(2 * hits / (np.sum(chosen == label) + np.sum(true == label)))
        return {"macro_f1": float(np.mean(scores))}
