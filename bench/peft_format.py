"""Adapters as HF PEFT stores them: a folder with `adapter_config.json` and `adapter_model.safetensors`.

What is written loads by `PeftModel.from_pretrained(model, folder)` to the same function, and `read` takes what HF PEFT
wrote. Neither needs the package `peft`. HF PEFT knows modules where the anatomy knows places: slices of a fused matrix
become one adapter whose matrices are stacked, B in blocks, with the sum of their ranks.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .anatomy import Anatomy, anatomy_of
from .anatomy.anatomy import ATTENTION, FEEDFORWARD
from .anatomy.linear import LinearPlace
from .errors import UsageError
from .names import Name, parse_one

if TYPE_CHECKING:
    from ..methods.contract import Method
    from .attachment import Attachment

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
LOW_RANK = ("lora", "rslora", "dora", "lora-plus", "lora-fa")
KNOWN = (*LOW_RANK, "ia3", "prefix", "prompt-tuning")
Part = tuple[LinearPlace, Any]  # a place, and the method's module or parameter there
Adapter = tuple[dict[str, Any], dict[str, Tensor]]  # configuration and tensors


# writing -----------------------------------------------------------------------------------------------------------


def write(attachment: Attachment, folder: str | Path) -> None:
    """Write `folder`. UsageError for a method, or an option of it, that HF PEFT does not have."""
    from safetensors.torch import save_file

    config, tensors = _adapter(attachment)
    head = dict(_head(attachment.model, attachment.method))
    shared: dict[str, Any] = {"base_model_name_or_path": _model_name(attachment.model), "inference_mode": True}
    if head:
        shared["modules_to_save"] = sorted({name.rpartition(".")[0] for name in head})
    tensors.update({PREFIX + name: parameter for name, parameter in head.items()})
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / CONFIG).write_text(json.dumps({"task_type": None, **config, **shared}, indent=1), encoding="utf-8")
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(own, str(target / WEIGHTS), metadata={"format": "pt"})


def _adapter(attachment: Attachment) -> Adapter:
    method, method_id = attachment.method, parse_one(attachment.name).id
    if method_id in LOW_RANK:
        return _low_rank(method, is_dora=method_id == "dora")
    if method_id == "ia3":
        return _scales(method)
    if method_id == "prefix":
        return _prefix(attachment.model, method)
    if method_id == "prompt-tuning":
        return _prompt(attachment.model, method)
    raise UsageError(f"{method_id} cannot be written in HF PEFT's format, which {', '.join(KNOWN)} can")


def _low_rank(method: Method, is_dora: bool) -> Adapter:
    tensors, scale = low_rank_tensors(method, is_dora)
    ranks = {
        name.removesuffix(".lora_A.weight"): len(t) for name, t in tensors.items() if name.endswith("lora_A.weight")
    }
    by_module = _by_module(method, method.factors)
    r = Counter(len(factor.product()[0]) for parts in by_module.values() for _, factor in parts).most_common(1)[0][0]
    other = {path: rank for path, rank in ranks.items() if rank != r}
    config = {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": scale * r,
        "lora_dropout": getattr(method.config, "dropout", 0.0),
        "rank_pattern": other,
        "alpha_pattern": {path: scale * rank for path, rank in other.items()},
        "use_dora": is_dora,
        "target_modules": list(by_module),
        "fan_in_fan_out": _is_transposed(by_module),
    }
    return config, {PREFIX + name: tensor for name, tensor in tensors.items()}


def low_rank_tensors(method: Method, is_dora: bool) -> tuple[dict[str, Tensor], float]:
    """A (r, d_in), B (d_out, r) and, of DoRA, magnitudes (d_out,) by the module's path and HF PEFT's names; and the
    factor of B A. The slices of a fused matrix are stacked."""
    tensors: dict[str, Tensor] = {}
    scale = 0.0
    for path, parts in _by_module(method, method.factors).items():
        products = [factor.product() for _, factor in parts]
        scale = products[0][2]
        b = products[0][1].new_zeros(_rows(parts[0][0]), sum(len(a) for a, _, _ in products))
        start = 0
        for (place, _), (a, part, _) in zip(parts, products, strict=True):
            b[_slots(place), start : start + len(a)] = part
            start += len(a)
        tensors[f"{path}.lora_A.weight"] = torch.cat([a for a, _, _ in products])
        tensors[f"{path}.lora_B.weight"] = b
        if is_dora:
            tensors[f"{path}.lora_magnitude_vector"] = _magnitudes(parts)
    return tensors, scale


def _magnitudes(parts: list[Part]) -> Tensor:
    """The rows' magnitudes of a whole matrix; rows without an adapter keep their norm."""
    place, factor = parts[0]
    weight = place.whole()
    sizes = torch.linalg.vector_norm(weight.to(factor.m.dtype), dim=1).detach()
    for place, factor in parts:
        sizes[_slots(place)] = factor.m.detach()
    return sizes


