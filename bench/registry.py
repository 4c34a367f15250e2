"""One registry for every noun: methods, tasks, backbones, protocols.

A noun is a YAML card; the code it names is imported when it is used, not before. Parsed cards are kept in an index in
the cache folder (`card_index`), so that listing 140 recipes parses no YAML.

Third parties add cards by a folder (`--plugin DIR`, or PEFT_ATLAS_PLUGINS, which child processes inherit) or by an
entry point of the group `peft_atlas.plugins` whose value is a package.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from .card_index import yaml_content
from .cards import build, fault, shown
from .errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from ..tasks.contract import Card as TaskCard
    from .backbones.contract import Card as BackboneCard
    from .protocol import Protocol
    from .recipes import MethodCard

Kind = Literal["methods", "tasks", "backbones", "protocols"]
C = TypeVar("C")

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = __package__.rpartition(".")[0]
PLUGINS = "PEFT_ATLAS_PLUGINS"
ENTRY_POINTS = "peft_atlas.plugins"
LIBRARY = "library"  # category of methods that are other libraries' code: no part of `all`, asked for by name or group
_HOMES: dict[Kind, str] = {
    "methods": "methods",
    "tasks": "tasks",
    "backbones": "bench/backbones",
    "protocols": "bench/protocols",
}
_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
_MARK: dict[str, Kind] = {"category": "methods", "metric": "tasks", "parameters": "backbones", "suites": "protocols"}


@dataclass(frozen=True)
class Source:
    """A folder with cards, and the package name under which modules in it are imported."""

    folder: Path
    package: str
    kind: Kind | None = None  # None: each card's keys tell (a plug-in folder)


@dataclass(frozen=True)
class Entry:
    """A card as it was read, before it became a data class."""

    id: str
    kind: Kind
    file: Path
    package: str
    data: Mapping[str, Any]
    within: tuple[str, ...] = ()  # where the file holds it, () for the whole file

    @property
    def is_library(self) -> bool:
        """Whether it stands for code of another library."""
        return f"{self.data.get('category', '')}/".startswith(f"{LIBRARY}/")


class Registry(Generic[C]):
    """The cards of one kind."""

    def __init__(self, kind: Kind, entries: Mapping[str, Entry]) -> None:
        self.kind = kind
        self._entries = entries
        self._cards: dict[str, C] = {}

    def ids(self, library: bool = False) -> list[str]:
        """Every id, sorted; those of methods that are other libraries' code only with `library`."""
        return sorted(card_id for card_id, entry in self._entries.items() if library or not entry.is_library)

    def __contains__(self, card_id: str) -> bool:
        return card_id in self._entries

    def entry(self, card_id: str) -> Entry:
        """The raw card. Raises UsageError with the nearest ids for an unknown one."""
        if card_id not in self._entries:
            near = did_you_mean(card_id, self._entries) or f" `bench ls {self.kind}` lists them."
            raise UsageError(f"unknown {self.kind[:-1]} {card_id!r}.{near}")
        return self._entries[card_id]

    def card(self, card_id: str) -> C:
        """The card. Raises UsageError for an unknown id, and for an ill-formed card with file, line and key."""
        if card_id not in self._cards:
            entry = self.entry(card_id)
            self._cards[card_id] = _BUILDERS[self.kind](entry)
        return self._cards[card_id]

    def cards(self, library: bool = False) -> list[C]:
        """Every card, in the order of `ids`."""
        return [self.card(card_id) for card_id in self.ids(library)]

    def folder(self, card_id: str) -> Path:
        """The folder the card lies in."""
        return self.entry(card_id).file.parent

    def load(self, card_id: str) -> Any:
        """Import and return what the card's `target` ("module:Class", the module beside the card) names."""
        entry = self.entry(card_id)
        module_name, _, attribute = str(entry.data.get("target", "")).partition(":")
        name = f"{entry.package}.{module_name}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and name.startswith(error.name):
                raise fault(entry.file, ("target",), f"there is no module {module_name!r} beside the card") from error
            raise UsageError(f"{card_id} needs the Python package {error.name!r}, which is not installed") from error
        if not hasattr(module, attribute):
            message = f"{module_name} has no {attribute!r}.{did_you_mean(attribute, vars(module))}"
            raise fault(entry.file, ("target",), message)
        return getattr(module, attribute)

    def group(self, name: str) -> list[str]:
        """Ids whose card's category is `name` or lies below it; those of `ids` for "all"; empty when there are none."""
        if name == "all":
            return self.ids()
        return [
            card_id
            for card_id in self.ids(library=True)
            if f"{self._entries[card_id].data.get('category', '')}/".startswith(f"{name}/")
        ]


