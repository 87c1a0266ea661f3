"""Calls of the hooks of users' classes. An exception in a hook is a failure of the node."""

from __future__ import annotations

import contextvars
from contextvars import ContextVar
from typing import Any

from furu._common.text import describe_error
from furu.errors import FuruError
from furu.node.base import Node, describe, overrides
from furu.node.threads import install as let_threads_inherit
from furu.node.waiting import COMPUTING

# Hashes of the nodes whose `_validate` is running in this context. Meanwhile they count as valid, because
# `_validate` may load the published artifact.
VALIDATING: ContextVar[frozenset[str]] = ContextVar("furu_validating", default=frozenset())
# Whether a hook other than `_create` is running in this context.
IN_METHOD: ContextVar[bool] = ContextVar("furu_in_method", default=False)


def ask(node: Node[Any], method: str) -> Any:
    """Call a hook. If the hook raises, raise a `FuruError` that names the node.

    The result of `_dependencies` is converted to a list, because it may be a generator, which could raise
    later.
    """
    if not overrides(type(node), method):
        return getattr(node, method)()
    try:
        return contextvars.copy_context().run(call_method, node, method)
    except Exception as error:
        raise FuruError(f"{describe(node)}.{method}() raised {describe_error(error)}") from error


def call_method(node: Node[Any], method: str) -> Any:
    """Call a hook. Must be called in a copy of the context, which threads that the hook starts inherit."""
    let_threads_inherit(is_in_node)
    IN_METHOD.set(True)
    if method == "_validate":
        VALIDATING.set(VALIDATING.get() | {node._furu_hash})
    answer = getattr(node, method)()
    return list(answer) if method == "_dependencies" else answer


def is_in_node() -> bool:
    """Whether `_create` or another hook of a node is running in this context."""
    return bool(COMPUTING.get()) or IN_METHOD.get()
