"""Furu: a computation as a small frozen class, its identity, and getting its value.

Knows the store and the context that the code runs in; knows nothing of plans and schedulers. What a
worker does with one node (claim, compute, publish or record) is here too, so that interactive code and
every kind of worker do the same.
"""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import functools
import inspect
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    TypeVarTuple,
    cast,
    dataclass_transform,
)

import anyio

from furu.class_settings import check_class_settings
from furu.codec import decode_json, decode_pickle, encode_json, encode_pickle, result_type
from furu.context import EXEC_CONTEXT, ExecContext
from furu.dependencies import nodes_within, postorder
from furu.errors import (
    Failure,
    FuruCancelledError,
    FuruComputeError,
    FuruCycleError,
    FuruError,
    FuruInProgressError,
    FuruLoadError,
    FuruMissingArtifactError,
    FuruResultError,
    FuruRunningLoopError,
    FuruSpecMismatchError,
    FuruStoreError,
    FuruTimeoutError,
    FuruUsageError,
)
from furu.identity import Identified, all_fields, node_hash
from furu.logs import NodeLogger, logging_to
from furu.loops import (
    in_own_thread,
    in_thread,
    is_being_cancelled,
    loop_is_running,
    run_in_new_loop,
    shielded,
)
from furu.node_threads import install as let_threads_inherit
from furu.origin import Origin, class_name, is_other_script, module_name, origin
from furu.retry import Retry
from furu.settings import Settings, current_settings
from furu.shapes import builtin_base
from furu.steps import hand_over, uninterrupted
from furu.store.artifact import Artifact, Done, Status, survey
from furu.store.attempt import Attempt, State, running_attempt
from furu.store.claim import claim, in_progress, take, when_released
from furu.store.layout import PICKLE, node_files
from furu.store.record import DoneRecord, EndedRecord
from furu.text import a_type, describe_error, readable_fields, sentence, shown
from furu.waiting import COMPUTING as _COMPUTING
from furu.waiting import Wait

T = TypeVar("T")
F = TypeVar("F")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# How often an interactive get() looks again at a node that another process computes. A run has a
# poll_interval_sec of its own.
_INTERACTIVE_POLL_SEC = 0.05

# How long a process that was killed may still hold its locks, and how often to look.
_DYING_SEC = 2.0
_DYING_POLL_SEC = 0.01

# Hashes of the nodes whose `_validate` is running in this context: for it, what is published is there.
_VALIDATING: ContextVar[frozenset[str]] = ContextVar("furu_validating", default=frozenset())

# Whether a method of a node's class, other than `_create`, is running in this context.
_IN_METHOD: ContextVar[bool] = ContextVar("furu_in_method", default=False)

# Whether a node is being shown in this context.
_SHOWING: ContextVar[bool] = ContextVar("furu_showing", default=False)

# What a worker puts around `_create`: a process has what the node prints go to its attempt's log.
AROUND_CREATE: ContextVar[Callable[[Attempt], AbstractContextManager[object]]] = ContextVar(
    "furu_around_create",
    default=nullcontext,
)

# Why a node has to be computed: nothing is there; `_validate` rejects what is; the last attempt failed,
# was cancelled, or ended with its process.
Reason = Literal["missing", "invalid", "failed", "cancelled", "interrupted"]


