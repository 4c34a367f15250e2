"""How good generated drawings are: their distance from real ones, their fit to captions, their nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alignment:
    """Mean cosine of images with their own captions and with others', and how often an image is closer to its own."""

    own: float
    shuffled: float
    wins: float  # of all images; chance is 0.5
    wins_error: float  # standard error


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^0.5) of two sets of features (N, width) and (M, width).

    Heusel et al. 2017 (arXiv:1706.08500), equation 6. The last trace is the sum of the roots of the eigenvalues of
    S1 S2, which are no less than zero.
    """
    means, covariances = [], []
    for features in (one, other):
        means.append(features.astype(np.float64).mean(axis=0))
        covariances.append(np.cov(features.astype(np.float64), rowvar=False))
    roots = np.sqrt(np.clip(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0.0, None))
    apart = means[0] - means[1]
    return float(apart @ apart + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * roots.sum())


def alignment(images: np.ndarray, texts: np.ndarray, captions: list[str], rng: np.random.Generator) -> Alignment:
    """Each image against its caption's features and those of one other caption, both (N, width) of length one."""
    others = np.array([_another(i, captions, rng) for i in range(len(captions))])
    own, shuffled = (images * texts).sum(axis=1), (images * texts[others]).sum(axis=1)
    wins = (own > shuffled) + 0.5 * (own == shuffled)
    error = wins.std(ddof=1) / np.sqrt(len(wins))
    return Alignment(float(own.mean()), float(shuffled.mean()), float(wins.mean()), float(error))


def _another(i: int, captions: list[str], rng: np.random.Generator) -> int:
    """A place whose caption is another. ValueError where all are the same."""
    if len(set(captions)) < 2:
        raise ValueError("all captions are the same")
    while True:
        other = int(rng.integers(len(captions)))
        if captions[other] != captions[i]:
            return other


def nearest(features: np.ndarray, others: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, count) of the nearest of `others`, nearest first, and their cosines; features are of length one."""
    cosines = features @ others.T
    order = np.argsort(-cosines, axis=1)[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)
