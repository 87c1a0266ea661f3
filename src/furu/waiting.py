"""Which nodes of this process wait for which, so that a circle of waits is an error and never a hang.

A node waits for another where its `_create` runs or gets it while some other part of this process computes
it. Waits for nodes of other processes are not recorded: those end when the other process ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from furu.errors import FuruCycleError
from furu.text import shown

# Stack of nodes whose `_create` is running in this context, outermost first.
COMPUTING: ContextVar[tuple[Any, ...]] = ContextVar("furu_computing", default=())

_MAX_NODE_CHARS = 300

_lock = threading.Lock()
# The nodes that each node waits for, by the hash of the node that waits and then by wait.
_waits: dict[str, dict[object, Any]] = {}


def begin_wait(awaited: Any) -> Callable[[], None]:
    """Record that the nodes that are computing in this context wait for `awaited`, which another part of
    this process computes. Return a function that ends the wait; call it once.

    Raises `FuruCycleError`, and records nothing, if `awaited` is one of these nodes or waits for one.
    """
    stack, wait = COMPUTING.get(), object()
    with _lock:
        path = _path(awaited, {node._furu_hash for node in stack})
        if path is not None:
            raise _circle(stack, path)
        for node in stack:
            _waits.setdefault(node._furu_hash, {})[wait] = awaited

    def end() -> None:
        with _lock:
            for node in stack:
                del _waits[node._furu_hash][wait]
                if not _waits[node._furu_hash]:
                    del _waits[node._furu_hash]

    return end


def _path(start: Any, goals: set[str]) -> list[Any] | None:
    """Return the nodes from `start` to the first of `goals` that it waits for; None if there is none."""
    pending, seen = [[start]], {start._furu_hash}
    while pending:
        path = pending.pop()
        if path[-1]._furu_hash in goals:
            return path
        for node in _waits.get(path[-1]._furu_hash, {}).values():
            if node._furu_hash not in seen:
                seen.add(node._furu_hash)
                pending.append([*path, node])
    return None


def _circle(stack: tuple[Any, ...], path: list[Any]) -> FuruCycleError:
    hashes = [node._furu_hash for node in stack]
    cycle = [*stack[hashes.index(path[-1]._furu_hash) :], *path]
    arrows = " -> ".join(shown(node)[:_MAX_NODE_CHARS] for node in cycle)
    return FuruCycleError(
        f"the _create() of these nodes wait for each other, so none of them can end: {arrows}. "
        "Do not run or get a node inside the _create() of a node that it needs.",
        cycle=cycle,
    )


def _after_fork() -> None:
    """In the child: the threads that wait are the parent's."""
    global _lock
    _lock = threading.Lock()
    _waits.clear()


os.register_at_fork(after_in_child=_after_fork)
