"""Walks the graph from its roots, and reports each node with its dependencies and its status.

The walk reads the disk, so it runs in a worker thread: in short steps, one at a time. Each step returns
plain facts for the loop to process. The dependencies of a DONE node are not visited.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from furu._common.text import a_type, sentence, shown
from furu.errors import Failure, FuruStoreError, FuruUsageError
from furu.execution.again import Again
from furu.execution.recompute import Recompute
from furu.execution.workers.base import Job, Lane, make_job
from furu.execution.workers.call import drop_frames
from furu.node.base import (
    Node,
    artifact_of,
    class_name_of,
    describe,
    is_async,
    may_be_partial,
    refuse_unstorable,
)
from furu.node.changes import CodeChanges, is_by_other_code
from furu.node.dependencies import (
    ClassNames,
    Dependencies,
    dependencies,
    postorder,
    refuse_lost_values,
)
from furu.node.failure import compute_error
from furu.node.furu import Furu
from furu.node.load import look
from furu.node.load import status as status_of
from furu.settings import current_settings
from furu.store.artifact import FileId, Status, is_being_replaced, survey
from furu.store.partial import has_partial, is_partial
from furu.store.record import EndedRecord

# A step returns after this many facts or this time, whichever comes first. Both limits are small, so that
# the first nodes start at once and the loop processes each batch within two milliseconds. The time is that
# of the interpreter's switch interval: a longer step would keep the interpreter's lock from the loop. While
# a step has only a few facts, it may take longer, so that a small graph is planned as a whole.
_STEP_FACTS = 768
_STEP_SEC = 0.005
_FEW_FACTS = 32
_STEP_OF_FEW_SEC = 0.02


class Found(msgspec.Struct, frozen=True):
    """A node and its status. For a TODO node, `depends_on` lists the keys of its dependencies, which were
    all found earlier, and `expected_sec` is its expected duration. `awaits` are those among them for whose
    values `_dependencies()` has asked: once they are done, or have failed if they `may_fail`, the node must
    be looked at again, because it may have more dependencies. For a FAILED node, `failure` describes the
    failure, which occurred in an earlier run or in this walk."""

    job: Job
    status: Status
    depends_on: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()
    may_fail: bool = False
    failure: Failure | None = None
    expected_sec: float = 1.0


class RootRead(msgspec.Struct, frozen=True):
    """A root has been read from the caller's iterable, as item `number`."""

    key: str
    node_class: str
    number: int


class RootWalked(msgspec.Struct, frozen=True):
    """The walk from one root is complete: the root and the nodes below it have been found."""

    key: str


Fact = Found | RootRead | RootWalked


class Batch(msgspec.Struct, frozen=True):
    """The facts that one step found. `idle` means that nothing is left to walk until the window has room
    for more roots. `exhausted` means that no more roots will be read, because all have been read or because
    reading them raised `error`."""

    facts: list[Fact]
    idle: bool
    exhausted: bool
    error: BaseException | None = None


class Source(Protocol):
    """The source of a scheduler's nodes: a walk of the graph, or the recorded facts of an earlier walk."""

    def step(self, room: int | None, again: Sequence[Node[Any]] = ()) -> Batch:
        """Return the next batch of facts, and read at most `room` roots for it."""
        ...

    def forget(self, key: str) -> None:
        """Record that a node is done."""
        ...

    def failed(self, key: str, error: str) -> None:
        """Record that a node has failed, or is lost because another has."""
        ...

    def stop(self) -> None:
        """Make the current step, and every later one, return soon."""
        ...