def _scales(method: Method) -> Adapter:
    tensors: dict[str, Tensor] = {}
    inputs: list[str] = []
    by_module = _by_module(method, method.scales)
    for path, parts in by_module.items():
        place, scale = parts[0]
        if len(parts) == 1 and place.rows is None and len(scale) == place.d_in and _reads(method, place):
            tensors[f"{PREFIX}{path}.ia3_l"] = scale.view(1, -1)
            inputs.append(path)
            continue
        rows = scale.new_ones(_rows(place), 1)
        for place, scale in parts:
            rows[_slots(place), 0] = scale.detach()
        tensors[f"{PREFIX}{path}.ia3_l"] = rows
    config = {
        "peft_type": "IA3",
        "target_modules": list(by_module),
        "feedforward_modules": inputs,
        "fan_in_fan_out": _is_transposed(by_module),
    }
    return config, tensors


def _reads(method: Method, place: LinearPlace) -> bool:
    """Whether (IA)^3 scales the input of this place."""
    assert method.anatomy is not None
    return any(p.name == place.name for b in method.anatomy.blocks for p in b.feedforward.linears.values())


def _prefix(model: nn.Module, method: Method) -> Adapter:
    if not getattr(method.config, "shift_positions", False):
        raise UsageError("a prefix can be written in HF PEFT's format where shift_positions=true: see `bench explain`")
    values: Any = method.values
    table = values().detach()
    attention = _one_tower(method).blocks[0].attention
    return {
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "num_virtual_tokens": len(table),
        "token_dim": attention.kv_heads * attention.head_dim,
        **_sizes(model, method),
    }, {"prompt_embeddings": table}


def _prompt(model: nn.Module, method: Method) -> Adapter:
    prompts: Any = method.prompts
    (prompt,) = prompts.values()
    return {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": len(prompt),
        "token_dim": prompt.shape[1],
        **_sizes(model, method),
    }, {"prompt_embeddings": prompt * _scale(method)}


def _scale(method: Method) -> float:
    """What the prompt's embedding multiplies its rows by; HF PEFT puts prompts behind that factor (Gemma)."""
    prompts: Any = method.prompts
    assert method.anatomy is not None
    embeddings = [method.anatomy.towers[name].embedding for name in prompts]
    return 1.0 if embeddings[0] is None else embeddings[0].scale


def _sizes(model: nn.Module, method: Method) -> dict[str, Any]:
    tower = _one_tower(method)
    return {
        "task_type": _task_type(model),
        "num_transformer_submodules": 1,
        "num_layers": len(tower.blocks),
        "num_attention_heads": tower.blocks[0].attention.heads,
    }


def _one_tower(method: Method) -> Any:
    assert method.anatomy is not None
    towers = list(method.anatomy.towers.values())
    if len(towers) != 1:
        raise UsageError("of virtual tokens, HF PEFT's format can hold those of models with one stack of blocks")
    return towers[0]


def _task_type(model: nn.Module) -> str:
    """The wrapper that HF PEFT chooses for the model's class."""
    name = type(model).__name__
    known = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForSequenceClassification": "SEQ_CLS"}
    return next((task for end, task in known.items() if name.endswith(end)), "FEATURE_EXTRACTION")


def _model_name(model: nn.Module) -> str | None:
    return getattr(getattr(model, "config", None), "_name_or_path", None) or None


