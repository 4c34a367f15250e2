"""What each item contributes to a correlation."""

from __future__ import annotations

import numpy as np


def contributions(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 (N,): Pearson's correlation r of two columns plus each item's influence on it; their mean is r.

    With standardised columns u and v, the influence is u v - r (u^2 + v^2) / 2 (Devlin, Gnanadesikan and Kettenring,
    "Robust estimation and outlier detection with correlation coefficients", Biometrika 1975). Its spread over items
    gives the large-sample standard error of r, as the spread of hits and misses gives that of an accuracy. Zeros where
    a column is constant, since it then tells nothing of the other.
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (a, b)]
    deviations = [column.std() for column in columns]
    if not all(deviations):
        return np.zeros(len(columns[0]))
    u, v = ((column - column.mean()) / deviation for column, deviation in zip(columns, deviations, strict=True))
    r = float(np.clip((u * v).mean(), -1.0, 1.0))
    spread: np.ndarray = r + u * v - r * (u * u + v * v) / 2
    return spread
