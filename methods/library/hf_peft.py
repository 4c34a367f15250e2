"""Any type of HF PEFT as a method: `peft.lora(r=4)` is `peft.get_peft_model(backbone, peft.LoraConfig(r=4, ...))`.

HF PEFT (Mangrulkar et al. 2022, https://github.com/huggingface/peft) draws, computes, counts, ships and merges; this
file says where. `targets` (`q+v`; `norms`) becomes `target_modules`, as the names of whole modules: a matrix that holds
query, key and value in one (GPT-2, timm) is adapted as one by any of the three. `target_modules` itself is taken as
well: names joined by `+`, a regular expression, or `all-linear`.

HF PEFT puts its layers in the place of the backbone's own modules. While it is attached, the modules it adapts are
called `<name>.base_layer`, all other names stay; after `detach` the very modules are back. Types that act in the
forward of `PeftModel` (prompts, routing, losses of their own) are unsupported, since the harness calls the backbone.

Trainable parameters: what `PeftModel.get_nb_trainable_parameters` counts.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable
from functools import cache, partial, reduce
from operator import or_
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, create_model, field_validator, model_validator
from torch import Tensor, nn

from ...bench.anatomy import Anatomy, Handle, Unmergeable, target_names
from ...bench.errors import UsageError
from ..contract import GradientConfig, Method, MethodConfig, parameter_name

INSTALL = 'pip install "peft-atlas[peft]"'
# Prompts (of tokens, keys or hidden states), losses and schedules, task ids, routing, a second model: none of these is
# reached by a call of the backbone.
IN_THEIR_FORWARD = {
    *("ADALORA", "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING"),
    *("PROMPT_TUNING", "P_TUNING", "SHADOW", "XLORA"),
}
NORMS = "norms"


def __getattr__(name: str) -> Any:
    """The method class of a type, by HF PEFT's own name of it (`LORA`): what the cards' `target` asks for."""
    if not name.isupper():
        raise AttributeError(name)
    return _method_class(name)


class LibraryConfig(GradientConfig):
    """Arguments of one type; a subclass has the fields of HF PEFT's configuration class."""

    library: ClassVar[Any]  # that class

    targets: str = Field(description="matrices, see the anatomy's queries, or norms; where target_modules is not given")

    @field_validator("targets")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != NORMS:
            target_names(value)
        return value

    @model_validator(mode="after")
    def _accepted(self) -> LibraryConfig:
        self.for_library()
        return self

    def for_library(self) -> Any:
        """HF PEFT's configuration. ValueError, in one line, where it refuses the values."""
        given = {}
        for name in _expressible(self.library):
            value, info = getattr(self, name), type(self).model_fields[name]
            if value != info.default:
                given[name] = _as_list(value) if _takes_list(self.library, name) else value
        try:
            return self.library(**given)
        except (ValueError, TypeError, ImportError) as error:
            raise ValueError(str(error).strip().splitlines()[0]) from None