@dataclass_transform(
    eq_default=False,
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(dataclasses.field,),
)
class Furu(Identified, Generic[T]):
    """A cached computation of a `T`. Subclass it; the subclass is a frozen, keyword-only dataclass.

    A node is one configuration: a class, its `_version` and its field values. Equal configurations have
    the same `furu_hash` and share one artifact on disk. Nodes inside field values are its dependencies.
    A field made with `dataclasses.field(compare=False)` does not count, and neither does any attribute that
    is not a field: keep only what follows from the fields there, such as a `functools.cached_property`.

    Define `_create`, which computes the value and may write files under `furu_dir`. The value is stored
    as typed JSON unless the class defines `_load` too, or sets `_codec = "pickle"`.

    In a run, `_retry = Retry(...)` has a node that failed tried again, and `_timeout_sec` limits how long
    one attempt may take: an async node is cancelled, a process stopped; of a thread, which cannot be
    stopped, the overrun is reported, and `check_cancelled()` raises in it. Neither is part of identity.

    Raises `FuruIdentityError` at construction for a field value without a canonical form.

    >>> class Square(Furu[int]):
    ...     of: int
    ...     def _create(self) -> int:
    ...         return self.of ** 2
    >>> Square(of=7)
    Square(of=7)
    """

    _version: ClassVar[int | str] = 0
    _codec: ClassVar[Literal["json", "pickle"]] = "json"
    _retry: ClassVar[Retry | None] = None
    _timeout_sec: ClassVar[float | None] = None
    _facts: ClassVar[_ClassFacts]
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # every subclass is one

    def __init__(self) -> None:
        raise FuruUsageError("Furu is the base of computations, not one itself: subclass it")

    # ---- what a subclass defines ----

    def _create(self) -> T | Awaitable[T]:
        """Compute the value; `async def` is as good, and runs on the event loop."""
        raise FuruUsageError(f"{type(self).__qualname__} defines no _create()")

    def _load(self) -> T:
        """Read the value back from files in `furu_dir`, if the class stores it there itself."""
        raise FuruUsageError(f"{type(self).__qualname__} defines no _load()")

    def _validate(self) -> bool:
        """Return False if the published artifact is to count as missing."""
        return True

    def _dependencies(self) -> Iterable[Furu[Any]]:
        """Return nodes that `_create` needs and no field holds; those in fields are found anyway."""
        return ()

    def _executor_spec_key(self) -> str:
        """Return the kind of worker that the node needs. Not part of its identity."""
        return "default"

    # ---- what users call ----

    @property
    def furu_hash(self) -> str:
        """The identity of this configuration, 32 hexadecimal digits; the same in every process."""
        return self._furu_hash

    @property
    def furu_dir(self) -> Path:
        """The directory of the node's files.

        Inside `_create`: the running attempt's own, made on first use. Once published: the published
        attempt's. Before that: the last attempt's. Where no attempt has asked for one, it does not exist.

        A process that the node starts by other means than a fork gets the path from the node: ask for it in
        `_create` first, and pass it on.
        """
        artifact = self._artifact()
        attempt = _attempt_at(artifact)
        if attempt is not None:
            return Path(attempt.files_directory())
        record = artifact.read()
        if record is not None:
            return Path(artifact.files.directory, record.files or f"a{record.attempt}")
        found = survey(artifact)
        files = artifact.files_directory(found.attempt) if found.attempt else None
        return Path(files or f"{artifact.files.directory}/a{max(found.attempt, 1)}")

    @property
    def logger(self) -> logging.Logger:
        """A logger that writes to the running attempt's log file and passes on to the host's logging.

        The file is `furu.log` in `furu_dir` and gets every level; the host's logger, called
        ``furu.node.<module>.<Class>``, gets what its own level lets through.
        """
        artifact = self._artifact()

        def write_line() -> Any:
            attempt = _attempt_at(artifact)
            return attempt.log if attempt is not None else None

        cls = type(self)
        return NodeLogger(f"furu.node.{cls.__module__}.{cls.__qualname__}", write_line)

    def exists(self) -> bool:
        """Whether the artifact is published and, if the class defines `_validate`, valid."""
        return self._look() is Status.DONE

    def status(self) -> Status:
        """Return what the store says of this node: TODO, IN_PROGRESS, DONE or FAILED."""
        artifact = self._artifact()
        found = survey(artifact)
        if found.status is not Status.DONE:
            return found.status
        facts = type(self)._facts
        if facts.origin.is_script and facts.checked is not artifact.settings:
            _check_script(self, artifact)
        return Status.TODO if self._is_rejected() else Status.DONE

    def get(self, force: bool = False) -> T:
        """Return the value: load it, or compute it where that is allowed.

        In a user's own code a missing node is computed on the spot, after its missing declared
        dependencies, one after another in this thread. Inside a worker a missing node is an error,
        except that `force=True` computes the one node that the worker was given.

        Raises `FuruComputeError` if a node fails, `FuruMissingArtifactError` or
        `FuruSpecMismatchError` inside a worker, `FuruLoadError` if the artifact cannot be read back.
        """
        return self._fetch(force).value

    async def aget(self, force: bool = False) -> T:
        """`get()` for async code: computing and reading happen off the event loop, async nodes on it."""
        return (await self._afetch(force)).value

    @staticmethod
    def _setup_signal_handlers() -> None:
        """Let SIGTERM end a run as Ctrl-C does. For a program's own main thread; elsewhere nothing."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)

    # ---- how it works ----

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_bases(cls)
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
        # Furu's own do the same. Left here, they would make a needless @dataclass fail without a reason.
        del cls.__setattr__, cls.__delattr__
        cls._facts = _ClassFacts(cls)
        for name in cls._facts.field_names:
            if name in _RESERVED:
                raise FuruUsageError(
                    f"the field {cls.__qualname__}.{name} hides Furu's own {name}. Use another name; "
                    f"a setting of the class is written without a type: {name} = ..."
                )
        check_class_settings(cls)
        cls.__init__ = _sealing(cls.__init__)  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Furu):
            return NotImplemented
        return self._furu_hash == other._furu_hash

    def __hash__(self) -> int:
        return int(self._furu_hash[:15], 16)

    def __repr__(self) -> str:
        # Nodes inside a node are named only: written out, a ladder of diamonds has no end.
        if _SHOWING.get():
            return f"<{type(self).__qualname__} {self._furu_hash[:8]}>"
        return contextvars.copy_context().run(_show, self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_furu_hash"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        _seal(self)  # anew: `_version` may be another one here

    def _artifact(self) -> Artifact:
        settings, (module, qualname, name) = current_settings(), type(self)._facts.place
        files = node_files(settings.store, module, qualname, self._furu_hash)
        return Artifact(settings, files, name, self._furu_hash)

    def _look(self) -> Status:
        """DONE or TODO, at the price of one stat; `status()` also tells why a node is not done."""
        artifact = self._artifact()
        if not artifact.is_done():
            return Status.TODO
        facts = type(self)._facts
        if facts.origin.is_script and facts.checked is not artifact.settings:
            _check_script(self, artifact)
        return Status.TODO if self._is_rejected() else Status.DONE

    def _is_rejected(self) -> bool:
        if not _overrides(type(self), "_validate") or self._furu_hash in _VALIDATING.get():
            return False
        return not ask(self, "_validate")

    def _is_async(self) -> bool:
        return type(self)._facts.is_async

    def _fetch(self, force: bool) -> Fetched[T]:
        context = EXEC_CONTEXT.get()
        if context.mode == "executor":
            if force and _is_given(self, context):
                return _compute(self)
            return _load_in_worker(self, force, context)
        made: Fetched[T] | None = None
        for node in postorder(self, _missing):
            _refuse_circle(node)
            made = _compute_when_free(node)
        # postorder ends with this node, unless it was there already
        return made if made is not None else Fetched(load(self), computed=False)

    async def _afetch(self, force: bool) -> Fetched[T]:
        context = EXEC_CONTEXT.get()
        if context.mode == "executor":
            if force and _is_given(self, context):
                return await _acompute(self)
            return await in_own_thread(_load_in_worker, self, force, context)
        made: Fetched[T] | None = None
        order = postorder(self, _missing)
        while (node := await in_own_thread(next, order, None)) is not None:
            _refuse_circle(node)
            made = await _acompute_when_free(node)
        if made is None:
            made = Fetched(await in_own_thread(load, self), computed=False)
        return made


def _interrupt(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup, where SIGTERM is to work
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """A node's value, and whether it was computed for this call."""

    value: T
    computed: bool


