"""Bits per byte: the code length of a corpus under a language model, per UTF-8 byte of its text.

Sum of nats / ln 2 / sum of bytes, so long texts count for more, and models with different tokenizers compare.
Source: Gao et al., "The Pile", 2020, arXiv:2101.00027, section 3.1.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np


class BitsPerByte(evaluate.Metric):
    """predictions: nats of each text (N,); references: its UTF-8 bytes (N,). Result: `bits_per_byte`, 0 is best."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="Gao et al. 2020, arXiv:2101.00027",
            inputs_description=self.__class__.__doc__ or "",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        return {"bits_per_byte": float(np.sum(predictions) / np.log(2.0) / np.sum(references))}
