"""YAML cards: read safely, turned into data classes, with errors that name file, line and key."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import UsageError, did_you_mean

C = TypeVar("C")


def read_yaml(file: Path) -> Any:
    """Safe YAML. `UsageError` names file and line of a syntax error, and the key where one is given twice."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        key = str(error.problem).partition('"')[2].partition('"')[0]
        raise UsageError(f"{shown(file)}:{line}: duplicate key {key!r}") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{shown(file)}:{line}: {error.problem or error.context}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown(file)}: {str(error).splitlines()[0]}") from None


def shown(file: Path) -> str:
    """A path as a reader would type it: relative to the working directory when it lies below it."""
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative


def line_of(file: Path, path: Sequence[str | int]) -> int:
    """1-based line of the key (or list item) that `path` leads to; of its nearest parent where it is missing."""
    from ruamel.yaml import YAML

    node, line = YAML(typ="rt", pure=True).load(file.read_text(encoding="utf-8")), 1
    for step in path:
        try:
            position = node.lc.item(step) if isinstance(step, int) else node.lc.key(step)
            node = node[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
        line = position[0] + 1
    return line


def fault(file: Path, path: Sequence[str | int], message: str) -> UsageError:
    """An error about one key of a card."""
    return UsageError(f"{shown(file)}:{line_of(file, path)}: {message}")


def unknown_key(file: Path, path: Sequence[str | int], known: typing.Iterable[str]) -> UsageError:
    """An error about a key that does not belong where `path` leads."""
    near = did_you_mean(str(path[-1]), known) or f" Known here: {', '.join(known)}."
    return fault(file, path, f"unknown key {path[-1]!r}.{near}")


def build(kind: type[C], data: Mapping[str, Any], file: Path, path: tuple[str | int, ...] = ()) -> C:
    """A data class from a mapping: every key known, every required key there, every value of the right type."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in fields:
            raise unknown_key(file, (*path, key), fields)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], file, (*path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise fault(file, path, f"the key {name!r} is missing")
    return kind(**values)


def _convert(hint: Any, value: Any, file: Path, path: tuple[str | int, ...]) -> Any:
    """`value` as `hint` wants it: scalars as they are, lists as tuples, nested data classes built."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, file, path)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(inner[0], item, file, (*path, i)) for i, item in enumerate(value))
    if origin is collections.abc.Mapping and isinstance(value, Mapping):
        return {key: _convert(inner[1], item, file, (*path, key)) for key, item in value.items()}
    if origin in (types.UnionType, typing.Union):
        return value if value is None else _convert(inner[0], value, file, path)
    if origin is typing.Literal and value in inner:
        return value
    if hint is Any or type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    raise fault(file, path, f"{path[-1]} must be {_words(hint)}, not {value!r}")


def _words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (types.UnionType, typing.Union):
        return _words(inner[0])
    names = {str: "text", int: "an integer", float: "a number", bool: "true or false", tuple: "a list"}
    return names.get(origin or hint, "a mapping")
