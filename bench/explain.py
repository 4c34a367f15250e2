"""`bench explain METHOD TASK`: every value that a cell would use, and where it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .errors import UsageError
from .names import Name
from .protocol import load_protocol
from .recipes import configure, expand, resolve
from .registry import registry
from .text_table import text_table


@dataclass(frozen=True)
class Setting:
    """One value: `layer` is where it was decided, `source` why it is what it is."""

    name: str
    value: Any
    layer: str
    source: str


@dataclass(frozen=True)
class Explanation:
    """What would run, as `bench explain --json` prints it."""

    method: dict[str, Any]
    task: dict[str, Any]
    backbone: dict[str, Any]
    protocol: dict[str, Any]
    hyperparameters: tuple[Setting, ...]
    fixed: tuple[Setting, ...]  # by the protocol, equal for all methods
    unsupported: str | None  # the place that is missing, where the cell cannot be

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(method: str, task: str, protocol: str = "embedded") -> Explanation:
    """Explain one cell. Raises UsageError for unknown names and bad arguments."""
    names = expand(method)
    rules = load_protocol(protocol)
    task_ids = rules.resolve_tasks(task)
    if len(names) != 1 or len(task_ids) != 1:
        raise UsageError("explain one method on one task, such as: bench explain lora mnist")
    return _explain(names[0], task_ids[0], protocol)


def _explain(name: Name, task_id: str, protocol_id: str) -> Explanation:
    from .support import unsupported_reason

    rules = load_protocol(protocol_id)
    method, task = registry("methods").card(name.id), registry("tasks").card(task_id)
    settings = rules.family(task)
    backbone = registry("backbones").card(settings.backbone)
    resolved = resolve(name.id, name.arguments, task.family, backbone.id, task.id)
    config = configure(name.id, resolved)
    values = config.identity()
    by_protocol = f"protocol {rules.id} v{rules.version}"
    return Explanation(
        method={"name": str(name), "title": method.name, "version": method.version, "category": method.category},
        task={
            "id": task.id,
            "name": task.name,
            "version": task.version,
            "family": task.family,
            "suite": rules.suite_of(task.id),
            "metric": task.metric,
            "higher_is_better": task.higher_is_better,
            "classes": task.outputs,
            "sizes": dict(task.sizes),
            "licence": task.licence,
        },
        backbone={
            "id": backbone.id,
            "name": backbone.name,
            "parameters": backbone.parameters,
            "weights": backbone.weights,
            "licence": backbone.licence,
        },
        protocol={"id": rules.id, "version": rules.version, "title": rules.title, "hash": rules.hash},
        hyperparameters=tuple(Setting(key, values[key], *source) for key, source in resolved.sources.items()),
        fixed=tuple(Setting(key, value, "protocol", by_protocol) for key, value in _fixed(rules, settings).items()),
        unsupported=unsupported_reason(registry("methods").load(name.id), config, backbone, task),
    )


def _fixed(rules: Any, settings: Any) -> dict[str, Any]:
    """The protocol's settings that reach a cell, flat."""
    facts = settings.model_dump(mode="json")
    inputs = facts.pop("inputs")
    optimizer = {f"optimizer.{key}": value for key, value in rules.optimizer.model_dump(mode="json").items()}
    rest = {"seeds": list(rules.seeds), "dtype": rules.dtype, "threads": rules.threads, "timeout": rules.timeout}
    return {**facts, **{f"inputs.{key}": value for key, value in inputs.items()}, **optimizer, **rest}


def as_text(explanation: Explanation) -> str:
    """The page that `bench explain` prints."""
    e = explanation
    sizes = ", ".join(f"{count:,} {split}" for split, count in e.task["sizes"].items())
    score = f"{e.task['metric']}, {'higher' if e.task['higher_is_better'] else 'lower'} is better"
    place = ", ".join(filter(None, (e.task["family"], e.task["suite"])))
    heads = [
        f"method    {e.method['name']}: {e.method['title']}, version {e.method['version']}, {e.method['category']}",
        f"task      {e.task['id']}: {e.task['name']}, version {e.task['version']}, {place}; {score}; {sizes}",
        f"backbone  {e.backbone['id']}: {e.backbone['name']}, {e.backbone['parameters']:,} parameters",
        f"protocol  {e.protocol['id']} version {e.protocol['version']}: {e.protocol['title']}",
    ]
    if e.unsupported:
        heads.append(f"unsupported, because {e.unsupported}")
    chosen = text_table(
        ["hyper-parameter", "value", "layer", "source"],
        [[s.name, _text(s.value), s.layer, s.source] for s in e.hyperparameters],
    )
    fixed = text_table(["fixed by the protocol", "value"], [[s.name, _text(s.value)] for s in e.fixed])
    return "\n".join([*heads, "", chosen, "", fixed])


def _text(value: Any) -> str:
    return "none" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)
