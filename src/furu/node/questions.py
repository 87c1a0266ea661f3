"""What `_dependencies()` looks at: values of nodes that are done, and the node that it must wait for.

`_dependencies()` may call `get()`. While it runs, `get()` computes nothing: it loads a node that is done.
For any other node it raises `NotDone`, which ends `_dependencies()`. The caller computes that node, and
asks again. So the dependencies of a node are complete only if it asked for nothing that was missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from furu.errors import FuruUsageError
from furu.node.base import Node

__all__ = ["FAILED_INPUTS", "QUESTION", "NotDone", "Question"]


class NotDone(BaseException):
    """Raised by `get()` in `_dependencies()` for a node that is not done. It is not an `Exception`, so that
    an `except Exception` in `_dependencies()` does not catch it."""


class Question:
    """One call of a node's `_dependencies()`.

    `seen` are the nodes whose values it has read, `awaited` those that were not done, and `failed` those
    whose failures it has accepted. If `may_fail`, the awaited nodes need not succeed. A node that
    `is_replaced` will be computed again in this run, so its old value is not read. `failures` has the
    failures of this run by hash.
    """

    def __init__(
        self,
        node: Node[Any],
        is_replaced: Callable[[Node[Any]], bool] | None = None,
        failures: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.seen: dict[str, Node[Any]] = {}
        self.awaited: dict[str, Node[Any]] = {}
        self.failed: dict[str, Node[Any]] = {}
        self.may_fail = True
        self._node = node
        self._is_replaced = is_replaced
        self._failures = failures

    def may_read(self, node: Node[Any]) -> bool:
        """Whether the value of a node that has an artifact may be read."""
        return self._is_replaced is None or not self._is_replaced(node)

    def failure_of(self, node: Node[Any]) -> str | None:
        """Return how a node has failed in this run; None if it has not. Raises `FuruUsageError` if the
        class of the asking node does not say that it can do without others."""
        error = self._failures.get(node._furu_hash)
        if error is not None:
            if not type(self._node)._partial:
                raise FuruUsageError(
                    f"{type(self._node).__qualname__} asked for the outcome of a node that has failed. "
                    "Write _partial = True in the class if its value may be made without such nodes"
                )
            self.failed[node._furu_hash] = node
        return error

    def must_wait(self, *nodes: Node[Any], may_fail: bool = False) -> NotDone:
        """Record nodes that are not done, and return the exception that ends `_dependencies()`."""
        if not may_fail and self.may_fail:  # first those that must succeed
            self.awaited.clear()
            self.may_fail = False
        if may_fail == self.may_fail:
            self.awaited.update((node._furu_hash, node) for node in nodes)
        return NotDone(f"{len(nodes)} nodes are not done")


# The question that is being answered in this context.
QUESTION: ContextVar[Question | None] = ContextVar("furu_question", default=None)
# The hashes of the nodes without which the `_create` of this context goes on, because they have failed.
FAILED_INPUTS: ContextVar[dict[str, None] | None] = ContextVar("furu_failed_inputs", default=None)