def ask(node: Furu[Any], method: str) -> Any:
    """Call one of the methods that a class may define. Raises `FuruError`, naming the node, if it raises.

    What `_dependencies` returns is read here too, because it may be a generator.
    """
    if not _overrides(type(node), method):
        return getattr(node, method)()
    try:
        return contextvars.copy_context().run(_call_method, node, method)
    except Exception as error:
        raise FuruError(f"{describe(node)}.{method}() raised {describe_error(error)}") from error


def _call_method(node: Furu[Any], method: str) -> Any:
    """Call a method in a context that is thrown away. Threads that it starts inherit that."""
    let_threads_inherit(_is_in_node)
    _IN_METHOD.set(True)
    if method == "_validate":
        _VALIDATING.set(_VALIDATING.get() | {node._furu_hash})
    answer = getattr(node, method)()
    return list(answer) if method == "_dependencies" else answer


def dependencies(node: Furu[Any]) -> list[Furu[Any]]:
    """Return a node's dependencies, each once: those in its fields, then those it adds."""
    values = list((all_fields(node) or {}).values())
    if not _overrides(type(node), "_dependencies"):
        return nodes_within(values, Furu)
    added = ask(node, "_dependencies")
    for one in added:
        if not isinstance(one, Furu):
            raise FuruUsageError(
                f"{describe(node)}._dependencies() returned {a_type(one)} among the nodes: {shown(one)}"
            )
    return nodes_within([*values, *added], Furu)