@overload
def registry(kind: Literal["methods"]) -> Registry[MethodCard]: ...
@overload
def registry(kind: Literal["tasks"]) -> Registry[TaskCard]: ...
@overload
def registry(kind: Literal["backbones"]) -> Registry[BackboneCard]: ...
@overload
def registry(kind: Literal["protocols"]) -> Registry[Protocol]: ...
def registry(kind: Kind) -> Registry[Any]:
    """The registry of one kind: this package's cards and the plug-ins'."""
    return _registry(kind, os.environ.get(PLUGINS, ""))


def use_plugins(folders: Iterable[str | Path]) -> None:
    """Add plug-in folders for this process and the children it starts from now on."""
    known = [folder for folder in os.environ.get(PLUGINS, "").split(os.pathsep) if folder]
    for folder in folders:
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            raise UsageError(f"the plug-in folder {folder} does not exist")
        if str(path) not in known:
            known.append(str(path))
    if known:
        os.environ[PLUGINS] = os.pathsep.join(known)


@lru_cache
def _registry(kind: Kind, plugins: str) -> Registry[Any]:
    own = Source(ROOT / _HOMES[kind], f"{PACKAGE}.{_HOMES[kind].replace('/', '.')}", kind)
    found: dict[str, Entry] = {}
    for source in (own, *_plugin_sources(plugins)):
        for entry in _entries(source):
            if entry.kind != kind:
                continue
            if entry.id in found:
                both = f"{shown(found[entry.id].file)} and {shown(entry.file)}"
                raise UsageError(f"two {kind} are called {entry.id!r}: {both}")
            found[entry.id] = entry
    return Registry(kind, found)


@lru_cache
def _plugin_sources(plugins: str) -> tuple[Source, ...]:
    from importlib.metadata import entry_points

    sources = []
    for folder in filter(None, plugins.split(os.pathsep)):
        if not Path(folder).is_dir():
            raise UsageError(f"the plug-in folder {folder} ({PLUGINS}) does not exist")
        sources.append(Source(Path(folder), _mount(Path(folder))))
    for point in entry_points(group=ENTRY_POINTS):
        spec = importlib.util.find_spec(point.value)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            sources.append(Source(Path(folder), point.value))
    return tuple(sources)


def _mount(folder: Path) -> str:
    """Make a folder importable as a package of its own name, so that modules in it can import each other."""
    name = "peft_atlas_plugin_" + hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    if name not in sys.modules:
        start = folder / "__init__.py"
        places = [str(folder)]
        if start.is_file():
            spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=places)
        else:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = places
        if spec is None:
            raise UsageError(f"the plug-in folder {folder} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        if spec.loader is not None and start.is_file():
            spec.loader.exec_module(module)
    return name


def _entries(source: Source) -> list[Entry]:
    """The cards below a folder: YAML files whose top level is a mapping with `id`, or with several `cards`."""
    entries = []
    for file, content in yaml_content(source.folder).items():
        for within, data in _cards_of(content):
            kind = source.kind or next((kind for mark, kind in _MARK.items() if mark in data), None)
            if kind is None:
                raise fault(file, ("id",), "neither a method, a task, a backbone nor a protocol: see the keys of those")
            if not _ID.fullmatch(str(data["id"])):
                raise fault(file, ("id",), f"an id is made of a-z, 0-9, '-' and '.', not {data['id']!r}")
            inner = file.parent.relative_to(source.folder).parts
            entries.append(Entry(str(data["id"]), kind, file, ".".join((source.package, *inner)), data, within))
    return entries


def _cards_of(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """(place in the file, card) of each card in a file. Cards of one file, under `cards`, share its other keys."""
    if isinstance(content, dict) and "id" in content:
        yield (), content
    elif isinstance(content, dict) and isinstance(content.get("cards"), dict):
        shared = {key: value for key, value in content.items() if key != "cards"}
        for card_id, own in content["cards"].items():
            yield ("cards", card_id), _joined(shared, {"id": card_id, **own})


def _joined(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings as one, level by level; `own` wins."""
    both = {key: _joined(shared[key], own[key]) for key in own if _are_mappings(shared.get(key), own[key])}
    return {**shared, **own, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _build_method(entry: Entry) -> Any:
    from .recipes import MethodCard, check_layers

    card = build(MethodCard, entry.data, entry.file, entry.within)
    check_layers(entry)
    return card


def _build_task(entry: Entry) -> Any:
    from ..tasks.contract import Card

    return build(Card, entry.data, entry.file, entry.within)


def _build_backbone(entry: Entry) -> Any:
    from .backbones.contract import Card

    return build(Card, entry.data, entry.file, entry.within)


def _build_protocol(entry: Entry) -> Any:
    from .protocol import read_protocol

    return read_protocol(entry)


_BUILDERS: dict[Kind, Callable[[Entry], Any]] = {
    "methods": _build_method,
    "tasks": _build_task,
    "backbones": _build_backbone,
    "protocols": _build_protocol,
}
