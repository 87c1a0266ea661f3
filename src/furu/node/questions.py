"""What `_dependencies()` looks at: values of nodes that are done, and the node that it must wait for.

`_dependencies()` may call `get()`. While it runs, `get()` computes nothing: it loads a node that is done.
For any other node it raises `NotDone`, which ends `_dependencies()`. The caller computes that node, and
asks again. So the dependencies of a node are complete only if it asked for nothing that was missing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from furu.node.base import Node

__all__ = ["QUESTION", "NotDone", "Question"]


class NotDone(BaseException):
    """Raised by `get()` in `_dependencies()` for a node that is not done. It is not an `Exception`, so that
    an `except Exception` in `_dependencies()` does not catch it."""


class Question:
    """One call of `_dependencies()`. `seen` are the nodes whose values it has read, and `awaited` those
    that were not done. A node that `is_replaced` will be computed again in this run, so its old value is
    not read."""

    def __init__(self, is_replaced: Callable[[Node[Any]], bool] | None = None) -> None:
        self.seen: dict[str, Node[Any]] = {}
        self.awaited: dict[str, Node[Any]] = {}
        self._is_replaced = is_replaced

    def may_read(self, node: Node[Any]) -> bool:
        """Whether the value of a node that has an artifact may be read."""
        return self._is_replaced is None or not self._is_replaced(node)

    def must_wait(self, node: Node[Any]) -> NotDone:
        """Record a node that is not done, and return the exception that ends `_dependencies()`."""
        self.awaited[node._furu_hash] = node
        return NotDone(f"{type(node).__qualname__} is not done")


# The question that is being answered in this context.
QUESTION: ContextVar[Question | None] = ContextVar("furu_question", default=None)
