"""How other nodes ended: their values or their failures, for a node that can do without some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, cast

from furu.context import EXEC_CONTEXT
from furu.errors import FuruComputeError, FuruMissingArtifactError
from furu.node.base import Node, artifact_of, describe
from furu.node.dependencies import dependencies, postorder
from furu.node.fetch import fetch
from furu.node.load import exists, load
from furu.node.questions import FAILED_INPUTS, QUESTION, Question
from furu.node.waiting import COMPUTING
from furu.store.artifact import Status, survey
from furu.store.record import EndedRecord

__all__ = ["NodeOutcome", "outcome", "outcomes"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class NodeOutcome(Generic[T]):
    """How a node ended. `error` is one line that says why it has no value, and None if it has one."""

    node: Node[T]
    error: str | None = None
    _value: T | None = dataclasses.field(default=None, repr=False)

    @property
    def is_done(self) -> bool:
        """Whether the node has a value."""
        return self.error is None

    @property
    def value(self) -> T:
        """The value of the node. Raises `FuruMissingArtifactError` if it has none."""
        if self.error is not None:
            raise FuruMissingArtifactError(
                f"{describe(self.node)} has no value: {self.error}", node=self.node
            )
        return cast(T, self._value)  # it is set if there is no error


def outcome(node: Node[T]) -> NodeOutcome[T]:
    """Return the value of a node, or how it failed. See `outcomes`."""
    return outcomes([node])[0]


def outcomes(nodes: Iterable[Node[T]]) -> list[NodeOutcome[T]]:
    """Return the value of each node, or how it failed.

    Call this in `_dependencies()` of a class with ``_partial = True``, and again in `_create`: then the
    node is computed although some of these nodes have failed, in a run with ``on_failure="continue"``. The
    run still reports the failures. The artifact records which nodes had failed, and the next run computes
    it once more, because they may succeed then.

    In `_dependencies()`, nodes that are not done and have not failed in this run are computed first, all at
    once. In interactive code, missing nodes are computed. In a worker, nothing is.

    Raises `FuruUsageError` in `_dependencies()` of a class without ``_partial = True`` if a node has
    failed, and `FuruMissingArtifactError` in a worker if a node was neither computed nor tried.

    >>> from furu import Furu, outcomes
    >>> class Read(Furu[int]):
    ...     number: int
    ...     def _create(self) -> int:
    ...         return 10 // self.number
    >>> [one.value if one.is_done else "failed" for one in outcomes(Read(number=n) for n in (0, 5))]
    ['failed', 2]
    """
    nodes = list(nodes)
    question = QUESTION.get()
    if question is not None:
        return _answers(nodes, question)
    if COMPUTING.get() or EXEC_CONTEXT.get().mode == "executor":
        return [_in_create(node) for node in nodes]
    return [_interactive(node) for node in nodes]


def _answers(nodes: list[Node[T]], question: Question) -> list[NodeOutcome[T]]:
    found: list[NodeOutcome[T]] = []
    missing: list[Node[Any]] = []
    for node in nodes:
        error = question.failure_of(node)
        if error is not None:
            found.append(NodeOutcome(node, error))
        elif question.may_read(node) and exists(node):
            question.seen[node._furu_hash] = node
            found.append(NodeOutcome(node, None, load(node)))
        else:
            missing.append(node)
    if missing:
        raise question.must_wait(*missing, may_fail=True)
    return found


def _in_create(node: Node[T]) -> NodeOutcome[T]:
    if exists(node):
        return NodeOutcome(node, None, load(node))
    failed = _recorded_failure(node) or next(filter(None, map(_recorded_failure, _below(node))), None)
    if failed is None and EXEC_CONTEXT.get().mode == "interactive":
        return _interactive(node)
    if failed is None:
        raise FuruMissingArtifactError(
            f"{describe(node)} has neither a value nor a failure. Call outcomes() in _dependencies(), too, "
            "so that the run tries the node first",
            node=node,
        )
    accepted = FAILED_INPUTS.get()
    if accepted is not None:
        accepted[node._furu_hash] = None
    return NodeOutcome(node, failed)


def _below(node: Node[Any]) -> list[Node[Any]]:
    """Return a node and the nodes below it that are not done, each before its dependencies."""
    found: list[Node[Any]] = list(postorder(node, lambda one: None if exists(one) else dependencies(one)))
    return found[::-1]


def _recorded_failure(node: Node[Any]) -> str | None:
    """Return the failure that the store has recorded for a node; None if there is none."""
    if type(node)._facts.is_input:
        return None
    found = survey(artifact_of(node))
    if found.status is not Status.FAILED or not isinstance(found.record, EndedRecord):
        return None
    return found.record.error


def _interactive(node: Node[T]) -> NodeOutcome[T]:
    try:
        return NodeOutcome(node, None, fetch(node, False).value)
    except FuruComputeError as error:
        return NodeOutcome(node, str(error))