def describe(node: Furu[Any]) -> str:
    """Show a node in a message: its class and fields, cut where they are long. Never raises."""
    try:
        text = repr(node)
    except Exception as error:  # of a `__repr__` of the class's own
        name = f"{type(node).__qualname__} {node._furu_hash[:8]}"
        return f"<{name}, whose __repr__() raised {type(error).__name__}>"
    return text if len(text) <= 300 else f"{text[:297]}..."


def load(node: Furu[T]) -> T:
    """Return the value of a published node. Raises `FuruMissingArtifactError` or `FuruLoadError`."""
    artifact = node._artifact()
    record = artifact.read()
    if record is None:
        raise FuruMissingArtifactError(f"{describe(node)} has no artifact any more", node=node)
    return _decode(node, artifact, record)


def _decode(node: Furu[T], artifact: Artifact, record: DoneRecord) -> T:
    cls = type(node)
    if record.source != cls._facts.origin.file:
        _refuse_other_script(node, artifact, record)
    try:
        if record.codec == "load":
            return cast(T, contextvars.copy_context().run(_call_method, node, "_load"))
        if record.codec == "json":
            value: T = decode_json(cls, cls._facts.result_type, record.result)
            return value
        if cls._codec != "pickle":
            raise FuruUsageError("it is stored as a pickle, and the class does not set _codec = 'pickle'")
        unpickled: T = decode_pickle(f"{artifact.files.directory}/{record.files}/{PICKLE}")
        return unpickled
    except Exception as error:
        raise FuruLoadError(
            f"{describe(node)} is stored but could not be read back: {sentence(describe_error(error))} "
            f"Artifact: {artifact.files.done}. If the class has changed, raise its _version; to compute "
            f"it anew, remove {artifact.files.directory}",
            path=Path(artifact.files.done),
            node=node,
        ) from error


# ---- computing one node: claim, _create, publish or record ----


def _compute(node: Furu[T]) -> Fetched[T]:
    """Claim and compute a node, here and now. Raises `FuruInProgressError` if another owner is at it."""
    if node._is_async():
        return _run_alone(node)
    # In a context of its own, which takes along whatever is set in it, however the computation ends.
    return contextvars.copy_context().run(_compute_in_context, node)


def _compute_in_context(node: Furu[T]) -> Fetched[T]:
    _COMPUTING.set((*_COMPUTING.get(), node))
    # A worker is not a main thread, or is that of a child in which an interrupt does nothing.
    step = uninterrupted if EXEC_CONTEXT.get().mode == "interactive" else _call
    attempt = _new_attempt(node)
    try:
        while not step(take, attempt, _rejection(node)):
            if not node._is_rejected():
                return Fetched(load(node), computed=False)
            attempt = _new_attempt(node)  # another one was published meanwhile, and is rejected too
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


async def _acompute(node: Furu[T]) -> Fetched[T]:
    """`_compute` on the event loop: an async `_create` runs on it, everything else in threads."""
    if not node._is_async():
        return await in_own_thread(_compute, node)
    with _computing(node):
        attempt = await in_thread(_new_attempt, node)
        try:
            while not await shielded(take, attempt, await in_own_thread(_rejection, node)):
                if not await in_own_thread(node._is_rejected):
                    return Fetched(await in_own_thread(load, node), computed=False)
                attempt = await in_thread(_new_attempt, node)
            with logging_to(attempt.log):
                value = await _create_in_time(node)
            made = await shielded(_publish, node, attempt, value, _call)
        except BaseException as error:
            _leave_fork(attempt, error)
            cancelled = _is_interrupt(error) or _is_being_cancelled(error)
            # Handed over before anything is awaited: another cancellation may come meanwhile.
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


def _new_attempt(node: Furu[Any]) -> Attempt:
    refuse_changed(node)
    let_threads_inherit(_is_in_node)
    return Attempt(node._artifact())


def _is_in_node() -> bool:
    return bool(_COMPUTING.get()) or _IN_METHOD.get()


def _rejection(node: Furu[Any]) -> Callable[[], bool] | None:
    """Judge what is published now; return whether that still is what is published.

    So `_validate` runs where its caller is, and nothing of the class's own runs in the middle of a claim.
    """
    if not _overrides(type(node), "_validate"):
        return None
    artifact = node._artifact()
    done, judged = artifact.look_at_done()
    if done is Done.PUBLISHED and not node._is_rejected():
        return None
    return lambda: artifact.look_at_done() == (done, judged)