def _head(model: nn.Module, method: Method) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of a classifier on top, which train beside the method."""
    assert method.anatomy is not None
    wanted = {id(parameter) for parameter in method.anatomy.head_parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in wanted and parameter.requires_grad:
            yield name, parameter


# places and modules ------------------------------------------------------------------------------------------------


def _by_module(method: Method, own: Any) -> dict[str, list[Part]]:
    """The method's pieces by the path of the module that they change."""
    from ..methods.contract import parameter_name

    assert method.anatomy is not None
    found: dict[str, list[Part]] = {}
    for name, place in method.anatomy.linears(method.config.targets).items():  # type: ignore[attr-defined]
        found.setdefault(_path(place), []).append((place, own[parameter_name(name)]))
    return found


def _path(place: LinearPlace) -> str:
    if place.reading.forward is not None:
        raise UsageError(f"HF PEFT's format has no name for {place.name}: no call of its module multiplies by it")
    return place.name.removesuffix(".weight")


def _rows(place: LinearPlace) -> int:
    """Output rows of the whole matrix."""
    return len(place.whole())


def _slots(place: LinearPlace) -> Any:
    return slice(None) if place.rows is None else place.rows


def _is_transposed(by_module: dict[str, list[Part]]) -> bool:
    return any(place.transposed for parts in by_module.values() for place, _ in parts)


# reading -----------------------------------------------------------------------------------------------------------


def read(model: nn.Module, folder: str | Path) -> Attachment:
    """Attach what an HF PEFT folder holds to `model`. UsageError names what of it has no counterpart here."""
    from safetensors.torch import load_file

    from .attachment import attach

    source = Path(folder)
    for file in (CONFIG, WEIGHTS):
        if not (source / file).is_file():
            raise UsageError(f"{folder} is no folder of an HF PEFT adapter: it has no {file}")
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(str(source / WEIGHTS)).items()}
    name = _name_of(config, tensors, anatomy_of(model))
    attachment = attach(model, str(name))
    with torch.no_grad():
        used = _fill(attachment.method, name.id, tensors)
        used |= _fill_head(attachment, tensors)
    if left := sorted(tensors.keys() - used):
        attachment.detach()
        raise UsageError(f"{folder}: {left[0]} (and {len(left) - 1} more tensors) have no place in {name}")
    return attachment


def _name_of(config: dict[str, Any], tensors: dict[str, Tensor], anatomy: Anatomy) -> Name:
    kind = config.get("peft_type")
    tokens = config.get("num_virtual_tokens")
    if kind == "PROMPT_TUNING":
        return Name("prompt-tuning", {"tokens": tokens})
    if kind == "PREFIX_TUNING":
        return Name("prefix", {"tokens": tokens, "projection": False, "shift_positions": True})
    if kind == "IA3":
        return Name("ia3", {"targets": _targets(anatomy, tensors, ".ia3_l", neutral=1.0)})
    if kind != "LORA":
        raise UsageError(
            f"adapters of type {kind} cannot be read; those of LORA, IA3, PREFIX_TUNING, PROMPT_TUNING can"
        )
    if config.get("use_dora") and config.get("use_rslora"):
        raise UsageError("DoRA with the scale of rsLoRA has no counterpart here")
    method_id = "dora" if config.get("use_dora") else "rslora" if config.get("use_rslora") else "lora"
    targets = _targets(anatomy, tensors, ".lora_B.weight", neutral=0.0)
    return Name(method_id, {"r": config["r"], "alpha": _alpha(config, tensors), "targets": targets})


def _paths(tensors: dict[str, Tensor], ending: str) -> set[str]:
    return {name.removesuffix(ending) for name in tensors if name.endswith(ending)}


def _alpha(config: dict[str, Any], tensors: dict[str, Tensor]) -> float:
    """Alpha of a module of rank r. UsageError where modules are scaled differently."""
    patterns, r = config.get("alpha_pattern") or {}, config["r"]
    found: list[float] = []
    for path in _paths(tensors, ".lora_A.weight"):
        share = r / len(tensors[f"{path}.lora_A.weight"])
        alpha = next((a for key, a in patterns.items() if f".{path}".endswith(f".{key}")), config["lora_alpha"])
        found.append(alpha * (math.sqrt(share) if config.get("use_rslora") else share))
    if not math.isclose(min(found), max(found), rel_tol=1e-9):
        raise UsageError(
            f"modules of the adapter have alpha {min(found)} and {max(found)} at rank {r}: one was expected"
        )
    return config["lora_alpha"] if math.isclose(found[0], config["lora_alpha"], rel_tol=1e-9) else found[0]


