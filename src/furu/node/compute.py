"""Computation of one node: claim it, call `_create`, then publish the value or record the failure."""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

import anyio
import msgspec

from furu._common.logs import logging_to
from furu._common.loops import (
    in_own_thread,
    in_thread,
    is_being_cancelled,
    loop_is_running,
    run_in_new_loop,
    shielded,
)
from furu._common.steps import hand_over, uninterrupted
from furu._common.text import describe_error, sentence
from furu.codecs.typed import encode_result
from furu.context import EXEC_CONTEXT
from furu.errors import (
    FuruCancelledError,
    FuruError,
    FuruInProgressError,
    FuruResultError,
    FuruRunningLoopError,
    FuruStoreError,
    FuruUsageError,
)
from furu.node.base import (
    Node,
    artifact_of,
    configuration,
    describe,
    is_async,
    is_changed,
    overrides,
    refuse_unstorable,
)
from furu.node.failure import compute_error, timeout_error
from furu.node.hooks import call_method, is_in_node
from furu.node.load import is_rejected, load
from furu.node.questions import FAILED_INPUTS
from furu.node.threads import install as let_threads_inherit
from furu.node.waiting import COMPUTING
from furu.store.artifact import Done, FileId, Status, survey
from furu.store.attempt import Attempt, State
from furu.store.claim import in_progress, take
from furu.store.layout import PICKLE
from furu.store.partial import note_partial
from furu.store.record import StoredAs

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# Returns the context manager in which `_create` runs. Worker processes set this, to send a node's output to
# the log of its attempt.
AROUND_CREATE: ContextVar[Callable[[Attempt], AbstractContextManager[object]]] = ContextVar(
    "furu_around_create",
    default=nullcontext,
)


class Fetched(msgspec.Struct, Generic[T], frozen=True):
    """A node's value, whether it was computed for this call, and how long `_create` took."""

    value: T
    computed: bool
    create_sec: float = 0.0


def compute(node: Node[T]) -> Fetched[T]:
    """Claim and compute a node in this thread. Raises `FuruInProgressError` if another owner holds the
    node."""
    if is_async(node):
        return _run_alone(node)
    # In a copy of the context, so that context variables set here are reset, even after an error.
    return contextvars.copy_context().run(_compute_in_context, node)


def _compute_in_context(node: Node[T]) -> Fetched[T]:
    COMPUTING.set((*COMPUTING.get(), node))
    FAILED_INPUTS.set({})
    # `uninterrupted` shields a call from Ctrl-C, which Python raises only in the main thread. Workers do
    # not need it: they run in other threads, or ignore interrupts.
    step = uninterrupted if EXEC_CONTEXT.get().mode == "interactive" else _call
    attempt = _new_attempt(node)
    try:
        while not step(take, attempt, _rejection(node)):
            if not is_rejected(node):
                return Fetched(load(node), computed=False)
            attempt = _new_attempt(node)  # another artifact was published, and `_validate` rejects it too
        value = _create(node, attempt)
        made = _publish(node, attempt, value, step)
    except BaseException as error:
        _leave_fork(attempt, error)
        end = step(_end, attempt, error, _is_interrupt(error), configuration(node))
        return _after_end(node, attempt, error, end)
    finally:
        if attempt.state is not State.OVER:
            step(attempt.close)
    _refuse_invalid(node)
    return made


async def acompute(node: Node[T]) -> Fetched[T]:
    """Like `compute`, for async code: an async `_create` runs on the event loop, all other code in
    threads."""
    if not is_async(node):
        return await in_own_thread(compute, node)
    with _computing(node):
        attempt = await in_thread(_new_attempt, node)
        try:
            while not await shielded(take, attempt, await in_own_thread(_rejection, node)):
                if not await in_own_thread(is_rejected, node):
                    return Fetched(await in_own_thread(load, node), computed=False)
                attempt = await in_thread(_new_attempt, node)
            with logging_to(attempt.log):
                value = await _create_in_time(node)
            made = await shielded(_publish, node, attempt, value, _call)
        except BaseException as error:
            _leave_fork(attempt, error)
            cancelled = _is_interrupt(error) or _is_being_cancelled(error)
            # Handed over before the first await, because another cancellation may come there.
            step = hand_over(_end, attempt, error, cancelled, configuration(node))
            end = await shielded(step.wait)
            if end is _End.LOST:
                return await in_own_thread(_after_end, node, attempt, error, end)
            return _after_end(node, attempt, error, end)
        finally:
            if attempt.state is not State.OVER:
                hand_over(attempt.close)
        await in_own_thread(_refuse_invalid, node)
        return made