def _create(node: Furu[T], attempt: Attempt) -> Any:
    with logging_to(attempt.log), AROUND_CREATE.get()(attempt):
        value = node._create()
    if not attempt.is_of_this_process:
        raise FuruUsageError(f"a fork of {describe(node)} returned from _create(): use os._exit()")
    if isinstance(value, Awaitable):
        if inspect.iscoroutine(value):
            value.close()
        raise FuruUsageError(
            f"{describe(node)}._create() returned an awaitable. Define it as `async def _create`, and a "
            "decorator's wrapper as `async def` too, so that furu runs the node on the event loop."
        )
    return value


def _leave_fork(attempt: Attempt, error: BaseException) -> None:
    """Leave a fork of the node's own that comes back out of `_create`. The attempt is its parent's.

    In a user's own code the error goes on to the code that forked, as without furu. A fork that comes back
    into a worker is ended: the loop and the other threads are not there.
    """
    if attempt.is_of_this_process:
        return
    if EXEC_CONTEXT.get().mode == "executor":
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)
    raise error


async def _create_in_time(node: Furu[Any]) -> Any:
    timeout_sec = node._timeout_sec
    if timeout_sec is None:
        return await _create_async(node)
    with anyio.move_on_after(timeout_sec) as scope:
        return await _create_async(node)
    if scope.cancelled_caught:
        raise timeout_error(node)
    raise AssertionError("a scope that caught nothing returned")


async def _create_async(node: Furu[Any]) -> Any:
    value = node._create()
    return await value if isinstance(value, Awaitable) else value


def timeout_error(node: Furu[Any]) -> FuruTimeoutError:
    """Say that a node took too long."""
    limit = node._timeout_sec or 0.0
    return FuruTimeoutError(
        f"{describe(node)} took longer than its _timeout_sec of {limit:g} s", node=node, timeout_sec=limit
    )


def _run_alone(node: Furu[T]) -> Fetched[T]:
    """Compute an async node from code that is not async."""
    if loop_is_running():
        raise FuruRunningLoopError(
            f"{describe(node)} has an async _create(), and this thread's event loop is running: "
            "use `await node.aget()` in place of node.get()"
        )
    return run_in_new_loop(_acompute, node)


def refuse_changed(node: Furu[Any]) -> None:
    """Raise `FuruError` for a node whose fields no longer have the values that its hash stands for."""
    if _hash_of(node) != node._furu_hash:
        raise FuruError(
            f"{describe(node)} was changed after it was made: a field no longer has the value that its "
            "hash stands for. Do not modify the lists, dicts and sets in a node; make another node."
        )


def _publish(node: Furu[T], attempt: Attempt, value: Any, step: Callable[..., bool]) -> Fetched[T]:
    """Encode a value, here, because that calls methods of its own; and publish it, by `step`."""
    cls = type(node)
    config, source = configuration(node), cls._facts.origin
    if _overrides(cls, "_load"):
        published = step(attempt.publish, "load", b"null", config, source)
    elif cls._codec == "pickle":
        content = _encode(node, attempt, value)[0]
        Path(attempt.files_directory(), PICKLE).write_bytes(content)
        published = step(attempt.publish, "pickle", b"null", config, source)
    else:
        content, value = _encode(node, attempt, value)
        published = step(attempt.publish, "json", content, config, source)
    return Fetched(value, computed=True) if published else _winner(node)


def _call(function: Callable[[*Ts], R], *args: *Ts) -> R:
    return function(*args)


def _winner(node: Furu[T]) -> Fetched[T]:
    """Load what another owner has published of a node that this attempt lost.

    Raises `FuruInProgressError` if that owner is not done yet, and `FuruStoreError` if there is none: the
    node was removed.
    """
    artifact = node._artifact()
    if artifact.is_done():
        return Fetched(load(node), computed=False)
    seen = survey(artifact)
    if seen.status is Status.IN_PROGRESS:
        raise in_progress(artifact, seen.attempt, seen.record)
    raise FuruStoreError(
        f"{describe(node)} was removed from the store while it was being computed. Run again to compute "
        f"it. Its directory: {artifact.files.directory}",
        path=Path(artifact.files.directory),
    )


def _encode(node: Furu[T], attempt: Attempt, value: T) -> tuple[bytes, T]:
    """Return a value as it is stored, and as it will be read back."""
    cls = type(node)
    try:
        if cls._codec == "pickle":
            return encode_pickle(cls, value), value
        return encode_json(cls, cls._facts.result_type, value, attempt.artifact.settings.max_result_bytes)
    except FuruResultError as error:
        error.node = node
        raise


