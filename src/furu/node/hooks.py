"""Calls of the hooks of users' classes. An exception in a hook is a failure of the node."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncIterable, Awaitable
from contextvars import ContextVar
from typing import Any

from furu._common.loops import run_in_new_loop
from furu._common.text import describe_error
from furu.errors import FuruError
from furu.node.base import Node, describe, overrides
from furu.node.questions import QUESTION, NotDone, Question
from furu.node.threads import install as let_threads_inherit
from furu.node.waiting import COMPUTING

# Hashes of the nodes whose `_validate` is running in this context. Meanwhile they count as valid, because
# `_validate` may load the published artifact.
VALIDATING: ContextVar[frozenset[str]] = ContextVar("furu_validating", default=frozenset())
# Whether a hook other than `_create` is running in this context.
IN_METHOD: ContextVar[bool] = ContextVar("furu_in_method", default=False)


def ask(node: Node[Any], method: str) -> Any:
    """Call a hook other than `_dependencies`. If the hook raises, raise a `FuruError` that names the
    node."""
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
    return getattr(node, method)()


def ask_dependencies(node: Node[Any], question: Question) -> list[Any]:
    """Return what `_dependencies()` returns. If the question then awaits nodes, return what was yielded
    before it asked for them.

    Blocks, also for an `async def`. If the hook raises for another reason than a missing value, raises a
    `FuruError` that names the node.
    """
    added: list[Any] = []
    try:
        contextvars.copy_context().run(_collect, node, question, added)
    except NotDone:
        pass
    except BaseExceptionGroup as group:  # of an async `_dependencies` with several tasks
        if not question.awaited or group.subgroup((KeyboardInterrupt, SystemExit)) is not None:
            raise
    except Exception as error:
        if not question.awaited:  # otherwise the error may come from the missing value
            raise FuruError(f"{describe(node)}._dependencies() raised {describe_error(error)}") from error
        added.clear()
    else:
        if question.awaited:  # it has caught `NotDone`, so it went on without the value
            added.clear()
    return added


def _collect(node: Node[Any], question: Question, added: list[Any]) -> None:
    let_threads_inherit(is_in_node)
    IN_METHOD.set(True)
    QUESTION.set(question)
    answer: Any = node._dependencies()
    if inspect.iscoroutine(answer):
        answer = run_in_new_loop(_awaited, answer)
    if isinstance(answer, AsyncIterable):
        run_in_new_loop(_collect_async, answer, added)
    else:
        for item in answer:  # a generator may raise after some items
            added.append(item)


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


async def _collect_async(answer: AsyncIterable[Any], added: list[Any]) -> None:
    async for item in answer:
        added.append(item)


def is_in_node() -> bool:
    """Whether `_create` or another hook of a node is running in this context."""
    return bool(COMPUTING.get()) or IN_METHOD.get()
