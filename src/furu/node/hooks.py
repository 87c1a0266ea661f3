"""Calling the methods that a class defines: whatever they raise is that node's failure."""

from __future__ import annotations

import contextvars
from contextvars import ContextVar
from typing import Any

from furu._common.text import describe_error
from furu.errors import FuruError
from furu.node.base import Node, describe, overrides
from furu.node.threads import install as let_threads_inherit
from furu.node.waiting import COMPUTING

# Hashes of the nodes whose `_validate` is running in this context: for it, what is published is there.
VALIDATING: ContextVar[frozenset[str]] = ContextVar("furu_validating", default=frozenset())

# Whether a method of a node's class, other than `_create`, is running in this context.
IN_METHOD: ContextVar[bool] = ContextVar("furu_in_method", default=False)


def ask(node: Node[Any], method: str) -> Any:
    """Call one of the methods that a class may define. Raises `FuruError`, naming the node, if it raises.

    What `_dependencies` returns is read here too, because it may be a generator.
    """
    if not overrides(type(node), method):
        return getattr(node, method)()
    try:
        return contextvars.copy_context().run(call_method, node, method)
    except Exception as error:
        raise FuruError(f"{describe(node)}.{method}() raised {describe_error(error)}") from error


def call_method(node: Node[Any], method: str) -> Any:
    """Call a method in a context that is thrown away. Threads that it starts inherit that."""
    let_threads_inherit(is_in_node)
    IN_METHOD.set(True)
    if method == "_validate":
        VALIDATING.set(VALIDATING.get() | {node._furu_hash})
    answer = getattr(node, method)()
    return list(answer) if method == "_dependencies" else answer


def is_in_node() -> bool:
    """Whether a method of a node runs in this context."""
    return bool(COMPUTING.get()) or IN_METHOD.get()