class Discovery:
    """Walks the graph below the roots. Call `step` in a worker thread, `forget` and `stop` in any thread.

    With `remember`, each node is visited once in a run. Without `remember`, a node is forgotten when it is
    done, so that a run over a generator of roots keeps only the nodes below the active roots in memory.
    With `retry_failed`, nodes that failed in an earlier run count as TODO. With `thorough`, the exact
    status of every node is read. `before_work` is called once, before the first TODO node is returned.
    `expected_sec` returns the expected duration of a node, given the name of its class. `changes` compares
    the code that made reused artifacts with the code of their classes. If it recomputes, nodes whose
    artifacts were made by other code count as TODO, and so do nodes that `again` includes, and nodes that
    depend on any of these.

    An exception that is raised by a node's own methods, or by the store when it reads the node's files,
    becomes that node's failure.
    """

    def __init__(
        self,
        roots: Iterable[Node[Any]],
        *,
        remember: bool,
        retry_failed: bool,
        thorough: bool = False,
        before_work: Callable[[], object] | None = None,
        expected_sec: Callable[[str], float] | None = None,
        changes: CodeChanges | None = None,
        again: Again | None = None,
    ) -> None:
        self._roots = enumerate(roots)
        self._remember = remember
        self._retry_failed = retry_failed
        # One stat shows whether a node is done. The exact status needs a directory listing, which a worker
        # makes anyway to claim the node. Discovery needs this status only if earlier failures end the run.
        self._thorough = thorough or not retry_failed
        self._before_work = before_work
        self._expected_sec = expected_sec
        self._changes = changes
        self._again = again
        self._recompute: Recompute | None = None
        self._has_begun = False
        self._known: set[str] = set()
        # What the `_dependencies()` of nodes in the plan has asked for.
        self._awaiting: dict[str, tuple[str, ...]] = {}
        self._failures: dict[str, str] = {}
        self._classes = ClassNames()
        self._due: deque[Node[Any]] = deque()
        self._walk: Iterator[Node[Any]] | None = None
        self._top = ""  # the hash of the node at which the walk began
        self._from_root = False  # whether that node is a root, or one that is looked at again
        self._facts: deque[Fact] = deque()  # what the walk has found and no step has returned yet
        self._todo: dict[str, Found] = {}  # TODO nodes whose dependencies are being visited
        self._room: int | None = 0
        self._exhausted = False
        self._roots_error: BaseException | None = None
        self._stopped = False

    def step(self, room: int | None, again: Sequence[Node[Any]] = ()) -> Batch:
        """Continue the walk for a short time. Reads at most `room` roots (None: any number), and reads the
        exact status of the nodes in `again`.

        Raises `FuruCycleError` if nodes depend on each other in a cycle, and `FuruStoreError` if the store
        cannot be used. If reading the roots raises an exception, or a root is not a node, no more roots are
        read, and the batch carries the error.
        """
        if not self._has_begun:
            self._begin()
        self._room = room
        self._due.extend(again)
        facts: list[Fact] = []
        now = time.monotonic()
        deadline, deadline_of_few = now + _STEP_SEC, now + _STEP_OF_FEW_SEC
        try:
            while len(facts) < _STEP_FACTS and now < (
                deadline if len(facts) >= _FEW_FACTS else deadline_of_few
            ):
                now = time.monotonic()
                if self._facts:
                    facts.append(self._facts.popleft())
                elif self._walk is not None:
                    self._walk_on(self._walk)
                elif not self._begin_walk(facts):
                    return Batch(facts, True, self._exhausted, self._roots_error)
        except _Stopped:
            return Batch([], True, True)
        return Batch(facts, False, self._exhausted, self._roots_error)

    def _begin(self) -> None:
        """Find out whether any artifacts may have to be replaced. Reads the disk."""
        self._has_begun = True
        asked = self._again is not None or (self._changes is not None and self._changes.recomputes)
        if asked or has_partial(current_settings()):
            self._recompute = Recompute(self._is_to_replace, self._check_stopped)

    def forget(self, key: str) -> None:
        """Forget a node that is done, unless all nodes are remembered. If a later root needs a forgotten
        node, the node's status is read again."""
        if not self._remember:
            self._known.discard(key)
        if self._recompute is not None:
            self._recompute.done(key)

    def failed(self, key: str, error: str) -> None:
        """Record that a node has failed: other nodes may ask for its outcome."""
        self._failures[key] = error

    def stop(self) -> None:
        """Make the current step, and every later one, return at the next node."""
        self._stopped = True

    def _walk_on(self, walk: Iterator[Node[Any]]) -> None:
        """Walk to the next TODO node, which comes after its dependencies, or to the end of the walk."""
        node = next(walk, None)
        if node is not None:
            self._begin_work()
            self._facts.append(self._todo.pop(node.furu_hash))
            return
        self._walk = None
        if self._from_root:
            self._facts.append(RootWalked(self._top))

    def _begin_walk(self, facts: list[Fact]) -> bool:
        """Begin the next walk: from a node that is looked at again, or from the next root, which is added
        to the step's facts: the window must count a root before the next step. Returns False if nothing is
        left to walk."""
        if self._due:
            node = self._due.popleft()
            self._known.discard(node.furu_hash)
            self._from_root = False
        elif (item := self._next_root()) is not None:
            number, node = item
            facts.append(RootRead(node.furu_hash, class_name_of(node), number))
            self._from_root = True
        else:
            return False
        self._top = node.furu_hash
        self._walk = postorder(node, self._visit, self._classes, self._known)
        return True

    def _next_root(self) -> tuple[int, Node[Any]] | None:
        if self._exhausted or self._room == 0:
            return None
        try:
            item = next(self._roots, None)
            if item is not None:
                check_root(item[1], item[0])
        except BaseException as error:  # from the caller's iterable; the run raises it at its end
            self._roots_error, item = error, None
        if item is None:
            self._exhausted = True
        elif self._room is not None:
            self._room -= 1
        return item

    def _visit(self, node: Node[Any]) -> list[Node[Any]] | None:
        """Look at a node that is not known yet. Returns its dependencies if it is TODO, and otherwise None.

        The exact status is read for a node that is looked at again.
        """
        self._check_stopped()
        key = node.furu_hash
        self._known.add(key)
        is_again = key == self._top and not self._from_root
        try:
            fact, below = self._look_at(node, thorough=self._thorough or is_again)
        except BaseException as error:  # from the node's own methods, which may raise SystemExit too
            fact, below = self._failed(node, error), None
        if below is None:
            self._facts.append(fact)
        else:
            self._todo[key] = fact
        return below

    def _look_at(self, node: Node[Any], *, thorough: bool) -> tuple[Found, list[Node[Any]] | None]:
        """Return the fact about a node and, if the node is TODO, its dependencies."""
        status, replaces = self._status(node, thorough=thorough), None
        if self._again is not None:
            self._again.saw(node)
        if status is Status.DONE and self._recompute is not None:
            replaces = self._recompute.replaced_by(node)
            if replaces is not None:
                is_taken = thorough and is_being_replaced(artifact_of(node))
                status = Status.IN_PROGRESS if is_taken else Status.TODO
        if status is Status.TODO:
            refuse_unstorable(node)
            is_replaced = self._is_replaced if self._recompute is not None else None
            below = dependencies(node, is_replaced, self._failures)
            keys = tuple([dependency.furu_hash for dependency in below])
            awaits = self._awaited_by(node, below) if below.awaited or self._awaiting else ()
            job = _job(node, replaces)
            if self._expected_sec is None:
                return Found(job, status, keys, awaits, below.may_fail), below
            expected_sec = self._expected_sec(job.node_class)
            return Found(job, status, keys, awaits, below.may_fail, expected_sec=expected_sec), below
        if status is Status.DONE:
            self.forget(node.furu_hash)
            if self._changes is not None:
                self._changes.reused(node)
            return Found(_idle_job(node), status), None
        if status is Status.FAILED:
            return Found(_idle_job(node), status, failure=_earlier_failure(node)), None
        return Found(_job(node), status), None

    def _is_to_replace(self, node: Node[Any]) -> bool:
        if self._again is not None and self._again.includes(node):
            return True
        if self._changes is not None and self._changes.recomputes and is_by_other_code(node):
            return True
        return may_be_partial(node) and is_partial(artifact_of(node))

    def _is_replaced(self, node: Node[Any]) -> bool:
        return self._recompute is not None and self._recompute.replaced_by(node) is not None

    def _awaited_by(self, node: Node[Any], below: Dependencies) -> tuple[str, ...]:
        """Return the keys of the nodes for whose values the node's `_dependencies()` has asked."""
        refuse_lost_values(node, below, self._awaiting.pop(node.furu_hash, ()))
        awaits = tuple([awaited.furu_hash for awaited in below.awaited])
        if awaits:
            self._awaiting[node.furu_hash] = awaits
        return awaits

    def _failed(self, node: Node[Any], error: BaseException) -> Found:
        if isinstance(error, FuruStoreError):
            self._begin_work()  # raises if the whole store is unusable, which is not the node's fault
        drop_frames(error)
        failed = compute_error(node, error, Path(artifact_of(node).files.done))
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

    def _check_stopped(self) -> None:
        if self._stopped:
            raise _Stopped


