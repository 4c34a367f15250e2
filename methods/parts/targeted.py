"""The base of methods that put one module of their own at each chosen matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..contract import Method, TargetedConfig, parameter_name

if TYPE_CHECKING:
    from ...bench.anatomy import Anatomy
    from ...bench.anatomy.linear import LinearPlace


class TargetedMethod(Method):
    """One module in `factors` for each matrix that `targets` names; a subclass makes it and puts it there, in `put`."""

    config: TargetedConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.factors = nn.ModuleDict()
        for name, place in self.sized(anatomy.linears(self.config.targets).items()):
            self.check(name, place)
            self.factors[parameter_name(name)] = self.put(place)

    def check(self, name: str, place: LinearPlace) -> None:
        """Raise a ValueError that names the matrix where the sizes in the config do not suit it."""

    def put(self, place: LinearPlace) -> nn.Module:
        """Change one matrix, and return the module with its parameters."""
        raise NotImplementedError
