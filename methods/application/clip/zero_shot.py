"""Zero-shot: CLIP as it is, which knows the classes by their names alone (Radford et al. 2021, arXiv 2103.00020).

logits = scale * normalised(image) . normalised(text of the class). With several `templates`, a class's feature is the
mean of its normalised features under each (section 3.1.4, prompt ensembling).

Trainable parameters: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ....bench.anatomy import Anatomy
from ...contract import Method, MethodConfig

if TYPE_CHECKING:
    from ....bench.trainer import Fit

TEMPLATES = (  # whatever the task; its own template speaks of what its pictures are
    "a picture of a {}.",
    "a drawing of a {}.",
    "a small {}.",
    "a large {}.",
    "a {} on a plain background.",
    "a bad picture of a {}.",
    "{}",
)


class ZeroShotConfig(MethodConfig):
    """What texts stand for a class."""

    templates: int = Field(
        ge=0, le=len(TEMPLATES), description="how many templates for any picture are averaged; 0 for the task's own"
    )


class ZeroShot(Method):
    """The bar that every method with training data has to clear."""

    Config = ZeroShotConfig
    config: ZeroShotConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("pair",)

    @classmethod
    def closed_form(cls, config: Any, anatomy: Anatomy) -> int:
        return 0

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        if self.config.templates:
            assert anatomy.pair is not None
            anatomy.pair.ensemble(TEMPLATES[: self.config.templates])

    def fit(self, fit: Fit) -> None:
        """Nothing is trained."""
