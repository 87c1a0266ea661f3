"""From roots to nodes, their edges and their statuses. Touches the disk, so it runs off the loop.

Works in bounded steps, each in one thread at a time; what a step found goes to the loop as plain facts.
Goes down only where something may have to be computed: a DONE node hides everything below it.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from furu._common.origin import class_name
from furu._common.text import a_type, sentence, shown
from furu.errors import Failure, FuruStoreError, FuruUsageError
from furu.execution.workers.base import Job, Lane
from furu.execution.workers.call import drop_frames
from furu.node.base import Node, artifact_of, describe, is_async
from furu.node.dependencies import ClassNames, dependencies, postorder
from furu.node.failure import compute_error
from furu.node.furu import Furu
from furu.node.load import look
from furu.node.load import status as status_of
from furu.store.artifact import Status, survey
from furu.store.record import EndedRecord

# A step ends after so many facts or so long, whichever is first: small enough that the first nodes
# start at once and that the loop takes a batch in a millisecond or two.
_STEP_FACTS = 256
_STEP_SEC = 0.02


@dataclass(frozen=True, slots=True)
class Found:
    """A node and what the store says of it. For one that is TODO what it depends on, found before; for one
    that is FAILED how it failed, earlier or while it was looked at."""

    job: Job
    status: Status
    depends_on: tuple[str, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class RootRead:
    """A root was read from the caller's roots."""

    key: str
    node_class: str
    number: int


@dataclass(frozen=True, slots=True)
class RootWalked:
    """Everything at and below a root has been found."""

    key: str


Fact = Found | RootRead | RootWalked


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step found. `idle`: nothing is left to walk until there is room for more roots;
    `exhausted`: there are no more roots, because they ended or because reading them raised `error`."""

    facts: list[Fact]
    idle: bool
    exhausted: bool
    error: BaseException | None = None


class Source(Protocol):
    """Where a scheduler gets its nodes from: a walk, or what an earlier walk has found."""

    def step(self, room: int | None, again: Sequence[Node[Any]] = ()) -> Batch:
        """Return what is found next, reading at most `room` roots."""
        ...

    def forget(self, key: str) -> None:
        """A node is done."""
        ...

    def stop(self) -> None:
        """End every step soon."""
        ...


class Discovery:
    """Walks the graph under the roots. `step` in a worker thread; `forget` and `stop` from anywhere.

    With `remember` a node is looked at once in a run; without it a node is forgotten when it is done,
    so that a generator of roots runs in the memory of its window. With `retry_failed` a node that
    failed before counts as TODO. With `thorough` every node's status is looked up exactly.
    `before_work` is called once, before the first TODO node is returned.

    Whatever one of a node's own methods raises, or the store about its directory, is that node's failure.
    """

    def __init__(
        self,
        roots: Iterable[Node[Any]],
        *,
        remember: bool,
        retry_failed: bool,
        thorough: bool = False,
        before_work: Callable[[], object] | None = None,
    ) -> None:
        self._roots = enumerate(roots)
        self._remember = remember
        self._retry_failed = retry_failed
        # One stat tells whether a node is done. Why it is not costs a listing, and a claim finds that
        # out by itself; only where an earlier failure is to end the run does it matter now.
        self._thorough = thorough or not retry_failed
        self._before_work = before_work
        self._known: set[str] = set()
        self._classes = ClassNames()
        self._again: deque[Node[Any]] = deque()
        self._walk: Iterator[Fact] | None = None
        self._room: int | None = 0
        self._exhausted = False
        self._roots_error: BaseException | None = None
        self._stopped = False

    def step(self, room: int | None, again: Sequence[Node[Any]] = ()) -> Batch:
        """Walk on for a bounded time, reading at most `room` roots (None: any number), and looking
        anew, thoroughly, at the nodes in `again`.

        Raises `FuruCycleError`, and `FuruStoreError` if the store cannot be used. What reading the roots
        raises, `FuruUsageError` for a root that is not a node included, ends the roots.
        """
        self._room = room
        self._again.extend(again)
        facts: list[Fact] = []
        deadline = time.monotonic() + _STEP_SEC
        try:
            while len(facts) < _STEP_FACTS and time.monotonic() < deadline:
                if self._walk is None:
                    self._walk = self._next_walk()
                    if self._walk is None:
                        return Batch(facts, True, self._exhausted, self._roots_error)
                fact = next(self._walk, None)
                if fact is None:
                    self._walk = None
                    continue
                facts.append(fact)
        except _Stopped:
            return Batch([], True, True)
        return Batch(facts, False, self._exhausted, self._roots_error)

    def forget(self, key: str) -> None:
        """A node is done: a later root that reaches it looks at it anew, unless all is remembered."""
        if not self._remember:
            self._known.discard(key)

    def stop(self) -> None:
        """End the step that is running, and every later one, as soon as it looks at another node."""
        self._stopped = True

    def _next_walk(self) -> Iterator[Fact] | None:
        if self._again:
            node = self._again.popleft()
            self._known.discard(node.furu_hash)
            return self._below(node, again=node.furu_hash)
        if self._exhausted or self._room == 0:
            return None
        try:
            item = next(self._roots, None)
            if item is not None:
                check_root(item[1], item[0])
        except BaseException as error:  # of the caller's own: raised when what was found has been computed
            self._roots_error, item = error, None
        if item is None:
            self._exhausted = True
            return None
        number, root = item
        if self._room is not None:
            self._room -= 1
        return self._from_root(root, number)

    def _from_root(self, root: Node[Any], number: int) -> Iterator[Fact]:
        self._classes.add(root)
        yield RootRead(root.furu_hash, class_name(type(root)), number)
        yield from self._below(root)
        yield RootWalked(root.furu_hash)

    def _below(self, top: Node[Any], again: str | None = None) -> Iterator[Fact]:
        """Find what is at and below a node. The node whose hash is `again` is looked at thoroughly."""
        found: deque[Found] = deque()
        todo: dict[str, Found] = {}

        def visit(node: Node[Any]) -> list[Node[Any]] | None:
            if self._stopped:
                raise _Stopped
            key = node.furu_hash
            if key in self._known:
                return None
            self._known.add(key)
            try:
                fact, below = self._look_at(node, thorough=self._thorough or key == again)
            except BaseException as error:  # whatever a method of the node's own raises, an exit too
                fact, below = self._failed(node, error), None
            if below is None:
                found.append(fact)
            else:
                todo[key] = fact
            return below

        for node in postorder(top, visit, self._classes):
            while found:
                yield found.popleft()
            self._begin_work()
            yield todo.pop(node.furu_hash)
        yield from found

    def _look_at(self, node: Node[Any], *, thorough: bool) -> tuple[Found, list[Node[Any]] | None]:
        """Return a node's state, and for one that is TODO what to look at before it."""
        status = self._status(node, thorough=thorough)
        if status is Status.TODO:
            below = dependencies(node)
            keys = tuple([dependency.furu_hash for dependency in below])
            return Found(_job(node), status, keys), below
        if status is Status.DONE:
            self.forget(node.furu_hash)
            return Found(_idle_job(node), status), None
        if status is Status.FAILED:
            return Found(_idle_job(node), status, failure=_earlier_failure(node)), None
        return Found(_job(node), status), None

    def _failed(self, node: Node[Any], error: BaseException) -> Found:
        if isinstance(error, FuruStoreError):
            self._begin_work()  # a store that cannot be used at all is not this node's failure
        drop_frames(error)
        failed = compute_error(node, error, Path(artifact_of(node).files.directory))
        return Found(_idle_job(node), Status.FAILED, failure=failed.failures[0])

    def _begin_work(self) -> None:
        if self._before_work is not None:
            self._before_work()
            self._before_work = None

    def _status(self, node: Node[Any], *, thorough: bool) -> Status:
        if not thorough:
            return look(node)
        status = status_of(node)
        return Status.TODO if status is Status.FAILED and self._retry_failed else status


