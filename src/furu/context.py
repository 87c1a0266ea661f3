"""Where the current code runs: in a user's own thread, or inside a worker that computes one node; and
whether that node is to end early. Holds context variables, and sets nothing by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from furu.errors import FuruCancelledError, FuruTimeoutError


@dataclass(frozen=True, slots=True)
class ExecContext:
    """What a `get()` may do here.

    In mode ``"interactive"`` a missing node is computed on the spot. In mode ``"executor"`` a `get()`
    only loads, except for the one node that the worker was given (`current_node_hash`), on the kind of
    worker that the node asks for (`spec_key`). `backend` names the worker, such as ``"local"``.
    """

    mode: Literal["interactive", "executor"] = "interactive"
    spec_key: str | None = None
    backend: str | None = None
    current_node_hash: str | None = None


@dataclass(slots=True)
class Cancellation:
    """What a run tells the nodes that it is computing. Set once, on the loop; read in any thread."""

    requested: bool = False


@dataclass(frozen=True, slots=True)
class _Limits:
    cancellation: Cancellation
    timeout_sec: float | None
    started: float


EXEC_CONTEXT: ContextVar[ExecContext] = ContextVar("EXEC_CONTEXT", default=ExecContext())  # noqa: B039  # frozen


_LIMITS: ContextVar[_Limits | None] = ContextVar("furu_limits", default=None)


@contextmanager
def executor_context(
    *,
    spec_key: str,
    backend: str,
    node_hash: str,
    cancellation: Cancellation | None = None,
    timeout_sec: float | None = None,
) -> Iterator[ExecContext]:
    """Run a block as a worker that computes the node `node_hash`; the context before is restored."""
    context = ExecContext("executor", spec_key, backend, node_hash)
    token = EXEC_CONTEXT.set(context)
    limits = _LIMITS.set(_Limits(cancellation or Cancellation(), timeout_sec, time.monotonic()))
    try:
        yield context
    finally:
        _LIMITS.reset(limits)
        EXEC_CONTEXT.reset(token)


def check_cancelled() -> None:
    """Give the run a chance to end the node that is being computed here; call it now and then.

    A node in a thread cannot be interrupted from outside. One that calls this in its inner loop ends
    at the next call once its run was cancelled (or failed, and `grace_sec` is over), or once it has
    taken longer than the `_timeout_sec` of its class. Outside a run it does nothing.

    Raises:
        FuruCancelledError: The run wants the node to end. Its attempt is recorded as cancelled.
        FuruTimeoutError: The node has taken too long.
    """
    limits = _LIMITS.get()
    if limits is None:
        return
    if limits.cancellation.requested:
        raise FuruCancelledError("the run that computes this node was cancelled")
    if limits.timeout_sec is not None and time.monotonic() - limits.started > limits.timeout_sec:
        raise FuruTimeoutError(
            f"took longer than its _timeout_sec of {limits.timeout_sec:g} s", timeout_sec=limits.timeout_sec
        )
