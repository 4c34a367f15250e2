"""Few-shot tasks on sets of pictures: told apart as trained, on classes left out, on other sets, and shifted."""

from __future__ import annotations

import numpy as np

from ...bench.errors import UsageError
from ..contract import Split, SplitName
from ..vision.drawing import generator
from .open_vocabulary import BaseToNew, OpenVocabulary
from .picture_sets import picture_set

SEED = 1101


class FewShot(OpenVocabulary):
    """So many training pictures of each class; the test pictures are all of the set's.

    The card's options: `pictures`, a set of `picture_sets`; `shots`; `test`, the set of the test pictures where it is
    another one with the same classes (a shift). Fewer shots are part of more. Raises UsageError for a split without
    shots, and where a class has fewer pictures.
    """

    def make(self, split: SplitName) -> Split:
        """Items are named as in their set."""
        options = self.card.options
        if split == "train":
            return self.shots_of(picture_set(options["pictures"], "train"))
        return picture_set(options.get("test", options["pictures"]), "test")

    def shots_of(self, pictures: Split) -> Split:
        """Rounds of one picture of each class that trains, each round shuffled: any prefix is nearly balanced."""
        shots, labels = int(self.card.options["shots"]), np.asarray(pictures.labels)
        if shots < 1:
            raise UsageError(f"{self.card.id}: a split without shots has nothing to train on")
        trained = np.flatnonzero(self.groups == 0)
        members = {label: np.flatnonzero(labels == label) for label in trained.tolist()}
        for label, found in members.items():
            if len(found) < shots:
                name = self.card.classes[label]
                raise UsageError(
                    f"{self.card.id}: {len(found)} pictures of {name!r} to train on, {shots} shots asked for"
                )
        rounds = (generator(SEED, "train", number).permutation(trained) for number in range(shots))
        index = [members[label][number] for number, order in enumerate(rounds) for label in order.tolist()]
        return pictures.take(np.array(index))


class FewShotBaseToNew(BaseToNew, FewShot):
    """Shots of the base classes, test pictures of all."""

    def make(self, split: SplitName) -> Split:
        """With the column "group", 0 where an item's class is base."""
        return with_groups(super().make(split), self.groups)


class Transfer(FewShot):
    """Trained on the classes of one set, tested on those of another, which stand behind them in the card.

    The card's option `source` says how many classes the first set has.
    """

    @property
    def groups(self) -> np.ndarray:
        """0 for the classes of the first set, 1 for those of the second."""
        return (np.arange(len(self.card.classes)) >= int(self.card.options["source"])).astype(np.int64)

    def make(self, split: SplitName) -> Split:
        """With the column "group", 0 in train and 1 in test."""
        made = super().make(split)
        if split == "test":
            first = int(self.card.options["source"])
            made = Split(made.inputs, np.asarray(made.labels) + first, made.items)
        return with_groups(made, self.groups)


def with_groups(split: Split, groups: np.ndarray) -> Split:
    """The split with the column "group", that of each item's class."""
    return Split({**split.inputs, "group": groups[split.labels]}, split.labels, split.items)
