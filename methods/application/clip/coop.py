"""CoOp: the words around a class's name are trained vectors (Zhou et al. 2021, arXiv 2109.01134, section 3.2).

t_c = [V]_1 ... [V]_M [class c]. The vectors are shared by all classes (unified) or belong to one class each
(class-specific), and stand before the name or on both sides of it; the text ends with a full stop, as in the authors'
code. Both towers are frozen. The task's own templates are not used.

Trainable parameters: context * width of the text tower's embeddings, times the number of classes if class-specific.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from ....bench.anatomy import Anatomy
from ...contract import Method, MethodConfig
from ...parts.context import Context, ContextConfig


class CoOpConfig(ContextConfig):
    """The context, whose it is and where it stands."""

    class_specific: bool = Field(False, description="vectors of its own for each class, known once a task is")
    class_name: Literal["end", "middle"] = Field("end", description="where the name stands among the vectors")


class CoOp(Method):
    """One context in the texts of all classes."""

    Config: ClassVar[type[MethodConfig]] = CoOpConfig
    config: CoOpConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("pair", "embedding")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        assert anatomy.pair is not None
        classes = len(anatomy.pair.names) if self.config.class_specific else 0
        if self.config.class_specific and not classes:
            raise ValueError("class_specific: the classes are not known before there is a task")
        self.context = Context(anatomy, self.config, classes, self.config.class_name == "middle")