class HFPeft(Method):
    """One type of HF PEFT on the modules that hold the targets."""

    Config: ClassVar[type[MethodConfig]] = LibraryConfig
    type_name: ClassVar[str]
    config: LibraryConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        if cls.type_name in IN_THEIR_FORWARD:
            return ("hf-peft-forward",)
        return ("norms",) if config.targets == NORMS else ("attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        import peft

        model = anatomy.model
        if hasattr(model, "peft_config"):
            raise ValueError("the model carries adapters of HF PEFT already")
        self.anatomy = anatomy
        places = {id(place.parameter): place for place in anatomy.tensors()}
        library_config = self._placed(anatomy)
        record = _Record(model, anatomy.edits.keeps_originals)
        is_meta = any(parameter.is_meta for parameter in model.parameters())
        anatomy.edits.add(Handle(record.undo))
        try:
            wrapped = peft.get_peft_model(model, library_config, low_cpu_mem_usage=is_meta)
        finally:
            record.finish()
        self.__dict__["wrapped"] = wrapped  # no submodule: it holds the whole backbone
        self.adapter = nn.ParameterDict()
        for name, parameter in wrapped.base_model.model.named_parameters():
            if parameter.requires_grad and id(parameter) in places:
                places[id(parameter)].train()
            elif parameter.requires_grad and id(parameter) not in record.flags:
                self.adapter[parameter_name(name)] = parameter
        site = _Site(wrapped.base_model)
        for layer in site.layers():  # new modules are in training mode, whatever the model is in
            layer.train(model.training)
        anatomy.edits.can_merge(site)

    def _placed(self, anatomy: Anatomy) -> Any:
        """HF PEFT's configuration with its modules named."""
        config = self.config.for_library()
        known = {field.name for field in dataclasses.fields(config)}
        if "target_modules" not in known or config.target_modules is not None:
            return config
        if self.config.targets == NORMS:
            config.target_modules = _named(anatomy, (n for tower in anatomy.towers.values() for n in tower.norms))
            return config
        chosen = anatomy.linears(self.config.targets)
        config.target_modules = _named(anatomy, chosen.values())
        if "feedforward_modules" in known and config.feedforward_modules is None:
            inside = [place for name, place in chosen.items() if ".feedforward." in name]
            config.feedforward_modules = _named(anatomy, inside)
        if "fan_in_fan_out" in known:
            config.fan_in_fan_out = any(place.transposed for place in chosen.values())
        return config

    def shipped(self) -> dict[str, Tensor]:
        """HF PEFT's own choice: its tensors, fixed random ones among them, and the biases that it trained."""
        from peft import get_peft_model_state_dict

        tensors = get_peft_model_state_dict(self.__dict__["wrapped"], save_embedding_layers=False)
        return {f"adapter.{name}": tensor for name, tensor in tensors.items()}


class _Record:
    """What a model was before HF PEFT: modules' registries and attributes, gradient flags, values; `undo` restores it.

    Only what HF PEFT changed is given back, so that what other methods did to other modules stays.
    """

    def __init__(self, model: nn.Module, keeps_values: bool) -> None:
        self.before = [(module, _contents(module)) for module in model.modules()]
        self.flags = {id(p): (p, p.requires_grad) for p in model.parameters()}
        self.values = [(p, p.detach().clone()) for p in model.parameters() if keeps_values and not p.is_meta]

    def finish(self) -> None:
        """Keep only what differs now, and give a user's head its gradients back."""
        self.before = [
            (module, {key: old for key, old in was.items() if not _same(old, now.get(key, _ABSENT))} | _added(was, now))
            for module, was, now in ((module, was, _contents(module)) for module, was in self.before)
        ]
        self.before = [(module, changed) for module, changed in self.before if changed]
        self.values = [(p, value) for p, value in self.values if not torch.equal(p, value)]
        for parameter, flag in self.flags.values():
            if flag:
                parameter.requires_grad_(True)

    @torch.no_grad()
    def undo(self) -> None:
        """Put everything back."""
        for module, changed in self.before:
            for key, old in changed.items():
                if old is _ABSENT:
                    module.__dict__.pop(key, None)
                elif isinstance(old, dict):
                    now = module.__dict__[key]
                    now.clear()
                    now.update(old)
                else:
                    module.__dict__[key] = old
        for parameter, flag in self.flags.values():
            parameter.requires_grad_(flag)
        for parameter, value in self.values:
            parameter.copy_(value)


class _Absent:
    """An attribute that was not there. A class, which stays the same object when it is copied or pickled."""


_ABSENT = _Absent


def _contents(module: nn.Module) -> dict[str, Any]:
    """The instance's attributes, with its registries (modules, parameters, hooks) copied."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in module.__dict__.items()}


def _same(old: Any, now: Any) -> bool:
    if isinstance(old, dict) and isinstance(now, dict):
        return list(old) == list(now) and all(old[key] is now[key] for key in old)
    return old is now


def _added(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {key: _ABSENT for key in now if key not in was}


class _Site:
    """HF PEFT's layers, for the record of edits."""

    merge_rank = 1

    def __init__(self, tuner: Any) -> None:
        self.tuner = tuner

    def layers(self) -> list[Any]:
        """Every layer that HF PEFT put in."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [module for module in self.tuner.model.modules() if isinstance(module, BaseTunerLayer)]

    @torch.no_grad()
    def merge(self) -> Handle:
        """Fold as HF PEFT does; the handle gives the weights back bit for bit."""
        layers = self.layers()
        if any(layer.merged for layer in layers):
            return Handle(_nothing)
        kept = [(p, p.detach().clone()) for layer in layers for p in layer.get_base_layer().parameters()]
        handle = Handle(partial(self._unmerge, kept))
        try:
            self.tuner.merge_adapter()
        except (NotImplementedError, ValueError) as error:
            handle.remove()
            raise Unmergeable(f"HF PEFT does not merge it: {str(error).strip() or type(error).__name__}") from None
        return handle

    @torch.no_grad()
    def _unmerge(self, kept: list[tuple[nn.Parameter, Tensor]]) -> None:
        if any(layer.merged for layer in self.layers()):
            self.tuner.unmerge_adapter()
        for parameter, value in kept:
            parameter.copy_(value)


def _nothing() -> None:
    """The undoing of a merge that was already done."""


@cache
def _method_class(type_name: str) -> type[HFPeft]:
    """The method of one type. UsageError, in one line, where HF PEFT or this type of it is not installed."""
    identifier = f"peft.{type_name.lower().replace('_', '-')}"
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise UsageError(f"{identifier} needs HF PEFT, which is not installed: {INSTALL}") from None
    known: dict[Any, Any] = peft.PEFT_TYPE_TO_CONFIG_MAPPING
    library = known.get(type_name)
    if library is None:
        raise UsageError(f"HF PEFT {peft.__version__} has no type {type_name}; a newer one may: {INSTALL} --upgrade")
    fields: dict[str, Any] = {**_expressible(library)}
    config = create_model(f"{type_name}_Config", __base__=LibraryConfig, __module__=__name__, **fields)
    config.library = library
    config.__qualname__ = f"{type_name}.Config"  # where pickle finds it
    body = {"Config": config, "type_name": type_name, "__module__": __name__, "__doc__": f"HF PEFT's {type_name}."}
    return type(type_name, (HFPeft,), body)


@cache
def _expressible(library: Any) -> dict[str, tuple[Any, Any]]:
    """Fields of a configuration class that a name's arguments can say: field -> (annotation, default).

    Fields of HF PEFT's bookkeeping (type of task, name of the base model) and those that take mappings or other
    configurations are left out, and so keep HF PEFT's defaults.
    """
    import peft

    bookkeeping = {field.name for field in dataclasses.fields(peft.PeftConfig)}
    hints, found = typing.get_type_hints(library), {}
    for field in dataclasses.fields(library):
        kinds = _kinds(hints[field.name])
        if field.name in bookkeeping or not kinds - {type(None)}:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if isinstance(default, list | tuple | set):
            default = "+".join(map(str, default)) or None
        if isinstance(default, str | int | float | None):
            found[field.name] = (reduce(or_, [*_ordered(kinds), type(None)]), default)
    return found


def _kinds(hint: Any) -> set[Any]:
    """What of a type hint a name's value can be: scalars, literals, and text for a list of words."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return {kind for part in typing.get_args(hint) for kind in _kinds(part)}
    if origin is Literal:
        return {hint}
    if origin is list:
        return {str} if set(typing.get_args(hint)) <= {str, int} else set()
    return {hint} if hint in (bool, int, float, str, type(None)) else set()


def _ordered(kinds: set[Any]) -> list[Any]:
    return sorted(kinds - {type(None)}, key=str)


def _takes_list(library: Any, name: str) -> bool:
    hint = typing.get_type_hints(library)[name]
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return any(typing.get_origin(part) is list for part in parts)


def _as_list(value: Any) -> Any:
    """`query+value` as a list; a regular expression or `all-linear` as it is."""
    if not isinstance(value, str):
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value
    words = value.split("+")
    if not all(word.replace(".", "").replace("_", "").isalnum() for word in words):
        return value
    return [int(word) if word.isdecimal() else word for word in words]


def _named(anatomy: Anatomy, places: Iterable[Any]) -> list[str] | str:
    """The modules of some places as HF PEFT takes them: by name, or by expression where a name ends another's."""
    paths = list(dict.fromkeys(place.name.removesuffix(".weight") for place in places))
    endings = tuple(f".{path}" for path in paths)
    if any(name.endswith(endings) for name, _ in anatomy.model.named_modules()):
        return "|".join(map(re.escape, paths))
    return paths
