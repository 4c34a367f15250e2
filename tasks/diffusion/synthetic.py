"""The smoke task of generators: a disc of one colour. Says whether a method runs; its scores mean nothing."""

from __future__ import annotations

import numpy as np

from .customisation import Customisation, Subject

SIDE = 16
CENTRES = ((5, 5), (10, 6), (8, 10))


class SmokeSubject(Customisation):
    """Three views of an orange disc, on grounds of grey."""

    def read_subjects(self) -> list[Subject]:
        rows, columns = np.indices((SIDE, SIDE))
        views = np.empty((len(CENTRES), SIDE, SIDE, 3), dtype=np.uint8)
        for number, (row, column) in enumerate(CENTRES):
            views[number] = 96 + 32 * number
            views[number][(rows - row) ** 2 + (columns - column) ** 2 <= 16] = (240, 140, 20)
        return [Subject("disc", "a <new1> disc", views)]

    def read_prompts(self) -> list[str]:
        return ["a <new1> disc on a red background", "a small <new1> disc"]
