"""The context in which code runs: interactive code, or a worker that computes a node and may be asked to
stop early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Literal

import msgspec

from furu.errors import FuruCancelledError, FuruTimeoutError

__all__ = [
    "Advance",
    "Cancellation",
    "EXEC_CONTEXT",
    "ExecContext",
    "REPORT_ADVANCE",
    "check_cancelled",
    "executor_context",
    "progress",
]


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


class Advance(msgspec.Struct, frozen=True):
    """How far a node is: `done` of `total`, which is None if it is unknown, in a `unit` such as
    ``"epochs"``."""

    done: float
    total: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,.10g}"
        return f"{self.done:,.10g}{of}{' ' if self.unit else ''}{self.unit}"


class _Limits(msgspec.Struct):
    """What a worker asks of the node that it computes. `next_advance` is the time at which the node may
    report its progress again."""

    cancellation: Cancellation
    timeout_sec: float | None
    started: float
    next_advance: float = 0.0


EXEC_CONTEXT: ContextVar[ExecContext] = ContextVar("EXEC_CONTEXT", default=ExecContext())  # noqa: B039  # frozen

_LIMITS: ContextVar[_Limits | None] = ContextVar("furu_limits", default=None)
# Where the nodes of this context report their progress: a function of a node's hash and its `Advance`, to
# be called in any thread.
REPORT_ADVANCE: ContextVar[Callable[[str, Advance], object] | None] = ContextVar(
    "furu_report_advance", default=None
)
# A node's progress is reported at most this often.
_ADVANCE_SEC = 0.25


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


def progress(done: float, total: float | None = None, unit: str = "") -> None:
    """Report how far the node is that is being computed. Call it as often as you like in a long `_create`.

    The run passes it on at most four times a second, and always when `done` reaches `total`: as the event
    `NodeProgress`, to the display on the terminal and the pages, and to the estimate of the remaining time.
    `total` is None if it is unknown. `unit` names what is counted, such as ``"epochs"``. Works in threads,
    async nodes, worker processes and on Dask. Outside a run the function does nothing.

    Raises `TypeError` or `ValueError` if `done` or `total` is not a number of 0 or more.

    >>> import furu
    >>> class Train(furu.Furu[int]):
    ...     epochs: int
    ...     def _create(self) -> int:
    ...         for epoch in range(self.epochs):
    ...             furu.progress(epoch + 1, self.epochs, "epochs")
    ...         return self.epochs
    >>> Train(epochs=3).get()
    3
    """
    limits = _LIMITS.get()
    now = time.monotonic()
    if limits is not None and now < limits.next_advance and (total is None or done != total):
        return
    advance = Advance(_amount("done", done), None if total is None else _amount("total", total), str(unit))
    report, key = REPORT_ADVANCE.get(), EXEC_CONTEXT.get().current_node_hash
    if limits is None or report is None or key is None:
        return
    limits.next_advance = now + _ADVANCE_SEC
    report(key, advance)


def _amount(name: str, value: float) -> float:
    amount = float(value)  # also of a number of numpy
    if not 0 <= amount < math.inf:
        raise ValueError(f"progress() takes a {name} of 0 or more, not {value!r}")
    return amount
