"""The context in which code runs: interactive code, or a worker that computes a node and may be asked to
stop early."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Literal

import msgspec

from furu.errors import FuruCancelledError, FuruTimeoutError

__all__ = ["Cancellation", "EXEC_CONTEXT", "ExecContext", "check_cancelled", "executor_context"]


class ExecContext(msgspec.Struct, frozen=True):
    """What `get()` may do in the current context.

    In mode ``"interactive"``, `get()` computes missing nodes. In mode ``"executor"``, `get()` only loads.
    `get(force=True)` computes the node that the worker was given (`current_node_hash`), if that node needs
    this kind of worker (`spec_key`). `backend` names the workers, such as ``"local"``. If `replaces` is
    set, the node is computed although it has the artifact that `replaces` identifies.
    """

    mode: Literal["interactive", "executor"] = "interactive"
    spec_key: str | None = None
    backend: str | None = None
    current_node_hash: str | None = None
    replaces: tuple[int, int, int] | None = None


@dataclass(slots=True)
class Cancellation:
    """Whether a run has asked its nodes to stop early. The event loop sets it; any thread may read it."""

    requested: bool = False


class _Limits(msgspec.Struct, frozen=True):
    cancellation: Cancellation
    timeout_sec: float | None
    started: float


EXEC_CONTEXT: ContextVar[ExecContext] = ContextVar("EXEC_CONTEXT", default=ExecContext())  # noqa: B039  # frozen

_LIMITS: ContextVar[_Limits | None] = ContextVar("furu_limits", default=None)


class executor_context:  # noqa: N801  # used like a function
    """Run a block as a worker that computes the node with hash `node_hash`.

    This is a class because it is entered for every node: a generator with `@contextmanager` costs twice as
    much.
    """

    __slots__ = ("_context", "_context_token", "_limits", "_limits_token")

    def __init__(
        self,
        *,
        spec_key: str,
        backend: str,
        node_hash: str,
        replaces: tuple[int, int, int] | None = None,
        cancellation: Cancellation | None = None,
        timeout_sec: float | None = None,
    ) -> None:
        self._context = ExecContext("executor", spec_key, backend, node_hash, replaces)
        self._limits = _Limits(cancellation or Cancellation(), timeout_sec, time.monotonic())

    def __enter__(self) -> ExecContext:
        self._context_token: Token[ExecContext] = EXEC_CONTEXT.set(self._context)
        self._limits_token: Token[_Limits | None] = _LIMITS.set(self._limits)
        return self._context

    def __exit__(self, *_: object) -> None:
        _LIMITS.reset(self._limits_token)
        EXEC_CONTEXT.reset(self._context_token)


def check_cancelled() -> None:
    """Raise an error if the node that is being computed should stop. Call it regularly in a long `_create`.

    A node in a thread cannot be interrupted from outside. A node that calls this function stops at the
    first call after its run was cancelled, after its run failed and `grace_sec` has passed, or after the
    node exceeded the `_timeout_sec` of its class. Outside a run the function does nothing.

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
