"""Names with arguments, as typed on the command line: ``lora(r=16, targets=q+v),vpt``.

Grammar: names are separated by commas outside parentheses. A name is an id, or ``id(key=value, ...)``. A value is an
integer, a float, ``true``, ``false``, ``none``, a bare word (words may be joined by ``+``: ``q+v``) or a quoted string.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .errors import UsageError

Value = bool | int | float | str | None

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'", re.DOTALL)
_BARE = re.compile(r"[A-Za-z0-9_./:*%-]+(?:\+[A-Za-z0-9_./:*%-]+)*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_SIGNED_WORD = re.compile(r"[+-]?[A-Za-z0-9_./:*%+-]+")
_SPACE = re.compile(r"\s*")
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


@dataclass(frozen=True, eq=False)
class Name:
    """An id and its arguments. `str(name)` is canonical (sorted keys); two names are equal when their text is."""

    id: str
    arguments: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.arguments.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{self.id}: {key} must be a finite number")

    def __str__(self) -> str:
        if not self.arguments:
            return self.id
        inside = ", ".join(f"{key}={format_value(self.arguments[key])}" for key in sorted(self.arguments))
        return f"{self.id}({inside})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse(text: str | Iterable[str]) -> list[Name]:
    """Parse a comma-separated list of names (or several of them); `UsageError` says what is wrong and where."""
    parts = [text] if isinstance(text, str) else list(text)
    return [name for part in parts for name in _Reader(part).names()]


def parse_one(text: str) -> Name:
    """Parse exactly one name."""
    names = parse(text)
    if len(names) != 1:
        raise UsageError(f"one name was expected, not {len(names)}: {text!r}")
    return names[0]


def format_value(value: Value) -> str:
    """Text that `parse` reads back as the same value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    plain = _BARE.fullmatch(value) and not _NUMBER.fullmatch(value) and value.lower() not in _CONSTANTS
    return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reader:
    """A cursor over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def names(self) -> list[Name]:
        names = [self.name()]
        while self.accept(","):
            names.append(self.name())
        if self.at < len(self.text):
            raise self.error("a comma")
        return names

    def name(self) -> Name:
        identifier = self.take(_ID, "a name")
        arguments: dict[str, Value] = {}
        if self.accept("(") and not self.accept(")"):
            self.argument(identifier, arguments)
            while self.accept(","):
                self.argument(identifier, arguments)
            if not self.accept(")"):
                raise self.error("',' or ')'")
        return Name(identifier, arguments)

    def argument(self, identifier: str, arguments: dict[str, Value]) -> None:
        key = self.take(_KEY, "an argument name")
        if not self.accept("="):
            raise self.error(f"'=' after {key}")
        if key in arguments:
            raise UsageError(f"{identifier}: the argument {key} is given twice")
        arguments[key] = self.value()

    def value(self) -> Value:
        self.skip()
        if quoted := _QUOTED.match(self.text, self.at):
            self.at = quoted.end()
            return re.sub(r"\\(.)", r"\1", quoted.group()[1:-1], flags=re.DOTALL)
        word = self.take(_SIGNED_WORD, "a value")
        if _NUMBER.fullmatch(word):
            return _number(word)
        if word.lower() in _CONSTANTS:
            return _CONSTANTS[word.lower()]
        if not _BARE.fullmatch(word):
            raise UsageError(f"cannot read the value {word!r} in {self.text!r}; put it in quotes")
        return word

    def take(self, pattern: re.Pattern[str], what: str) -> str:
        self.skip()
        match = pattern.match(self.text, self.at)
        if match is None:
            raise self.error(what)
        self.at = match.end()
        self.skip()
        return match.group()

    def accept(self, symbol: str) -> bool:
        self.skip()
        found = self.text.startswith(symbol, self.at)
        if found:
            self.at += len(symbol)
            self.skip()
        return found

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def error(self, what: str) -> UsageError:
        found = repr(self.text[self.at]) if self.at < len(self.text) else "the end"
        return UsageError(f"cannot read {self.text!r}: {what} was expected at character {self.at + 1}, found {found}")


def _number(word: str) -> int | float:
    if re.fullmatch(r"[+-]?\d+", word):
        if len(word) > 300:
            raise UsageError(f"the number {word[:20]}... is out of range")
        return int(word)
    number = float(word)
    if not math.isfinite(number):
        raise UsageError(f"the number {word} is out of range")
    return number