class _Stopped(Exception):
    """Raised to end a step after `stop` was called."""


def check_root(root: object, number: int) -> None:
    """Raise `FuruUsageError` if a root is not a node. The message describes the root."""
    if isinstance(root, Furu):
        return
    if isinstance(root, type) and issubclass(root, Furu):
        fields = "..." if root.__dataclass_fields__ else ""
        what = f"the class {root.__qualname__}; make a node of it: {root.__qualname__}({fields})"
    else:
        what = f"{a_type(root)}: {shown(root):.100}"
    raise FuruUsageError(f"every root must be a Furu node, and roots[{number}] is {what}")


def _job(node: Node[Any], replaces: FileId | None = None) -> Job:
    spec_key = node._executor_spec_key()
    if not isinstance(spec_key, str) or not spec_key:
        raise FuruUsageError(
            f"{describe(node)}._executor_spec_key() must return a non-empty str, not {spec_key!r}"
        )
    return make_job(node, _lane(is_async(node), spec_key), replaces)


def _idle_job(node: Node[Any]) -> Job:
    """Return a job for a node that will not be computed, without calling its `_executor_spec_key`."""
    return make_job(node, _lane(False, "default"))


@functools.lru_cache
def _lane(is_async: bool, spec_key: str) -> Lane:
    """Return one shared object for each lane. This saves memory: a run may have a million nodes."""
    return Lane(is_async, spec_key)


def _earlier_failure(node: Node[Any]) -> Failure:
    """Return the failure that the store has recorded for a FAILED node."""
    artifact = artifact_of(node)
    found = survey(artifact)
    error = found.record.error if isinstance(found.record, EndedRecord) else "unknown"
    state_path = Path(artifact.files.attempt(max(found.attempt, 1)))
    message = (
        f"{describe(node)} failed in an earlier run: {sentence(error)} State: {state_path}. It is not "
        "tried again, because retry_failed is False."
    )
    return Failure(node, None, state_path, message)