class _Stopped(Exception):
    """The run is ending, and what else could be found is not wanted."""


def check_root(root: object, number: int) -> None:
    """Raise `FuruUsageError` for a root that is not a node, saying what it is instead."""
    if isinstance(root, Furu):
        return
    if isinstance(root, type) and issubclass(root, Furu):
        fields = "..." if root.__dataclass_fields__ else ""
        what = f"the class {root.__qualname__}; make a node of it: {root.__qualname__}({fields})"
    else:
        what = f"{a_type(root)}: {shown(root):.100}"
    raise FuruUsageError(f"every root must be a Furu node, and roots[{number}] is {what}")


def _job(node: Node[Any]) -> Job:
    spec_key = node._executor_spec_key()
    if not isinstance(spec_key, str) or not spec_key:
        raise FuruUsageError(
            f"{describe(node)}._executor_spec_key() must return a str that is not empty, not {spec_key!r}"
        )
    return Job(node, node.furu_hash, _lane(is_async(node), spec_key))


def _idle_job(node: Node[Any]) -> Job:
    """Return the job of a node that is not to be computed, whatever kind of worker it asks for."""
    return Job(node, node.furu_hash, _lane(False, "default"))


@functools.lru_cache
def _lane(is_async: bool, spec_key: str) -> Lane:
    """One for all its nodes: there are few, and a million nodes."""
    return Lane(is_async, spec_key)


def _earlier_failure(node: Node[Any]) -> Failure:
    """Return what the store holds of the last failure of a node that is FAILED."""
    artifact = artifact_of(node)
    found = survey(artifact)
    error = found.record.error if isinstance(found.record, EndedRecord) else "unknown"
    state_path = Path(artifact.files.attempt(max(found.attempt, 1)))
    message = (
        f"{describe(node)} failed in an earlier run: {sentence(error)} State: {state_path}. It is not "
        "tried again, because retry_failed is False."
    )
    return Failure(node, None, state_path, message)
