"""Our `evaluate` modules against scikit-learn, torch, definitions worked by hand, and themselves loaded from disk."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft_atlas.tasks import metrics
from sklearn.metrics import f1_score
from torch.nn import functional


@st.composite
def scored_items(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Random logits (N, C) and labels (N,)."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, classes = draw(st.integers(1, 60)), draw(st.integers(2, 9))
    scale = draw(st.sampled_from([0.1, 3.0, 300.0]))
    return generator.normal(scale=scale, size=(items, classes)), generator.integers(0, classes, size=items)


def slow_ece(logits: np.ndarray, labels: np.ndarray) -> float:
    """The definition of Guo et al., bin by bin."""
    probabilities = torch.tensor(logits).softmax(1).numpy()
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


@settings(max_examples=40, deadline=None)
@given(scored_items())
def test_classification_metrics_agree_with_other_libraries(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = case
    chosen = logits.argmax(1)
    assert metrics.compute("accuracy", chosen, labels) == pytest.approx((chosen == labels).mean())
    assert metrics.compute("macro_f1", chosen, labels) == pytest.approx(f1_score(labels, chosen, average="macro"))
    expected = functional.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item()
    assert metrics.compute("nll", logits, labels) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert metrics.compute("ece", logits, labels) == pytest.approx(slow_ece(logits, labels), abs=1e-6)


def binary_logits(confidence: float, items: int) -> np.ndarray:
    """Class 0 with probability `confidence`."""
    return np.tile([np.log(confidence / (1 - confidence)), 0.0], (items, 1))


def test_ece_is_zero_when_confidence_is_the_share_of_hits() -> None:
    logits = np.concatenate([binary_logits(0.75, 8), binary_logits(0.9, 10)])
    labels = np.array([0] * 6 + [1] * 2 + [0] * 9 + [1])
    assert metrics.compute("ece", logits, labels) == pytest.approx(0.0, abs=1e-12)
    assert metrics.compute("ece", logits, 1 - labels) == pytest.approx((8 * 0.5 + 10 * 0.8) / 18)


def test_uniform_logits_cost_the_log_of_the_number_of_classes() -> None:
    assert metrics.compute("nll", np.zeros((4, 5)), np.arange(4)) == pytest.approx(np.log(5))


def test_bits_per_byte_weighs_texts_by_their_bytes() -> None:
    nats = np.array([8 * np.log(2), 0.0])  # eight bits for one byte, none for three
    assert metrics.compute("bits_per_byte", nats, np.array([1, 3])) == pytest.approx(2.0)


def test_unknown_metric() -> None:
    with pytest.raises(KeyError, match="accuraci"):
        metrics.metric("accuraci")


def test_modules_load_from_their_files_without_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import evaluate

    def refuse(*_: object) -> None:
        raise AssertionError("a metric asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
    logits, labels = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), np.array([0, 1, 1])
    inputs = {"nll": logits, "ece": logits, "bits_per_byte": labels + 0.5}
    for name in metrics.METRICS:
        predictions, references = inputs.get(name, logits.argmax(1)), labels + (name == "bits_per_byte")
        module = evaluate.load(str(metrics.path(name)), keep_in_memory=True)
        loaded = module.compute(predictions=predictions, references=references)
        assert loaded == {name: metrics.compute(name, predictions, references)}
