"""Where the current code runs: in a user's own thread, or inside a worker that computes one node.

Holds one context variable. Sets nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal


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


EXEC_CONTEXT: ContextVar[ExecContext] = ContextVar("EXEC_CONTEXT", default=ExecContext())  # noqa: B039  # frozen


@contextmanager
def executor_context(*, spec_key: str, backend: str, node_hash: str) -> Iterator[ExecContext]:
    """Run a block as a worker that computes the node `node_hash`; the context before is restored."""
    context = ExecContext("executor", spec_key, backend, node_hash)
    token = EXEC_CONTEXT.set(context)
    try:
        yield context
    finally:
        EXEC_CONTEXT.reset(token)
