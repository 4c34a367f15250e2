"""Negative log-likelihood of the true class under the softmax of the logits: mean over items, in nats."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np


class NegativeLogLikelihood(evaluate.Metric):
    """predictions: logits (N, C); references: class indices (N,). Result: `nll` in nats, 0 is best."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=self.__class__.__doc__ or "",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        logits, true = np.asarray(predictions, dtype=np.float64), np.asarray(references)
        shifted = logits - logits.max(axis=1, keepdims=True)  # exp cannot overflow
        log_partition = np.log(np.exp(shifted).sum(axis=1))
        return {"nll": float(np.mean(log_partition - shifted[np.arange(len(true)), true]))}
