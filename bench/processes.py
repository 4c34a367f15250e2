"""Child processes: forked from a server that only imports, or spawned where forking is not safe.

A child that is forked after its parent has run a parallel region of torch hangs in its own first one; hence a server
(`multiprocessing`'s fork server) that imports the heavy libraries once, runs no tensor operation, and forks children in
milliseconds. The calling process needs no torch at all.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

PRELOADED = "peft_atlas.bench.preload"
# what a terminal (Ctrl-C) or a scheduler (time is up) sends to all processes of a job: the parent decides what to do
TO_ALL = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)]


def start(main: Callable[..., None], *arguments: Any) -> tuple[Any, Connection]:
    """Start `main(connection, *arguments)` in a child; returns the process and this side of the connection.

    The first call waits until the server has imported its libraries (seconds); others take milliseconds.
    """
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=main, args=(theirs, *arguments), daemon=True)
    with _interrupts_later(), _caller_hidden():
        process.start()
    theirs.close()
    return process, ours


def call(target: str, *arguments: Any) -> Any:
    """Run `target` ("module:function") in a child and return its result, or raise its exception."""
    process, connection = start(_answer, target, arguments, dict(os.environ))
    try:
        ok, value = connection.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{target} ended with exit code {process.exitcode}") from None
    finally:
        connection.close()
    process.join()
    if not ok:
        raise value
    return value


def load(target: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def adopt(environment: dict[str, str]) -> None:
    """Take over the caller's environment: the server's may be older (plug-ins, cache folder)."""
    os.environ.clear()
    os.environ.update(environment)


def _answer(connection: Connection, target: str, arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    adopt(environment)
    try:
        answer = (True, load(target)(*arguments))
    except Exception as error:
        error.__traceback__ = None
        answer = (False, error)
    connection.send(answer)


@lru_cache
def _context() -> Any:
    """Fork server on Linux; spawn elsewhere (on macOS, system libraries do not survive a fork)."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    with _interrupts_ignored():  # the server inherits this, and hands it on
        forkserver.ensure_running()
    first = context.Process(target=int)
    with _caller_hidden():
        # its start waits for the server's imports; in a thread of its own, so that Ctrl-C need not wait
        thread = threading.Thread(target=first.start, daemon=True)
        thread.start()
        thread.join()
    return context


def ignore_what_all_hear() -> dict[int, Any]:
    """Leave it to the parent; the handlers that were there. Those of other languages stay. In a main thread only."""
    return {number: signal.signal(number, signal.SIG_IGN) for number in TO_ALL if signal.getsignal(number) is not None}


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started here never hear Ctrl-C, nor a scheduler."""
    if not _in_main_thread():
        yield
        return
    before = ignore_what_all_hear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C back for milliseconds: a process that is started half prints a traceback of its own."""
    if not _in_main_thread():
        yield
        return
    caught: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *details: caught.append(details))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[0])


@contextmanager
def _caller_hidden() -> Iterator[None]:
    """Keep children from importing the caller's script again: `pa.run` needs no `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
