"""Where the current code runs: in a user's own thread, or inside a worker that computes one node; and
whether that node is to end early. Holds context variables, and sets nothing by itself.
"""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Literal

import msgspec

from furu.errors import FuruCancelledError, FuruTimeoutError

__all__ = ["Cancellation", "EXEC_CONTEXT", "ExecContext", "check_cancelled", "executor_context"]


class ExecContext(msgspec.Struct, frozen=True):
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


class _Limits(msgspec.Struct, frozen=True):
    cancellation: Cancellation
    timeout_sec: float | None
    started: float


EXEC_CONTEXT: ContextVar[ExecContext] = ContextVar("EXEC_CONTEXT", default=ExecContext())  # noqa: B039  # frozen

_LIMITS: ContextVar[_Limits | None] = ContextVar("furu_limits", default=None)


class executor_context:  # noqa: N801  # used like a function
    """Run a block as a worker that computes the node `node_hash`; the context before is restored.

    A class, since each node enters one, and a generator costs twice as much.
    """

    __slots__ = ("_context", "_context_token", "_limits", "_limits_token")

    def __init__(
        self,
        *,
        spec_key: str,
        backend: str,
        node_hash: str,
        cancellation: Cancellation | None = None,
        timeout_sec: float | None = None,
    ) -> None:
        self._context = ExecContext("executor", spec_key, backend, node_hash)
        self._limits = _Limits(cancellation or Cancellation(), timeout_sec, time.monotonic())

    def __enter__(self) -> ExecContext:
        self._context_token: Token[ExecContext] = EXEC_CONTEXT.set(self._context)
        self._limits_token: Token[_Limits | None] = _LIMITS.set(self._limits)
        return self._context

    def __exit__(self, *_: object) -> None:
        _LIMITS.reset(self._limits_token)
        EXEC_CONTEXT.reset(self._context_token)


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