class _End(enum.Enum):
    """What came of the end of an attempt that did not publish."""

    NOT_HELD = enum.auto()
    LOST = enum.auto()
    CANCELLED = enum.auto()
    FAILED = enum.auto()


def _is_interrupt(error: BaseException) -> bool:
    """Whether an error is not the node's: in a user's own code an interrupt is the user's. In a worker
    everything that a node raises is the node's, but for the end that its run has asked for."""
    interrupted = not isinstance(error, Exception) and EXEC_CONTEXT.get().mode == "interactive"
    return interrupted or isinstance(error, FuruCancelledError)


def _end(attempt: Attempt, error: BaseException, cancelled: bool, config: dict[str, Any]) -> _End:
    """End an attempt that did not publish. A step: it calls no method of the class's own."""
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


def _after_end(node: Furu[T], attempt: Attempt, error: BaseException, end: _End) -> Fetched[T]:
    """Raise what the end of an attempt comes to; or load what the one that it was lost to has published."""
    if end in (_End.NOT_HELD, _End.CANCELLED):
        raise error
    failure: BaseException = compute_error(node, error, attempt.state_path)
    if end is _End.LOST:  # taken over, or removed with its files: hence the error?
        try:
            return _winner(node)
        except (FuruInProgressError, FuruStoreError) as problem:
            failure = problem if isinstance(error, OSError) else failure
    try:
        raise failure from error
    finally:
        del failure  # it refers to this frame


def _is_being_cancelled(error: BaseException) -> bool:
    """Whether an error is how a task on this loop is cancelled; a node may raise the same by itself."""
    return isinstance(error, anyio.get_cancelled_exc_class()) and is_being_cancelled()


def end_of_dead(
    node: Furu[Any], outcome: Literal["failed", "cancelled"], error: BaseException, duration_sec: float
) -> FuruComputeError:
    """Say that a node failed, or was cancelled, because the process that computed it died; and record that
    in the store, if the process had come as far as an attempt and no other has taken the node since."""
    artifact = node._artifact()
    state_path = Path(artifact.files.directory)
    try:
        attempt = _claim_of_dead(artifact)
        if attempt is not None:
            try:
                number = attempt.end_before(outcome, error, configuration(node), duration_sec)
            finally:
                attempt.close()
            state_path = Path(artifact.files.attempt(number)) if number else state_path
    except (OSError, FuruError) as problem:  # taken over, or a lease is not over yet
        error.add_note(f"furu could not record this in {state_path}: {problem}")
    failure = compute_error(node, error, state_path)
    failure.__cause__ = error
    return failure


def _claim_of_dead(artifact: Artifact) -> Attempt | None:
    """Claim a node whose owner is known to be dead, or dying: connections close before locks go."""
    deadline = time.monotonic() + _DYING_SEC
    while True:
        try:
            return claim(artifact)
        except FuruInProgressError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_DYING_POLL_SEC)


def _refuse_invalid(node: Furu[Any]) -> None:
    """Fail a node whose own `_validate` rejects what it has just made: it would be made for ever."""
    if node._is_rejected():
        error = FuruError(f"{type(node).__qualname__}._validate() rejects what _create() has just made")
        raise compute_error(node, error, Path(node._artifact().files.done)) from error


def compute_error(node: Furu[Any], error: BaseException, state_path: Path) -> FuruComputeError:
    """Say that a node failed: which, with what, where its state is, and what to do."""
    text = f"failed: {sentence(describe_error(error))} State: {state_path}. Run again to retry."
    failure = Failure(node, error, state_path, f"{describe(node)} {text}")
    return FuruComputeError(failure.message, node=node, state_path=state_path, failures=[failure])


def earlier_failure(node: Furu[Any]) -> Failure:
    """Return what the store holds of the last failure of a node that is FAILED."""
    artifact = node._artifact()
    found = survey(artifact)
    error = found.record.error if isinstance(found.record, EndedRecord) else "unknown"
    state_path = Path(artifact.files.attempt(max(found.attempt, 1)))
    message = (
        f"{describe(node)} failed in an earlier run: {sentence(error)} State: {state_path}. It is not "
        "tried again, because retry_failed is False."
    )
    return Failure(node, None, state_path, message)