def _new_attempt(node: Node[Any]) -> Attempt:
    refuse_changed(node)
    refuse_unstorable(node)
    _ = type(node)._facts.provenance  # before `_create`, which may run while the user changes the source
    let_threads_inherit(is_in_node)
    attempt = Attempt(artifact_of(node))
    attempt.replaced = _replaced(node)
    return attempt


def _replaced(node: Node[Any]) -> FileId | None:
    """Return what identifies the artifact that a run computes again, if it still is the node's artifact."""
    context = EXEC_CONTEXT.get()
    if context.replaces is None or context.current_node_hash != node._furu_hash:
        return None
    return context.replaces if artifact_of(node).look_at_done()[1] == context.replaces else None


def _rejection(node: Node[Any]) -> Callable[[], bool] | None:
    """Return a function with which `take` checks, during its claim, whether `done` counts as missing.

    The function returns True if `done` has not changed since this call, which found it rejected by
    `_validate`, absent or damaged, or which the run computes again. Returns None if `done` is valid or the
    class defines no `_validate`. `_validate` runs here, in the caller's thread, so that no user code runs
    in the middle of a claim.
    """
    replaced = _replaced(node)
    if replaced is not None:
        return lambda: artifact_of(node).look_at_done()[1] == replaced
    if not overrides(type(node), "_validate"):
        return None
    artifact = artifact_of(node)
    done, judged = artifact.look_at_done()
    if done is Done.PUBLISHED and not is_rejected(node):
        return None
    return lambda: artifact.look_at_done() == (done, judged)


def _create(node: Node[T], attempt: Attempt) -> Any:
    with logging_to(attempt.log), AROUND_CREATE.get()(attempt):
        value = node._create()
    if not attempt.is_of_this_process:
        raise FuruUsageError(f"a fork of {describe(node)} returned from _create(): use os._exit()")
    if hasattr(type(value), "__await__"):  # the check of `Awaitable`, in a fifth of the time
        if inspect.iscoroutine(value):
            value.close()
        raise FuruUsageError(
            f"{describe(node)}._create() returned an awaitable. Define it as `async def _create`, and a "
            "decorator's wrapper as `async def` too, so that furu runs the node on the event loop."
        )
    return value


def _leave_fork(attempt: Attempt, error: BaseException) -> None:
    """Handle an error that leaves `_create` in a forked child process. The attempt belongs to the parent.

    In interactive code the child raises the error to the caller of `get()`, as it would without furu. In a
    worker the child exits, because it has no event loop and no other threads.
    """
    if attempt.is_of_this_process:
        return
    if EXEC_CONTEXT.get().mode == "executor":
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)
    raise error


async def _create_in_time(node: Node[Any]) -> Any:
    timeout_sec = node._timeout_sec
    if timeout_sec is None:
        return await _create_async(node)
    with anyio.move_on_after(timeout_sec) as scope:
        return await _create_async(node)
    if scope.cancelled_caught:
        raise timeout_error(node)
    raise AssertionError("a scope that caught nothing returned")


async def _create_async(node: Node[Any]) -> Any:
    value = node._create()
    return await value if isinstance(value, Awaitable) else value


def _run_alone(node: Node[T]) -> Fetched[T]:
    """Compute an async node from sync code."""
    if loop_is_running():
        raise FuruRunningLoopError(
            f"{describe(node)} has an async _create(), and this thread's event loop is running: "
            "use `await node.aget()` in place of node.get()"
        )
    return run_in_new_loop(acompute, node)


def refuse_changed(node: Node[Any]) -> None:
    """Raise `FuruError` if a node's fields have changed since its hash was computed."""
    if is_changed(node):
        raise FuruError(
            f"{describe(node)} was changed after it was made: a field no longer has the value that is "
            "in its hash. Do not modify the lists, dicts and sets in a node; make another node."
        )


def _publish(node: Node[T], attempt: Attempt, value: Any, step: Callable[..., bool]) -> Fetched[T]:
    """Store a value and publish it. Encoding runs in this thread, because it calls the value's methods.
    Publishing runs through `step`: `uninterrupted` if Ctrl-C may arrive in this thread, else `_call`."""
    create_sec = attempt.running_sec
    try:
        codec, content, value = _store(node, attempt, value)
    except FuruResultError as error:
        error.node = node
        raise
    made_by, missing = type(node)._facts.provenance, tuple(FAILED_INPUTS.get() or ())
    if missing:
        note_partial(attempt.artifact.settings)
        made_by = dataclasses.replace(made_by, missing=missing)
    published = step(attempt.publish, codec, content, configuration(node), made_by)
    return Fetched(value, True, create_sec) if published else _winner(node)