def _targets(anatomy: Anatomy, tensors: dict[str, Tensor], ending: str, neutral: float) -> str:
    """The query that names the places in the adapter's modules, without slices where every tensor is neutral."""
    paths, places = _paths(tensors, ending), anatomy.linears("all")
    inside = {name: place for name, place in places.items() if _path(place) in paths}
    active = {name for name, place in inside.items() if _is_active(place, tensors[_path(place) + ending], neutral)}
    of_modules = {_path(inside[name]) for name in active}
    names = {n.rpartition(".")[2] for n, place in inside.items() if n in active or _path(place) not in of_modules}
    named = {_path(place) for name, place in places.items() if name.rpartition(".")[2] in names}
    if odd := sorted(paths ^ named):
        raise UsageError(f"no targets of this model name exactly the adapter's modules: {odd[0]} differs")
    order = (*ATTENTION, *FEEDFORWARD)
    return "+".join(sorted(names, key=order.index))


def _is_active(place: LinearPlace, tensor: Tensor, neutral: float) -> bool:
    return place.rows is None or bool((tensor[_slots(place)] != neutral).any())


def _fill(method: Method, method_id: str, tensors: dict[str, Tensor]) -> set[str]:
    """Copy the tensors to the method's parameters; returns the names of those used."""
    if method_id in ("prefix", "prompt-tuning"):
        parameter, scale = next(method.parameters()), 1.0 if method_id == "prefix" else _scale(method)
        _copy(parameter, tensors["prompt_embeddings"] / scale, "prompt_embeddings")
        return {"prompt_embeddings"}
    used: set[str] = set()
    pieces = method.scales if method_id == "ia3" else method.factors
    for path, parts in _by_module(method, pieces).items():
        for place, piece in parts:
            if method_id == "ia3":
                used.add(_fill_scale(place, piece, path, tensors, reads=_reads(method, place)))
            else:
                used |= _fill_product(place, piece, path, tensors)
    return used


def _fill_scale(place: LinearPlace, scale: Tensor, path: str, tensors: dict[str, Tensor], reads: bool) -> str:
    name = f"{path}.ia3_l"
    tensor = tensors[name]
    if (tensor.shape[0] == 1) != reads:
        raise UsageError(f"{name} scales the {'output' if reads else 'input'} of a matrix, ours the other side")
    _copy(scale, tensor.flatten() if reads else tensor[_slots(place), 0], name)
    return name


def _fill_product(place: LinearPlace, factor: Any, path: str, tensors: dict[str, Tensor]) -> set[str]:
    names = {f"{path}.lora_A.weight", f"{path}.lora_B.weight"}
    a, b = tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"][_slots(place)]
    columns = torch.arange(len(a))
    if len(a) != len(factor.a):  # one block of a stack: the other columns are zero here
        columns = b.any(0).nonzero().flatten()
        if len(columns) > len(factor.a):
            raise UsageError(f"{path} has rank {len(columns)}, the other modules have {len(factor.a)}")
    factor.a.zero_()
    factor.b.zero_()
    factor.a[: len(columns)] = a[columns]
    factor.b[:, : len(columns)] = b[:, columns]
    if hasattr(factor, "m"):
        names.add(f"{path}.lora_magnitude_vector")
        _copy(factor.m, tensors[f"{path}.lora_magnitude_vector"][_slots(place)], path)
    return names


def _fill_head(attachment: Attachment, tensors: dict[str, Tensor]) -> set[str]:
    used = set()
    for name, parameter in _head(attachment.model, attachment.method):
        if name in tensors:
            _copy(parameter, tensors[name], name)
            used.add(name)
    return used


def _copy(to: Tensor, tensor: Tensor, name: str) -> None:
    if to.shape != tensor.shape:
        raise UsageError(f"{name} has shape {tuple(tensor.shape)} in the file, {tuple(to.shape)} here")
    to.copy_(tensor)