def why_missing(node: Furu[Any]) -> Reason:
    """Say why a node that is TODO is not DONE."""
    found = survey(node._artifact())
    if found.status is Status.DONE:
        return "invalid"
    if isinstance(found.record, EndedRecord):
        return found.record.outcome
    return "interrupted" if found.attempt else "missing"


def _compute_when_free(node: Furu[T]) -> Fetched[T]:
    while True:
        try:
            return _compute(node)
        except FuruInProgressError:
            _wait_until_released(node)


def _wait_until_released(node: Furu[Any]) -> None:
    """Wait until this process is no longer at a node, or for a moment where another process is.

    Raises `FuruCycleError` if the node waits for one that is computed in this context.
    """
    released = threading.Event()
    take_back = uninterrupted(when_released, node._artifact(), released.set)
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


async def _acompute_when_free(node: Furu[T]) -> Fetched[T]:
    wait: Wait | None = None
    try:
        while True:
            try:
                return await _acompute(node)
            except FuruInProgressError:
                if wait is None and await in_thread(_is_computed_here, node):
                    wait = Wait()
                    wait.begin(node)
                await anyio.sleep(_INTERACTIVE_POLL_SEC)
    finally:
        if wait is not None:
            wait.end()


def _is_computed_here(node: Furu[Any]) -> bool:
    return running_attempt(node._artifact()) is not None


def _is_given(node: Furu[Any], context: ExecContext) -> bool:
    """Whether this worker was given this very node to compute."""
    given = context.current_node_hash == node._furu_hash
    return given and context.spec_key == ask(node, "_executor_spec_key")


def _load_in_worker(node: Furu[T], force: bool, context: ExecContext) -> Fetched[T]:
    """Load a node that this worker is not to compute, or say why it may not be computed here."""
    artifact = node._artifact()
    record = artifact.read()
    if record is not None:
        return Fetched(_decode(node, artifact, record), computed=False)
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


