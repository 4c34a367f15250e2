"""What cells need before they can run: assets, sources on a hub or in a folder, Python packages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from . import assets
from .errors import AssetError
from .registry import registry
from .sources import Source, fetch_all

if TYPE_CHECKING:
    from .records import Cell
    from .wheels import Progress

Need = tuple[Literal["asset", "package"], str] | Source


def obtain(cells: Sequence[Cell], progress: Progress | None = None) -> dict[str, list[str]]:
    """Fetch what the cells need, each thing once; why cells cannot run, by cell key, for those that cannot."""
    needs = {cell.key: (*of_task(cell.task.id), *of_backbone(cell.backbone.id)) for cell in cells}
    reasons = fetch((need for needed in needs.values() for need in needed), progress)
    lacking = {key: [reasons[need] for need in needed if need in reasons] for key, needed in needs.items()}
    return {key: why for key, why in lacking.items() if why}


def of_task(task: str) -> tuple[Need, ...]:
    """What a task needs."""
    card = registry("tasks").card(task)
    return (*(("asset", asset_id) for asset_id in card.assets), *card.sources)


def of_backbone(backbone: str) -> tuple[Need, ...]:
    """What a backbone needs."""
    card = registry("backbones").card(backbone)
    assets_of: list[Need] = [("asset", asset_id) for asset_id in card.assets]
    return (*assets_of, *card.sources, *(("package", name) for name in card.packages))


def fetch(needs: Iterable[Need], progress: Progress | None = None) -> dict[Need, str]:
    """Fetch each thing once; what cannot be had, with the reason in one line."""
    sources: list[Source] = []
    reasons: dict[Need, str] = {}
    for need in dict.fromkeys(needs):
        if isinstance(need, Source):
            sources.append(need)
        elif need[0] == "asset":
            try:
                assets.fetch([need[1]], progress)
            except AssetError as error:
                reasons[need] = str(error)
        elif find_spec(need[1]) is None:
            reasons[need] = f"the Python package {need[1]} is needed, and not installed: pip install {need[1]}"
    for source, reason in fetch_all(sources).items():
        reasons[source] = reason
    return reasons
