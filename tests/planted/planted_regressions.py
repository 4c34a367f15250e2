"""The smoke cells with a regression planted into the code that runs them, as a bad commit would bring it."""

from __future__ import annotations

from typing import Any

import numpy as np
from peft_atlas.bench.anatomy import Anatomy
from peft_atlas.bench.attempt import Attempt
from peft_atlas.bench.cell import run_cell
from peft_atlas.bench.registry import registry


def clean(attempt: Attempt) -> None:
    run_cell(attempt)


def halved_scale(attempt: Attempt) -> None:
    """LoRA's product counts half."""
    from peft_atlas.methods.reparameterized.low_rank.lora import LowRank

    original = LowRank.__init__

    def halved(self: Any, like: Any, r: int, scale: float, *rest: Any) -> None:
        original(self, like, r, scale / 2, *rest)

    LowRank.__init__ = halved  # type: ignore[method-assign]
    run_cell(attempt)


def leaked_norm(attempt: Attempt) -> None:
    """LoRA leaves the norms of the blocks trainable."""
    method = registry("methods").load("lora")
    original = method.attach

    def leaking(self: Any, anatomy: Anatomy) -> None:
        original(self, anatomy)
        for tower in anatomy.towers.values():
            for norm in tower.norms:
                for place in norm.tensors.values():
                    place.train()

    method.attach = leaking
    run_cell(attempt)


def permute_labels() -> None:
    """Labels of two of the 64 training items of smoke-vision (3%) change places."""
    task = registry("tasks").load("smoke-vision")
    original = task.build

    def permuted(self: Any, split: Any) -> Any:
        found = original(self, split)
        if split == "train":
            found.labels[[10, 11]] = found.labels[[11, 10]]
        return found

    task.build = permuted


def permuted_labels(attempt: Attempt) -> None:
    permute_labels()
    run_cell(attempt)


def permuted_test_labels(attempt: Attempt) -> None:
    """The same on the test split of smoke-text, where only predictions can tell."""
    task = registry("tasks").load("smoke-text")
    original = task.build

    def permuted(self: Any, split: Any) -> Any:
        found = original(self, split)
        if split == "test":
            found.labels[[4, 5]] = found.labels[[5, 4]]
        return found

    task.build = permuted
    run_cell(attempt)


def evaluated_twice(attempt: Attempt) -> None:
    """Where bitfit is asked for, lora is evaluated again."""
    if attempt.cell.method.id == "bitfit":
        run_cell(attempt)
        parameters, curve = attempt.parameters, attempt.curve
        cell = attempt.cell
        attempt.cell = cell.model_copy(update={"method": lora_of(cell)})
        run_cell(attempt)
        attempt.cell, attempt.parameters, attempt.curve = cell, parameters, curve
    else:
        run_cell(attempt)


def lora_of(cell: Any) -> Any:
    """LoRA as the smoke protocol would configure it on the cell's task."""
    from peft_atlas.bench.names import Name
    from peft_atlas.bench.plan import design

    (found,) = design("smoke", [Name("lora")], [cell.task.id], [cell.seed]).cells
    return found.method


def shifted_evaluation(attempt: Attempt) -> None:
    """Predictions of lora are spoilt after training: every logit of class 0 is one lower."""
    task = registry("tasks").load("smoke-text")
    original = task.predict

    def shifted(self: Any, outputs: Any, batch: Any) -> Any:
        return {"logits": original(self, outputs, batch)["logits"] - np.array([[1, 0]], dtype=np.float32)}

    if attempt.cell.method.id == "lora":
        task.predict = shifted
    run_cell(attempt)


def other_loss(attempt: Attempt) -> None:
    """Every classification trains on halved logits."""
    from peft_atlas.tasks.classification import Classification

    original = Classification.loss
    Classification.loss = lambda self, outputs, batch: original(self, 0.5 * outputs, batch)  # type: ignore[method-assign]
    run_cell(attempt)