def _missing_artifact(node: Furu[Any], asker: Furu[Any] | None) -> FuruMissingArtifactError:
    asked = f"{describe(asker)} asked for it" if asker else "it was asked for inside a worker"
    if asker is not None and asker == node:
        advice = "A node cannot get() itself while it is being computed."
    elif asker is not None and node in dependencies(asker):
        advice = (
            "It is a dependency by now, and was not declared when this run began, or something removed it "
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


def _refuse_circle(node: Furu[Any]) -> None:
    """Raise if a node's `_create` has led, through undeclared gets, to itself."""
    stack = _COMPUTING.get()
    if node in stack:
        cycle = [*stack[stack.index(node) :], node]
        shown = " -> ".join(describe(one) for one in cycle)
        raise FuruCycleError(f"the _create() of these nodes get() each other: {shown}", cycle=cycle)


@contextmanager
def _computing(node: Furu[Any]) -> Iterator[None]:
    token = _COMPUTING.set((*_COMPUTING.get(), node))
    try:
        yield
    finally:
        _COMPUTING.reset(token)


def _asker() -> Furu[Any] | None:
    stack = _COMPUTING.get()
    return stack[-1] if stack else None


def _missing(node: Furu[Any]) -> list[Furu[Any]] | None:
    return None if node.exists() else dependencies(node)


def _show(node: Furu[Any]) -> str:
    """Write a node out, in a context that is thrown away."""
    _SHOWING.set(True)
    fields = dataclasses.fields(node)
    parts = [f"{field.name}={shown(getattr(node, field.name, None))}" for field in fields if field.repr]
    return f"{type(node).__qualname__}({', '.join(parts)})"


def _attempt_at(artifact: Artifact) -> Attempt | None:
    """Return the attempt that runs here at a node, also in a fork of it, until the node is published."""
    attempt = running_attempt(artifact)
    if attempt is not None and not attempt.is_of_this_process and artifact.is_done():
        return None
    return attempt


def _check_script(node: Furu[Any], artifact: Artifact) -> None:
    """Read the first artifact of a script's class that is found in a store, because a run that loads none
    must not count another script's as its own. Every artifact is checked again when it is loaded."""
    try:
        record = artifact.read()
    except FuruStoreError:  # loading says what is wrong with the file
        return
    if record is not None:
        _refuse_other_script(node, artifact, record)
        type(node)._facts.checked = artifact.settings


def _refuse_other_script(node: Furu[Any], artifact: Artifact, record: DoneRecord) -> None:
    """Raise `FuruLoadError` for an artifact that another script of the same file name made."""
    facts = type(node)._facts
    own, other = facts.origin, Origin(facts.origin.module, record.source, record.from_script)
    if record.source != facts.accepted and is_other_script(own, other):
        raise FuruLoadError(
            f"{describe(node)} was computed by another file of the same name: {record.source}. The class "
            f"here is in {own.file}, and both are called {class_name(type(node))} in the store. Rename one "
            "of the files, give one of them another store (FURU_PATH or use_settings), or move the class "
            f"into a module that both import. Artifact: {artifact.files.done}",
            path=Path(artifact.files.done),
            node=node,
        )
    facts.accepted = record.source


# ---- classes ----


def _sealing(init: Any) -> Any:
    @functools.wraps(init)
    def sealed(self: Furu[Any], *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        # A base's constructor, called by one of the class's own, leaves the node unfinished.
        cls = type(self)
        if cls.__init__ is sealed:
            if cls.__dataclass_fields__ is not cls._facts.fields:
                raise _decorated(cls)
            _seal(self)

    return sealed


def _check_bases(cls: type[Furu[Any]]) -> None:
    if vars(cls).get("__slots__"):
        raise FuruUsageError(
            f"{cls.__qualname__} has slots, which a node cannot have. Remove __slots__, or "
            "@dataclass(slots=True)."
        )
    builtin = builtin_base(cls)
    if builtin is not None:
        raise FuruUsageError(
            f"{cls.__qualname__} is a {builtin.__name__} too, and what it holds as one would not count in "
            f"its hash. Give it a field that holds a {builtin.__name__} instead."
        )
    for base in cls.__bases__:
        facts = vars(base).get("_facts")
        if facts is not None and vars(base)["__dataclass_fields__"] is not facts.fields:
            raise _decorated(base)


def _decorated(cls: type[Furu[Any]]) -> FuruUsageError:
    return FuruUsageError(
        f"{cls.__qualname__} is decorated with @dataclass, which is not needed: a subclass of Furu is a "
        "frozen, keyword-only dataclass already. Remove the decorator."
    )


def _seal(node: Furu[Any]) -> None:
    vars(node)["_furu_hash"] = _hash_of(node)


def _hash_of(node: Furu[Any]) -> str:
    cls = type(node)
    return node_hash(node, cls._version, cls._facts.identity_names)


def configuration(node: Furu[Any]) -> dict[str, Any]:
    """Return a node's fields as plain JSON, as records hold them: without the values of those that are made
    with `repr=False`."""
    facts = type(node)._facts
    return readable_fields(node, facts.field_names, facts.hidden_names)


class _once(Generic[F]):  # noqa: N801  # used like a property
    """A property that is worked out once. In Python 3.11 the one of `functools` holds a lock, which a fork
    may copy while another thread holds it."""

    def __init__(self, work: Callable[[Any], F]) -> None:
        self._work = work

    def __get__(self, facts: Any, owner: type) -> F:
        value = vars(facts)[self._work.__name__] = self._work(facts)
        return value


class _ClassFacts:
    """What is worked out once for a class."""

    def __init__(self, cls: type[Furu[Any]]) -> None:
        fields = dataclasses.fields(cls)
        self.field_names = tuple(field.name for field in fields)
        self.hidden_names = tuple(field.name for field in fields if not field.repr)
        self.identity_names = tuple(sorted(field.name for field in fields if field.compare))
        self.fields = cls.__dataclass_fields__  # a second @dataclass replaces those of the class
        self.origin = origin(cls)
        # The settings whose store was checked for another script's artifacts, and the last other file
        # whose artifacts may be loaded.
        self.checked: Settings | None = None
        self.accepted: str | None = None
        self._cls = cls

    @_once
    def place(self) -> tuple[str, str, str]:
        """The module and qualified name under which artifacts lie, and the full name in their records."""
        return module_name(self._cls), self._cls.__qualname__, class_name(self._cls)

    @_once
    def is_async(self) -> bool:
        """Whether `_create` is an `async def`."""
        return inspect.iscoroutinefunction(self._cls._create)

    @_once
    def result_type(self) -> Any:
        """The T of `Furu[T]`; late, because it may name what is defined below the class."""
        return result_type(self._cls, Furu)


def _overrides(cls: type[Furu[Any]], name: str) -> bool:
    return getattr(cls, name) is not getattr(Furu, name)


# Annotated or not, these names are Furu's own: a field of that name would hide them.
_RESERVED = frozenset({"_furu_hash", *(name for name in dir(Furu) if not name.startswith("__"))})
