"""Reading and replacing the hidden states in a module's arguments and outputs, however the library passes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def hidden_of(args: tuple[Any, ...], kwargs: dict[str, Any], name: str = "hidden_states") -> Tensor:
    """The hidden states: the first positional argument, or the keyword `name`."""
    return args[0] if args else kwargs[name]


def with_hidden(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor, name: str = "hidden_states"
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with other hidden states; torch's self-attention takes them three times."""
    if args:
        return tuple(value if arg is args[0] else arg for arg in args), kwargs
    return args, {**kwargs, name: value}


def output_of(output: Any) -> Tensor:
    """The hidden states a module returned: the tensor itself, the first of a tuple, or `last_hidden_state`."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple):
        return output[0]
    return output.last_hidden_state


def with_output(output: Any, value: Tensor) -> Any:
    """The same return value with other hidden states."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, tuple):
        return (value, *output[1:])
    output.last_hidden_state = value
    return output
