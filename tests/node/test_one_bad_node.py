"""One bad node fails alone: an exception from its methods is its own failure, and other nodes run."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruCycleError,
    FuruStoreError,
    Retry,
    plan_local,
    run_local,
    run_local_async,
)
from furu.events import Event, NodeFailed
from furu.node.base import artifact_of
from tests.graphs import AsyncNode, Computed, Node, actions, flat, recording

HOOKS = ["_validate", "_dependencies", "_executor_spec_key"]
ERRORS: list[BaseException] = [
    OSError("a part is missing"),
    RecursionError("too deep"),
    MemoryError(),
    KeyboardInterrupt(),
    SystemExit(2),
    asyncio.CancelledError("own"),
]


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """The record of the nodes that the test computes."""
    with recording() as computed:
        yield computed


def raiser(error: BaseException) -> Callable[..., Any]:
    """Return a method that raises an error."""

    def raise_it(*args: object) -> None:
        raise error

    return raise_it


def bad_node(hook: str, error: BaseException) -> Node:
    """Return a node whose method `hook` raises. The node is published first if the hook is `_validate`."""
    cls: type[Node] = type("Bad", (Node,), {"__module__": __name__})
    node = cls(name="bad")
    if hook == "_validate":
        run_local([node])
    setattr(cls, hook, raiser(error))
    return node


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_exception_in_a_hook_fails_only_its_node(hook: str, error: BaseException, record: Computed) -> None:
    """The error names the node. The node's dependents are skipped, and all other nodes are computed."""
    bad = bad_node(hook, error)
    events: list[Event] = []
    roots = [bad, Node(name="needs bad", below=(bad, Node(name="good"))), *flat(5)]
    with pytest.raises(FuruComputeError, match="name='bad'") as caught:
        run_local(roots, on_failure="continue", on_event=events.append)
    (failure,) = caught.value.failures
    assert bad == failure.node
    assert failure.state_path is not None
    assert failure.state_path == artifact_of(bad).path
    report = caught.value.report
    assert (6, 1, 1) == (report.computed, report.failed, report.skipped)
    assert [bad.furu_hash] == [event.hash for event in events if isinstance(event, NodeFailed)]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("window", ["dfs", "bfs", 2])
def test_bad_node_that_many_roots_reach_fails_once(hook: str, window: str | int) -> None:
    """The roots come from an iterator."""
    bad = bad_node(hook, OSError("gone"))
    roots = [bad, *(Node(name=f"needs {number}", below=(bad,)) for number in range(3)), *flat(3)]
    with pytest.raises(FuruComputeError) as caught:
        run_local(iter(roots), on_failure="continue", window_size=window)
    report = caught.value.report
    assert (3, 1, 3) == (report.computed, report.failed, report.skipped)


@pytest.mark.parametrize("hook", HOOKS)
def test_bad_node_stops_a_run_like_any_failure(hook: str, record: Computed) -> None:
    """The original exception is among the causes of the error."""
    bad = bad_node(hook, error := OSError("gone"))
    record.order.clear()
    with pytest.raises(FuruComputeError, match="name='bad'") as caught:
        run_local([bad, *flat(5)])
    causes = [caught.value.__cause__]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__)
    assert error in causes
    assert [] == record.order


@pytest.mark.parametrize("answer", [None, "", 3, b"gpu"])
def test_wrong_spec_key_fails_only_its_node(answer: object) -> None:
    """The message says what the method must return."""
    cls = type("Bad", (Node,), {"_executor_spec_key": lambda self: answer})
    with pytest.raises(FuruComputeError, match=r"must return a non-empty str, not") as caught:
        run_local([cls(name="bad"), *flat(3)], on_failure="continue")
    assert 3 == caught.value.report.computed


def test_done_node_is_reused_even_if_its_spec_key_raises() -> None:
    cls: type[Node] = type("Bad", (Node,), {"__module__": __name__})
    run_local([cls(name="bad")])
    cls._executor_spec_key = raiser(OSError("gone"))  # type: ignore[method-assign]
    assert 1 == run_local([cls(name="bad")]).reused


def test_node_directory_that_cannot_be_read_is_a_failure_of_its_node() -> None:
    """The store itself is still usable."""
    bad = Node(name="bad")
    actions["bad"] = raiser(ValueError("bad split"))
    with pytest.raises(FuruComputeError):
        run_local([bad])
    directory = bad.furu_dir.parent
    directory.symlink_to(directory)
    with pytest.raises(FuruComputeError, match="name='bad'") as caught:
        run_local([bad, *flat(3)], on_failure="continue")
    assert isinstance(caught.value.__cause__, FuruStoreError)
    assert 3 == caught.value.report.computed


def test_cycle_is_an_error_of_the_run_and_not_of_a_node() -> None:

    class Loop(Node):
        def _dependencies(self) -> list[Furu[Any]]:
            return [self]

    with pytest.raises(FuruCycleError):
        run_local([Loop(name="loop"), *flat(3)], on_failure="continue")


