"""Metric modules for the `evaluate` library, kept here so that no hub is asked.

Each file beside this one also loads by itself: `evaluate.load(str(metrics.path("accuracy")))`. The suite instantiates
the classes directly, because `evaluate.load` copies the code into a cache in the user's home before running it.
`evaluate` is imported at the first use (it imports transformers).
"""

from __future__ import annotations

import functools
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import evaluate

METRICS = {
    "accuracy": "Accuracy",
    "macro_f1": "MacroF1",
    "nll": "NegativeLogLikelihood",
    "ece": "ExpectedCalibrationError",
    "bits_per_byte": "BitsPerByte",
    "f1": "F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
}


def path(name: str) -> Path:
    """The file of a metric, for `evaluate.load`."""
    return Path(__file__).parent / f"{name}.py"


@functools.cache
def metric(name: str) -> evaluate.Metric:
    """The metric module `name`; a KeyError for a name that is not in `METRICS`."""
    class_name = METRICS[name]
    module = import_module(f".{name}", __package__)
    # Predictions stay in memory; `evaluate` makes an empty folder all the same, which is never used.
    with tempfile.TemporaryDirectory() as folder:
        built: evaluate.Metric = getattr(module, class_name)(keep_in_memory=True, cache_dir=folder)
    return built


def compute(name: str, predictions: np.ndarray, references: np.ndarray) -> float:
    """The value of one metric; what the two arrays mean is said in the metric's own file."""
    return float(metric(name).compute(predictions=predictions, references=references)[name])
