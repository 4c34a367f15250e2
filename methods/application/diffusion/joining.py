"""Concepts of Custom Diffusion that were trained apart, in one generator (Kumari et al. 2022, arXiv 2212.04488, section
3.3).

Each key or value matrix W becomes

    W^ = argmin_W || W C_reg^T - W_0 C_reg^T ||_F   such that   W C^T = V   (equation 4),

with C the text features of the concepts' words, V what each concept's own matrix makes of its words, C_reg features of
other texts, and W_0 the pretrained matrix. In closed form (equation 5)

    W^ = W_0 + v^T d,   d = C (C_reg^T C_reg)^-1,   v^T = (V - W_0 C^T) (d C^T)^-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Shipped = Mapping[str, Tensor]  # see `Method.shipped`
ROWS = "adapter.words.rows."


def join(
    trained: Sequence[Shipped], pretrained: Mapping[str, Tensor], words: Sequence[Tensor], other: Tensor
) -> dict[str, Tensor]:
    """The tensors of one `custom-diffusion(tokens=N)` with the concepts of N that were trained apart.

    pretrained: the matrices before training, by the names that the backbone gives them. words: for each concept its
    features (S, D), made with its own new word, of texts such as "<new1> dog" without what begins and ends a text.
    other: features (R, D) of texts that hold none of the concepts; they must span all D directions.
    Raises ValueError where the files hold other matrices, or where equation 5 has no solution.
    """
    names = {name.removeprefix("backbone.") for name in trained[0] if name.startswith("backbone.")}
    for shipped in trained:
        if {name.removeprefix("backbone.") for name in shipped if name.startswith("backbone.")} != names:
            raise ValueError("the adapters do not train the same matrices")
    joined = {
        f"backbone.{name}": joined_matrix(
            pretrained[name], [shipped[f"backbone.{name}"] for shipped in trained], words, other
        )
        for name in sorted(names)
    }
    rows = sorted(name for name in trained[0] if name.startswith(ROWS))
    return {**joined, **{name: torch.cat([shipped[name][:1] for shipped in trained]) for name in rows}}


@torch.no_grad()
def joined_matrix(pretrained: Tensor, trained: Sequence[Tensor], words: Sequence[Tensor], other: Tensor) -> Tensor:
    """W^ (d_out, D) of equation 5, in double precision inside; ValueError where there is none."""
    w0, c, regular = pretrained.double(), torch.cat(list(words)).double(), other.double()
    own = torch.cat([features.double() @ w.double().T for features, w in zip(words, trained, strict=True)])
    c, kept = _distinct(c)
    if (rank := int(torch.linalg.matrix_rank(regular))) < regular.shape[1]:
        raise ValueError(f"the other texts span {rank} of {regular.shape[1]} directions of the features")
    if int(torch.linalg.matrix_rank(c)) < len(c):
        raise ValueError("the words of the concepts depend on one another")
    d = torch.linalg.solve(regular.T @ regular, c.T).T
    v = torch.linalg.solve(d @ c.T, own[kept] - c @ w0.T)
    return (w0 + v.T @ d).to(pretrained.dtype)


def _distinct(features: Tensor) -> tuple[Tensor, list[int]]:
    """The features without repetitions, and where the first of each stands."""
    kept: list[int] = []
    for i in range(len(features)):
        if not any(torch.equal(features[i], features[k]) for k in kept):
            kept.append(i)
    return features[kept], kept
