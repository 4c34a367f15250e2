"""Virtual tokens in front of a text model's input, and the numbering of positions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .calling import output_of, with_output
from .chain import Handle, around
from .edits import Edits
from .tokens import Source


class _PromptOp:
    """Around a text stack: ids to embeddings, the prompt in front, the mask and the positions longer."""

    def __init__(
        self, stack: nn.Module, source: Source, n: int, text: Callable[[Tensor], Tensor] | None, scale: float
    ) -> None:
        self.stack, self.source, self.n, self.text, self.scale = stack, source, n, text, scale
        self.signature = inspect.signature(type(stack).forward)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "signature"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.signature = inspect.signature(type(self.stack).forward)

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = dict(self.signature.bind_partial(self.stack, *args, **kwargs).arguments)
        call.pop("self")
        call.update(call.pop("kwargs", {}))
        past = call.get("past_key_values")
        is_first = past is None or past.get_seq_length() == 0  # later on the cache holds the prompt
        self._lengthen(call, is_first)
        if not is_first:
            return next(**call)
        call["inputs_embeds"] = self._embedded(call.pop("input_ids", None), call.get("inputs_embeds"))
        output = next(**{name: value for name, value in call.items() if value is not None})
        return with_output(output, output_of(output)[:, self.n :])

    def _embedded(self, ids: Tensor | None, embeds: Tensor | None) -> Tensor:
        """The prompt and the text behind it, (B, n + L, width)."""
        if embeds is None:
            embeds = self.stack.get_input_embeddings()(ids)  # type: ignore[operator]
        if self.text is not None:
            embeds = self.text(embeds)
        prompt = self.source(embeds) if callable(self.source) else self.source
        if self.scale != 1:
            prompt = prompt * self.scale
        if prompt.dim() == 2:
            prompt = prompt.expand(embeds.shape[0], -1, -1)
        return torch.cat([prompt.to(embeds.dtype), embeds], dim=1)

    def _lengthen(self, call: dict[str, Any], is_first: bool) -> None:
        """Make the mask, the token types and the positions, where the caller gives them, those of prompt and text."""
        mask, types, positions = (call.get(name) for name in ("attention_mask", "token_type_ids", "position_ids"))
        if mask is not None and (is_first or mask.dim() == 2):
            call["attention_mask"] = _pad_left(mask, self.n, 1)
        if types is not None and is_first:
            call["token_type_ids"] = _pad_left(types, self.n, 0)
        if positions is not None:  # of the text alone; the library's own count runs over padding too
            moved = positions + self.n
            first = _first_position(self.stack)
            prompt = torch.arange(first, first + self.n, device=moved.device).expand(len(moved), -1)
            call["position_ids"] = torch.cat([prompt, moved], dim=1) if is_first else moved


def _pad_left(ids: Tensor, n: int, value: int) -> Tensor:
    return torch.cat([ids.new_full((ids.shape[0], n), value), ids], dim=1)


def _first_position(stack: nn.Module) -> int:
    """The position of the first token of a text, as the library numbers it."""
    embeddings: Any = getattr(stack, "embeddings", None)
    return embeddings.padding_idx + 1 if hasattr(embeddings, "create_position_ids_from_input_ids") else 0  # RoBERTa


def prompt(
    edits: Edits,
    stack: nn.Module,
    source: Source,
    n: int,
    text: Callable[[Tensor], Tensor] | None = None,
    scale: float = 1.0,
) -> Handle:
    """Put `n` virtual tokens before the input of a text stack and strip them from its output.

    They are rows as the embedding's table has them, which the embedding multiplies by `scale`. `text` replaces the
    embedded (and scaled) text (B, L, width) that follows them. Positions that the caller gives are the text's: they
    move behind the prompt's. Padding between prompt and text counts in a sliding window all the same.

    A pooler inside the stack sees the first virtual token, as it does in HF PEFT. Raises in the stack itself when the
    longer sequence has no positions left.
    """
    return edits.add(around(stack, _PromptOp(stack, source, n, text, scale)), unmergeable="a prompt")


class _ShiftPositions:
    def __init__(self, stack: nn.Module, n: int) -> None:
        self.stack, self.n = stack, n

    def __call__(self, next: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("position_ids") is None:
            ids = args[0] if args else kwargs.get("input_ids")
            kwargs = {**kwargs, "position_ids": self._positions(ids, kwargs)}
        return next(*args, **kwargs)

    def _positions(self, ids: Tensor | None, kwargs: dict[str, Any]) -> Tensor:
        past = kwargs.get("past_key_values")
        start = self.n + (0 if past is None else past.get_seq_length())
        embeddings: Any = getattr(self.stack, "embeddings", None)
        if ids is not None and hasattr(embeddings, "create_position_ids_from_input_ids"):  # RoBERTa skips padding
            return embeddings.create_position_ids_from_input_ids(ids, embeddings.padding_idx, start)
        reference: Tensor = kwargs["inputs_embeds"] if ids is None else ids
        if hasattr(embeddings, "create_position_ids_from_inputs_embeds"):
            return start + embeddings.create_position_ids_from_inputs_embeds(reference, embeddings.padding_idx)
        return torch.arange(start, start + reference.shape[1], device=reference.device).unsqueeze(0)


def shift_positions(edits: Edits, stack: nn.Module, n: int) -> Handle:
    """Number the input's positions from `n`, as a library does that hands a prefix over as a key/value cache."""
    return edits.add(around(stack, _ShiftPositions(stack, n)), unmergeable="shifted positions")


def bind_positions(stack: nn.Module) -> bool:
    """Whether the stack takes `position_ids`."""
    return "position_ids" in inspect.signature(type(stack).forward).parameters
