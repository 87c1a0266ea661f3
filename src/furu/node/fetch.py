"""`get()`: load a node, compute it, wait for it, or raise an error, depending on the context.

Workers, too, compute their nodes by calling `fetch`, with `force=True`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import anyio

from furu._common.loops import in_own_thread, in_thread
from furu._common.steps import uninterrupted
from furu.context import EXEC_CONTEXT, ExecContext
from furu.errors import (
    FuruComputeError,
    FuruCycleError,
    FuruError,
    FuruInProgressError,
    FuruMissingArtifactError,
    FuruSpecMismatchError,
)
from furu.node.base import Node, artifact_of, describe
from furu.node.compute import Fetched, acompute, compute
from furu.node.dependencies import dependencies, growing_dependencies, postorder
from furu.node.hooks import ask
from furu.node.load import exists, load
from furu.node.questions import QUESTION, Question
from furu.node.waiting import COMPUTING, Wait
from furu.store.attempt import running_attempt
from furu.store.claim import when_released

T = TypeVar("T")

# How often an interactive get() checks a node that another process computes. Runs have an option for this.
_INTERACTIVE_POLL_SEC = 0.05


def fetch(node: Node[T], force: bool) -> Fetched[T]:
    """Load a node's value, or compute it if the context allows that. See `Furu.get`."""
    if type(node)._facts.is_input:
        return Fetched(node._read_input(), computed=False)
    if (question := QUESTION.get()) is not None:
        return _look(node, question)
    context = EXEC_CONTEXT.get()
    if context.mode == "executor":
        if force and _is_given(node, context):
            return compute(node)
        return _load_in_worker(node, force, context)
    for missing in postorder(node, _missing):
        _refuse_circle(missing)
        made = _compute_when_free(missing)
        if missing is node:
            return made
    return Fetched(load(node), computed=False)  # it was DONE already


async def afetch(node: Node[T], force: bool) -> Fetched[T]:
    """Like `fetch`, for async code."""
    if type(node)._facts.is_input:
        return Fetched(await in_thread(node._read_input), computed=False)
    if (question := QUESTION.get()) is not None:
        return await in_own_thread(_look, node, question)
    context = EXEC_CONTEXT.get()
    if context.mode == "executor":
        if force and _is_given(node, context):
            return await acompute(node)
        return await in_own_thread(_load_in_worker, node, force, context)
    order = postorder(node, _missing)
    while (missing := await in_own_thread(next, order, None)) is not None:
        _refuse_circle(missing)
        made = await _acompute_when_free(missing)
        if missing is node:
            return made
    return Fetched(await in_own_thread(load, node), computed=False)  # it was DONE already


def _look(node: Node[T], question: Question) -> Fetched[T]:
    """Load a node that `_dependencies()` asks for. Raises `NotDone` if the node is not done."""
    if question.may_read(node) and exists(node):
        with contextlib.suppress(FuruMissingArtifactError):  # it was removed at this moment
            found = Fetched(load(node), computed=False)
            question.seen[node._furu_hash] = node
            return found
    raise question.must_wait(node)


def _compute_when_free(node: Node[T]) -> Fetched[T]:
    while True:
        try:
            return compute(node)
        except FuruInProgressError:
            _wait_until_released(node)


def _wait_until_released(node: Node[Any]) -> None:
    """Wait until this process releases a node. If another process holds the node, only wait a moment.

    Raises `FuruCycleError` if the node waits for a node that is being computed in this context.
    """
    released = threading.Event()
    take_back = uninterrupted(when_released, artifact_of(node), released.set)
    if take_back is None:
        time.sleep(_INTERACTIVE_POLL_SEC)
        return
    wait = Wait()
    try:
        uninterrupted(wait.begin, node)
        released.wait()
    finally:
        uninterrupted(wait.end)
        uninterrupted(take_back)


async def _acompute_when_free(node: Node[T]) -> Fetched[T]:
    wait: Wait | None = None
    try:
        while True:
            try:
                return await acompute(node)
            except FuruInProgressError:
                if wait is None and await in_thread(_is_computed_here, node):
                    wait = Wait()
                    wait.begin(node)
                await anyio.sleep(_INTERACTIVE_POLL_SEC)
    finally:
        if wait is not None:
            wait.end()


def _is_computed_here(node: Node[Any]) -> bool:
    return running_attempt(artifact_of(node)) is not None


def _is_given(node: Node[Any], context: ExecContext) -> bool:
    """Whether this is the node that the worker was given, and needs this kind of worker."""
    given = context.current_node_hash == node._furu_hash
    return given and context.spec_key == ask(node, "_executor_spec_key")


def _load_in_worker(node: Node[T], force: bool, context: ExecContext) -> Fetched[T]:
    """Load a node that this worker must not compute. If it is missing, raise an error with the reason."""
    with contextlib.suppress(FuruMissingArtifactError):
        return Fetched(load(node), computed=False)
    spec_key = ask(node, "_executor_spec_key")
    if force and spec_key != context.spec_key:
        raise FuruSpecMismatchError(
            f"{describe(node)} needs a worker of kind {spec_key!r}, and this one is {context.spec_key!r}. "
            "Declare it as a dependency and use .get(), so that the run computes it where it belongs.",
            node=node,
            spec_key=spec_key,
            worker_spec_key=context.spec_key or "",
        )
    asker = _asker()
    if force:
        raise FuruError(
            f"get(force=True) of {describe(node)} is refused: this worker was given "
            f"{describe(asker) if asker else context.current_node_hash}, and computes nothing else. "
            "Declare the node as a dependency and use .get()."
        )
    raise _missing_artifact(node, asker)


def _missing_artifact(node: Node[Any], asker: Node[Any] | None) -> FuruMissingArtifactError:
    asked = f"{describe(asker)} asked for it" if asker else "it was asked for inside a worker"
    if asker is not None and asker == node:
        advice = "A node cannot get() itself while it is being computed."
    elif asker is not None and node in dependencies(asker):
        advice = (
            "It is a dependency now, but was not declared when this run began, or it was removed "
            "during the run. Run again; _dependencies() should return the same nodes each time."
        )
    else:
        name = type(asker).__qualname__ if asker else "the class that needs it"
        advice = (
            f"Make it a field of {name}, or add this to {name}:\n"
            f"    def _dependencies(self): return [{describe(node)}]"
        )
    return FuruMissingArtifactError(
        f"{describe(node)} has no artifact, and {asked}. {advice}", node=node, asked_by=asker
    )


def _refuse_circle(node: Node[Any]) -> None:
    """Raise `FuruCycleError` if undeclared `get()` calls lead from a node's `_create` back to the node."""
    stack = COMPUTING.get()
    if node in stack:
        cycle = [*stack[stack.index(node) :], node]
        shown = " -> ".join(describe(one) for one in cycle)
        raise FuruCycleError(f"the _create() of these nodes get() each other: {shown}", cycle=cycle)


def _asker() -> Node[Any] | None:
    stack = COMPUTING.get()
    return stack[-1] if stack else None


def _missing(node: Node[Any]) -> Iterator[Node[Any]] | None:
    return None if exists(node) else growing_dependencies(node, _failures_of)


def _failures_of(nodes: Iterable[Node[Any]]) -> dict[str, str]:
    """Compute nodes that may fail. Returns the failures by hash."""
    failures: dict[str, str] = {}
    for node in nodes:
        try:
            fetch(node, False)
        except FuruComputeError as error:
            failures[node._furu_hash] = str(error)
    return failures
