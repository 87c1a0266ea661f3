"""Records which nodes of this process wait for each other: a cycle of waits is an error instead of a hang.

A node waits for a second node if its `_create` runs or gets the second node while another part of this
process computes that node. Waits for other processes are not recorded: they end when those processes exit.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from typing import Any

from furu._common.text import shown
from furu.errors import FuruCycleError

# Stack of nodes whose `_create` is running in this context, outermost first.
COMPUTING: ContextVar[tuple[Any, ...]] = ContextVar("furu_computing", default=())

_MAX_NODE_CHARS = 300

_lock = threading.Lock()
# The awaited nodes, by the hash of the waiting node and then by wait.
_waits: dict[str, dict[object, Any]] = {}


class Wait:
    """A wait for another node by the nodes that are being computed in this context."""

    def __init__(self) -> None:
        self._stack = COMPUTING.get()

    def begin(self, awaited: Any) -> None:
        """Record the wait for `awaited`, which another part of this process computes.

        If `awaited` is one of the waiting nodes, or waits for one of them, raises `FuruCycleError` and
        records nothing.
        """
        with _lock:
            path = _path(awaited, {node._furu_hash for node in self._stack})
            if path is not None:
                raise _circle(self._stack, path)
            for node in self._stack:
                _waits.setdefault(node._furu_hash, {})[self] = awaited

    def end(self) -> None:
        """End the wait, if it has begun."""
        with _lock:
            for node in self._stack:
                waits = _waits.get(node._furu_hash, {})
                waits.pop(self, None)
                if not waits:
                    _waits.pop(node._furu_hash, None)


def _path(start: Any, goals: set[str]) -> list[Any] | None:
    """Return the nodes on a path of waits from `start` to one of `goals`; None if there is no path."""
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
    """Forget all waits in a forked child, because the waiting threads exist only in the parent."""
    global _lock
    _lock = threading.Lock()
    _waits.clear()


os.register_at_fork(after_in_child=_after_fork)
