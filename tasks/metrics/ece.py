"""Expected calibration error of the most probable class, 15 bins of equal width.

ECE = sum over bins of (items in bin / N) * |accuracy of bin - mean confidence of bin|, with bins (b/15, (b+1)/15] over
the largest softmax probability. Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks",
ICML 2017, arXiv:1706.04599, equations 2 to 5; the 15 bins are those of its section 5.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

BINS = 15


class ExpectedCalibrationError(evaluate.Metric):
    """predictions: logits (N, C); references: class indices (N,). Result: `ece` in 0..1, 0 is best."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="Guo et al. 2017, arXiv:1706.04599",
            inputs_description=self.__class__.__doc__ or "",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        logits, true = np.asarray(predictions, dtype=np.float64), np.asarray(references)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        confidence = weights.max(axis=1) / weights.sum(axis=1)
        correct = logits.argmax(axis=1) == true
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
        return {"ece": float(np.abs(gaps).sum() / len(true))}
