"""The context of the current code: interactive, or a worker that computes a node, which may have to end
early."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Literal

import msgspec

from furu.errors import FuruCancelledError, FuruTimeoutError

__all__ = ["Cancellation", "EXEC_CONTEXT", "ExecContext", "check_cancelled", "executor_context"]


class ExecContext(msgspec.Struct, frozen=True):
    """What `get()` may do here.

    In mode ``"interactive"``, it computes missing nodes. In mode ``"executor"`` it only loads, except for
    the node that the worker has to compute (`current_node_hash`), if the node needs this kind of worker
    (`spec_key`). `backend` names the kind of worker, such as ``"local"``.
    """

    mode: Literal["interactive", "executor"] = "interactive"
    spec_key: str | None = None
    backend: str | None = None
    current_node_hash: str | None = None


@dataclass(slots=True)
class Cancellation:
    """Whether a run asks its nodes to end early. Set once, on the loop; read in any thread."""

    requested: bool = False


class _Limits(msgspec.Struct, frozen=True):
    cancellation: Cancellation
    timeout_sec: float | None
    started: float


EXEC_CONTEXT: ContextVar[ExecContext] = ContextVar("EXEC_CONTEXT", default=ExecContext())  # noqa: B039  # frozen

_LIMITS: ContextVar[_Limits | None] = ContextVar("furu_limits", default=None)


class executor_context:  # noqa: N801  # used like a function
    """Run a block as a worker that computes the node `node_hash`.

    A class, because it is entered for every node, and a generator costs twice as much.
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
    """Let the run end the node that is being computed here. Call it regularly in a long `_create`.

    A node in a thread cannot be interrupted from outside. A node that calls this function ends at the next
    call after its run was cancelled (or has failed, and `grace_sec` is over), or after it has exceeded the
    `_timeout_sec` of its class. Outside a run the function does nothing.

    Raises:
        FuruCancelledError: The run was cancelled. The attempt is recorded as cancelled.
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
