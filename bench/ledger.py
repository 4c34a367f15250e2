"""The memory ledger: bytes that one training step or one forward pass holds, counted and not sampled.

Counting makes the figures the same on every run: weights, gradients and optimiser state are summed over unique
storages, activations over the storages that autograd keeps for the backward pass, and the peak over all storages alive
at once. What a kernel allocates and frees inside itself is not seen, nor are an allocator's rounding and caches; the
measured peaks stand beside the ledger for that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind `tensors`, each storage once."""
    return sum({_key(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def tensors_of(modules: Sequence[nn.Module | None]) -> Iterator[Tensor]:
    """Parameters and buffers."""
    for module in modules:
        if module is not None:
            yield from module.parameters()
            yield from module.buffers()


class SavedTensors:
    """Counts what autograd saves for the backward pass while it is active (a context manager).

    `peak` is the largest number of bytes kept at one time, in unique storages that are not among `outside` (weights
    and buffers: they are there anyway). A storage counts whole even where a view of it was saved, because all of it
    stays alive. Under activation checkpointing only the inputs of the checkpointed parts are seen: what their second
    forward pass saves lies behind hooks of torch's own, and is in the peak of `LiveTensors` alone. `copies` is the
    part of the peak that consists of weights in another dtype, as autocast makes them; `is_copy(key)` says of a
    storage whether it is one.
    """

    def __init__(self, outside: Iterable[Tensor], is_copy: Callable[[int], bool] = lambda key: False) -> None:
        self._outside = {_key(tensor) for tensor in outside}
        self._is_copy = is_copy
        self._users: dict[int, int] = {}
        self._live = self._live_copies = 0
        self.peak = self.copies = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._hooks.__exit__(*details)

    def _pack(self, tensor: Tensor) -> Any:
        key = _key(tensor)
        if key in self._outside:
            return tensor
        self._users[key] = self._users.get(key, 0) + 1
        size, copied = tensor.untyped_storage().nbytes(), self._is_copy(key)
        if self._users[key] == 1:
            self._live += size
            self._live_copies += size * copied
            if self._live > self.peak:
                self.peak, self.copies = self._live, self._live_copies
        return _Held(tensor, partial(self._release, key, size, copied))

    def _release(self, key: int, size: int, copied: bool) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._live -= size
            self._live_copies -= size * copied


class _Held:
    """A saved tensor; tells when autograd lets it go."""

    def __init__(self, tensor: Tensor, release: Callable[[], None]) -> None:
        self.tensor, self._release = tensor, release

    def __del__(self) -> None:
        self._release()


def _unpack(held: Any) -> Tensor:
    return held.tensor if isinstance(held, _Held) else held


class LiveTensors(TorchDispatchMode):
    """Follows the storages that operations create while it is active.

    `peak` is the largest number of bytes alive at one time among them. Tensors that exist before (weights, the batch)
    do not count. `is_weight_copy` says whether a storage was made by casting one of `weights`.
    """

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._weights = {_key(tensor) for tensor in weights}
        self._known: set[int] = set()
        self._copies: set[int] = set()
        self._live = 0
        self.peak = 0

    def is_weight_copy(self, key: int) -> bool:
        """Whether the storage with this key is a cast copy of a weight."""
        return key in self._copies

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [self._meet(tensor) for tensor in _tensors((args, kwargs))]
        result = func(*args, **kwargs)
        casts = func is torch.ops.aten._to_copy.default and given[:1] and given[0] in self._weights
        for tensor in _tensors(result):
            if self._enter(tensor) and casts:
                self._copies.add(_key(tensor))
        return result

    def _meet(self, tensor: Tensor) -> int:
        """The key of an operation's input, which does not count; made behind our back (`torch.tensor`), it may end, and
        its address may become another storage's."""
        key = _key(tensor)
        if key not in self._known:
            self._known.add(key)
            weakref.finalize(tensor.untyped_storage(), self._known.discard, key)
        return key

    def _enter(self, tensor: Tensor) -> bool:
        """Count a new storage until it is freed; False for one that was there."""
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._known:
            return False
        self._known.add(key)
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._leave, key, size)
        return True

    def _leave(self, key: int, size: int) -> None:
        self._live -= size
        self._known.discard(key)
        self._copies.discard(key)


@contextmanager
def pinned_attention() -> Iterator[None]:
    """The canonical ledger's choice of attention kernels: flash where it applies, else plain matrix products."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
        yield


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