def test_plan_names_the_nodes_that_would_fail() -> None:
    """The other nodes are planned."""
    bad = bad_node("_dependencies", OSError("gone"))
    summary = plan_local([bad, *flat(3)])
    assert (3, 1) == (summary.to_compute, summary.failed)
    assert [bad] == [failure.node for failure in summary.failures]
    assert "name='bad'" in str(summary)


# ---- roots ----


def breaking_off(error: BaseException) -> Iterator[Node]:
    """Yield some roots, then raise an error."""
    yield from flat(5)
    raise error


@pytest.mark.parametrize("error", [LookupError("broke off"), SystemExit(2)], ids=["error", "exit"])
@pytest.mark.parametrize("window", ["dfs", "bfs", 2])
def test_nodes_found_before_the_roots_raise_are_computed(window: str | int, error: BaseException) -> None:
    """Then the run raises the exception of the roots."""
    with pytest.raises(type(error)):
        run_local(breaking_off(error), on_failure="continue", window_size=window)
    assert all(node.exists() for node in flat(5))


def test_roots_that_raise_stop_a_run(record: Computed) -> None:
    """Running nodes are published, and the report counts all known nodes."""
    events: list[Any] = []
    with pytest.raises(LookupError, match="broke off"):
        run_local(breaking_off(LookupError("broke off")), on_event=events.append)
    end = events[-1]
    assert ("failed", 5) == (end.end, end.report.computed + end.report.skipped)
    assert len(record.order) == end.report.computed == sum(node.exists() for node in flat(5))


def test_failure_before_the_roots_raise_does_not_hide_their_error() -> None:
    actions["f0"] = raiser(ValueError("bad"))
    events: list[Any] = []
    with pytest.raises(LookupError):
        run_local(
            breaking_off(LookupError()), on_failure="continue", window_size="dfs", on_event=events.append
        )
    assert (4, 1) == (events[-1].report.computed, events[-1].report.failed)


# ---- frames ----


class Big:
    """Represents a large table in a local variable."""


class Fails(Furu[int]):
    """Fails while its frames refer to a table."""

    n: int
    how: str = "plain"

    def _create(self) -> int:
        table = Big()
        alive.add(table)
        peak.append(len(alive))
        return self.fail(table)

    def fail(self, table: Big) -> int:
        if self.how == "cause":
            try:
                self.inner(table)
            except KeyError as error:
                raise ValueError(self.n) from error
        if self.how == "group":
            raise ExceptionGroup("several", [ValueError(self.n), self.caught(table)])
        raise ValueError(self.n)

    def inner(self, table: Big) -> int:
        raise KeyError(self.n)

    def caught(self, table: Big) -> KeyError:
        try:
            self.inner(table)
        except KeyError as error:
            return error
        raise AssertionError


class FailsAsync(Fails):
    """Fails on the event loop."""

    async def _create(self) -> int:  # type: ignore[override]
        table = Big()
        alive.add(table)
        peak.append(len(alive))
        await anyio.lowlevel.checkpoint()
        return self.fail(table)


class FailsAgain(Fails):
    """Fails, and is retried."""

    _retry = Retry(attempts=2, on=(ValueError, ExceptionGroup), delay_sec=0.0)


alive: weakref.WeakSet[Big] = weakref.WeakSet()
peak: list[int] = []


@pytest.mark.anyio
@pytest.mark.parametrize("cls", [Fails, FailsAsync, FailsAgain])
@pytest.mark.parametrize("how", ["plain", "cause", "group"])
async def test_failed_nodes_keep_no_local_variables_while_the_run_goes_on(
    cls: type[Fails], how: str
) -> None:
    """The tracebacks of the failures still show the lines."""
    peak.clear()
    gc.collect()
    limits = {"max_workers": 2, "max_async": 2}
    with pytest.raises(FuruComputeError) as caught:
        await run_local_async([cls(n=n, how=how) for n in range(60)], **limits, on_failure="continue")
    assert max(peak) <= 6
    assert 60 == len(caught.value.failures)
    for failure in caught.value.failures:
        assert failure.error is not None
        text = "".join(traceback.format_exception(failure.error))
        assert "in _create" in text
        assert "raise " in text
        assert ("KeyError" in text) is (how != "plain")


def test_first_failure_of_a_run_that_stops_keeps_its_variables() -> None:
    """A debugger can show the variables."""
    with pytest.raises(FuruComputeError) as caught:
        run_local([Fails(n=1)])
    assert caught.value.__cause__ is not None
    frames = traceback.walk_tb(caught.value.__cause__.__traceback__)
    assert any(isinstance(frame.f_locals.get("table"), Big) for frame, _ in frames)


def test_coroutine_that_caught_the_error_of_a_failed_node_continues() -> None:
    """A generator is suspended in `except` while a node's failure with the same exception is recorded."""
    ended: list[str] = []

    def suspended() -> Iterator[None]:
        try:
            raise shared
        except ValueError:
            try:
                yield
                ended.append("by itself")
            except GeneratorExit:
                ended.append("closed")

    shared = ValueError("shared")
    generator = suspended()
    next(generator)
    actions["bad"] = raiser(shared)
    with pytest.raises(FuruComputeError):
        run_local([Node(name="bad"), AsyncNode(name="good")], on_failure="continue")
    next(generator, None)
    assert ["by itself"] == ended