def _store(node: Node[T], attempt: Attempt, value: Any) -> tuple[StoredAs, bytes, T]:
    """Write a value as the class says. Returns how it is stored, its JSON, and the value that every later
    load returns."""
    cls = type(node)
    if overrides(cls, "_load"):
        return "load", b"null", _load_written(node)
    if cls._codec == "pickle":
        from furu.codecs.pickle import encode_pickle  # imports pickle, which few classes need

        content, loaded = encode_pickle(cls, value)
        Path(attempt.files_directory(), PICKLE).write_bytes(content)
        return "pickle", b"null", loaded
    max_bytes = attempt.artifact.settings.max_result_bytes
    return encode_result(cls, cls._facts.result_type, value, attempt.files_directory, max_bytes)


def _load_written(node: Node[T]) -> T:
    """Return what `_load` reads from the files that `_create` has just written."""
    try:
        return cast(T, contextvars.copy_context().run(call_method, node, "_load"))
    except Exception as error:
        raise FuruResultError(
            f"{type(node).__qualname__}._load() cannot read what _create() has written: "
            f"{sentence(describe_error(error))} Nothing was published."
        ) from error


def _call(function: Callable[[*Ts], R], *args: *Ts) -> R:
    return function(*args)


def _winner(node: Node[T]) -> Fetched[T]:
    """Load the value of a node that another owner took over from this attempt.

    Raises `FuruInProgressError` if that owner has not finished, and `FuruStoreError` if the node was
    removed from the store instead.
    """
    artifact = artifact_of(node)
    if artifact.is_done():
        return Fetched(load(node), computed=False)
    seen = survey(artifact)
    if seen.status is Status.IN_PROGRESS:
        raise in_progress(artifact, seen.attempt, seen.record)
    raise FuruStoreError(
        f"{describe(node)} was removed from the store while it was being computed. Run again to compute "
        f"it. Its artifact: {artifact.files.done}",
        path=Path(artifact.files.done),
    )


class _End(enum.Enum):
    """The outcome of an attempt that did not publish."""

    NOT_HELD = enum.auto()
    LOST = enum.auto()
    CANCELLED = enum.auto()
    FAILED = enum.auto()


def _is_interrupt(error: BaseException) -> bool:
    """Whether an error is an interruption rather than a failure of the node. `FuruCancelledError` always
    is; errors such as KeyboardInterrupt are interruptions only in interactive code."""
    interrupted = not isinstance(error, Exception) and EXEC_CONTEXT.get().mode == "interactive"
    return interrupted or isinstance(error, FuruCancelledError)


def _end(attempt: Attempt, error: BaseException, cancelled: bool, config: dict[str, Any]) -> _End:
    """End an attempt that did not publish. Runs as a step, so it must not call methods of the user's
    class."""
    if attempt.state is not State.HELD:
        attempt.close()
        return _End.NOT_HELD
    if not cancelled and attempt.is_lost:
        attempt.close()
        return _End.LOST
    state_path = attempt.state_path
    unwritten = attempt.end("cancelled" if cancelled else "failed", error, config)
    if unwritten is not None:
        error.add_note(f"furu could not record this in {state_path}: {describe_error(unwritten)}")
    return _End.CANCELLED if cancelled else _End.FAILED


def _after_end(node: Node[T], attempt: Attempt, error: BaseException, end: _End) -> Fetched[T]:
    """Raise the error of an attempt that ended, or load the value if another owner has published it."""
    if end in (_End.NOT_HELD, _End.CANCELLED):
        raise error
    failure: BaseException = compute_error(node, error, attempt.state_path)
    if end is _End.LOST:  # the node was taken over or removed, which may have caused the error
        try:
            return _winner(node)
        except (FuruInProgressError, FuruStoreError) as problem:
            failure = problem if isinstance(error, OSError) else failure
    try:
        raise failure from error
    finally:
        del failure  # its traceback refers to this frame


def _is_being_cancelled(error: BaseException) -> bool:
    """Whether an error is the cancellation of this task. A node may raise the same exception itself."""
    return isinstance(error, anyio.get_cancelled_exc_class()) and is_being_cancelled()


def _refuse_invalid(node: Node[Any]) -> None:
    """Raise an error if `_validate` rejects a new artifact. Otherwise every run would compute the node
    again."""
    if is_rejected(node):
        error = FuruError(f"{type(node).__qualname__}._validate() rejects the artifact of _create()")
        raise compute_error(node, error, Path(artifact_of(node).files.done)) from error


@contextmanager
def _computing(node: Node[Any]) -> Iterator[None]:
    token, inputs_token = COMPUTING.set((*COMPUTING.get(), node)), FAILED_INPUTS.set({})
    try:
        yield
    finally:
        FAILED_INPUTS.reset(inputs_token)
        COMPUTING.reset(token)
