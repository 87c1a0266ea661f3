"""A node that fails: what stops, what continues, what the error says, what the store keeps."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from furu import (
    EXEC_CONTEXT,
    ExecContext,
    Furu,
    FuruComputeError,
    FuruCycleError,
    FuruError,
    FuruMissingArtifactError,
    FuruSpecMismatchError,
    FuruStoreError,
    Status,
    plan_local,
    run_local,
    run_local_async,
)
from furu.events import NodeFailed, NodeStarted, RunFinished
from furu.node.base import artifact_of
from tests.graphs import AsyncNode, Computed, Node, actions, chain, diamond, flat, recording
from tests.store.processes import names


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


def raiser(error: BaseException) -> Any:
    """Return an action that raises the error."""

    def fail() -> None:
        raise error

    return fail


def test_failed_node_stops_new_dispatch_and_running_nodes_finish(record: Computed) -> None:
    """One node fails while another runs: the running node is published, and no other node starts."""
    both_run = threading.Barrier(2)
    failed = threading.Event()

    def fail() -> None:
        both_run.wait(10)
        raise ValueError("bad split")

    def finish_after_the_failure() -> None:
        both_run.wait(10)
        failed.wait(10)

    def watch(event: object) -> None:
        if isinstance(event, NodeFailed):
            failed.set()

    roots = flat(10)
    actions["f0"], actions["f1"] = fail, finish_after_the_failure
    with pytest.raises(FuruComputeError) as caught:
        run_local(roots, max_workers=2, on_event=watch)
    assert {"f0", "f1"} == set(record.order)
    assert [Status.FAILED, Status.DONE, Status.TODO] == [node.status() for node in roots[:3]]
    report = caught.value.report
    assert (1, 1, 8) == (report.computed, report.failed, report.skipped)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad split"),
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError("the node's own"),
        GeneratorExit(),
        StopIteration(7),
        BaseExceptionGroup("several", [ValueError("one"), KeyboardInterrupt()]),
        RuntimeError("multi\nline"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_of_a_node_is_one_error_that_names_it(error: BaseException, backend: str) -> None:
    """The error names the state file, which has the traceback. Its cause is the node's exception."""
    node = Node(name="bad")
    actions["bad"] = raiser(error)
    with pytest.raises(FuruComputeError) as caught:
        anyio.run(run_local_async, [Node(name="top", below=(node,))], backend=backend)
    assert error is caught.value.__cause__
    assert node == caught.value.node
    assert "Node(name='bad'" in str(caught.value)
    assert str(caught.value.state_path) in str(caught.value)
    record = caught.value.state_path.read_text()
    assert type(error).__name__ in record
    assert "in fail" in record
    assert Status.FAILED is node.status()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("own")],
    ids=lambda error: type(error).__name__,
)
async def test_any_exception_of_an_async_node_is_one_error_that_names_it(
    error: BaseException,
) -> None:
    """A CancelledError that the node itself raises does not cancel the run."""
    node = AsyncNode(name="bad")
    actions["bad"] = raiser(error)
    with pytest.raises(FuruComputeError) as caught:
        await run_local_async([Node(name="top", below=(node,))])
    assert error is caught.value.__cause__
    assert node == caught.value.node


def test_error_message_has_the_cause_the_node_its_state_file_and_the_next_step() -> None:
    """The test compares the whole message."""
    node = Node(name="train")
    actions["train"] = raiser(ValueError("bad split"))
    with pytest.raises(FuruComputeError) as caught:
        run_local([node])
    assert (
        "Node(name='train', below=(), kind='default') failed: ValueError: bad split. "
        f"State: {artifact_of(node).files.attempt(1)}. Run again to retry."
    ) == str(caught.value)


def test_last_event_of_a_failed_run_reports_the_failure() -> None:
    """The last event, RunFinished, has the outcome and the counts."""
    events: list[object] = []
    actions["base"] = raiser(ValueError("x"))
    with pytest.raises(FuruComputeError):
        run_local([diamond()], on_event=events.append)
    assert isinstance(events[-1], RunFinished)
    assert ("failed", 0, 1, 3) == (
        events[-1].end,
        events[-1].report.computed,
        events[-1].report.failed,
        events[-1].report.skipped,
    )


def test_failure_is_retried_by_default_and_attempts_count_upwards() -> None:
    """After the success the store keeps the record of the last failure and the name `try-1`."""
    node = Node(name="flaky")
    for _ in range(2):
        actions["flaky"] = raiser(ValueError("still broken"))
        with pytest.raises(FuruComputeError):
            run_local([node])
    actions.clear()
    assert 1 == run_local([node]).computed
    assert ["done", "try-1", "try-2"] == names(artifact_of(node))
    assert "still broken" in Path(artifact_of(node).files.attempt(2)).read_text()


def test_earlier_failure_stops_the_run_without_retry_failed(
    record: Computed,
) -> None:
    """The error names the node and its state file, and no node is computed."""
    node = Node(name="bad")
    actions["bad"] = raiser(ValueError("bad split"))
    with pytest.raises(FuruComputeError):
        run_local([node])
    record.order.clear()
    with pytest.raises(FuruComputeError, match="failed in an earlier run: ValueError: bad split") as e:
        run_local([Node(name="top", below=(node,))], retry_failed=False)
    assert [] == record.order
    assert node == e.value.node
    assert e.value.state_path is not None
    assert e.value.state_path.exists()


def test_continue_runs_everything_that_does_not_depend_on_a_failure(record: Computed) -> None:
    """Two nodes fail: the error has both, their dependents are skipped, and the other nodes are DONE."""
    bad, worse, good = Node(name="bad"), Node(name="worse"), Node(name="good")
    roots = [
        Node(name="needs bad", below=(bad, good)),
        Node(name="needs worse", below=(worse,)),
        Node(name="needs good", below=(good,)),
    ]
    actions["bad"] = raiser(ValueError("1"))
    actions["worse"] = raiser(KeyError("2"))
    with pytest.raises(FuruComputeError, match="1 other node failed too") as caught:
        run_local(roots, on_failure="continue", max_workers=1)
    assert {"bad", "worse", "good", "needs good"} == set(record.order)
    report = caught.value.report
    assert (2, 2, 2) == (report.computed, report.failed, report.skipped)
    assert [bad, worse] == [failure.node for failure in caught.value.failures]
    assert report.failures == caught.value.failures


def test_undeclared_dependency_fails_with_the_line_to_add() -> None:
    """The error names the missing node and the node that asked for it."""
    hidden = Node(name="hidden")
    asker = Node(name="asker")
    actions["asker"] = hidden.get
    with pytest.raises(FuruComputeError) as caught:
        run_local([asker])
    cause = caught.value.__cause__
    assert isinstance(cause, FuruMissingArtifactError)
    assert (hidden, asker) == (cause.node, cause.asked_by)
    assert ("    def _dependencies(self): return [Node(name='hidden', below=(), kind='default')]") in str(
        cause
    )


def test_undeclared_dependency_that_exists_is_loaded() -> None:
    """In a worker, get() only loads; it never computes."""
    hidden = Node(name="hidden")
    run_local([hidden])
    actions["asker"] = hidden.get
    assert 1 == run_local([Node(name="asker")]).computed


def test_node_that_gets_itself_is_an_error() -> None:
    """Without the error the node would wait for itself forever."""
    node = Node(name="self")
    actions["self"] = node.get
    with pytest.raises(FuruComputeError, match="cannot get\\(\\) itself"):
        run_local([node])


def test_force_is_only_allowed_for_the_current_node(record: Computed) -> None:
    other = Node(name="other")
    actions["current"] = lambda: other.get(force=True)
    with pytest.raises(FuruComputeError, match="this worker was given Node\\(name='current'"):
        run_local([Node(name="current")])
    assert ["current"] == record.order


def test_force_for_another_spec_key_is_rejected(record: Computed) -> None:
    """The error names both spec keys."""
    gpu = Node(name="big", kind="gpu")
    actions["current"] = lambda: gpu.get(force=True)
    with pytest.raises(FuruComputeError) as caught:
        run_local([Node(name="current")])
    cause = caught.value.__cause__
    assert isinstance(cause, FuruSpecMismatchError)
    assert ("gpu", "default") == (cause.spec_key, cause.worker_spec_key)
    token = EXEC_CONTEXT.set(ExecContext("executor", "default", "local", gpu.furu_hash))
    try:
        with pytest.raises(FuruSpecMismatchError):
            gpu.get(force=True)
    finally:
        EXEC_CONTEXT.reset(token)
    assert ["current"] == record.order


class Looping(Furu[int]):
    """Three nodes, each of which depends on the next one in a circle."""

    at: int

    def _dependencies(self) -> list[Furu[Any]]:
        return [Looping(at=(self.at + 1) % 3)]

    def _create(self) -> int:
        return self.at


def test_cycle_is_an_error_that_lists_its_nodes() -> None:
    """The nodes are listed in order, and the first node is repeated at the end."""
    expected = "Looping\\(at=0\\)\n  -> Looping\\(at=1\\)\n  -> Looping\\(at=2\\)\n  -> Looping\\(at=0\\)"
    for call in (run_local, plan_local):
        with pytest.raises(FuruCycleError, match=expected) as caught:
            call([Looping(at=0)])  # type: ignore[operator]
        assert [0, 1, 2, 0] == [node.at for node in caught.value.cycle]
    with pytest.raises(FuruCycleError, match=expected):
        Looping(at=0).get()


def test_cycle_is_found_while_other_nodes_run_and_they_finish(record: Computed) -> None:
    first = Node(name="first")

    def roots() -> Iterator[Furu[Any]]:
        yield first
        yield Looping(at=0)

    with pytest.raises(FuruCycleError):
        run_local(roots(), window_size=2)
    assert record.order in ([], ["first"])
    assert first.status() in (Status.DONE, Status.TODO)
    assert first.exists() == (record.order == ["first"])


class BadDependencies(Furu[int]):
    """`_dependencies` raises, or returns a value that is not a node."""

    what: str

    def _dependencies(self) -> Any:
        if self.what == "raise":
            raise KeyError("lost")
        return [self.what]

    def _create(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("raise", r"BadDependencies\(what='raise'\)._dependencies\(\) raised KeyError: 'lost'"),
        (
            "text",
            r"BadDependencies\(what='text'\)._dependencies\(\) returned a str among the nodes",
        ),
    ],
)
def test_broken_dependencies_are_one_error_that_names_the_node(what: str, message: str) -> None:
    """The error is not an exception group."""
    with pytest.raises(FuruError, match=message):
        run_local([BadDependencies(what=what)])


def test_run_raises_the_error_of_a_generator_of_roots() -> None:
    """The exception is not wrapped, and running nodes finish."""

    def roots() -> Iterator[Node]:
        yield Node(name="one")
        raise LookupError("the list of roots broke off")

    with pytest.raises(LookupError, match="broke off"):
        run_local(roots(), window_size=1)
    assert Node(name="one").exists()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(2)])
async def test_base_exception_of_a_generator_of_roots_is_raised(
    error: BaseException,
) -> None:
    """The run does not mistake the exception for a cancellation."""

    def roots() -> Iterator[Node]:
        yield Node(name="one")
        raise error

    with pytest.raises(type(error)):
        await run_local_async(roots(), window_size=1)


class Validated(Furu[int]):
    """Its artifact is valid while the class attribute `valid` is true."""

    n: int
    valid = True

    def _create(self) -> int:
        return self.n

    def _validate(self) -> bool:
        return type(self).valid


def test_node_rejected_by_its_own_validate_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise every run would compute the node again."""
    monkeypatch.setattr(Validated, "valid", False)
    with pytest.raises(FuruComputeError, match="rejects the artifact of _create\\(\\)"):
        run_local([Validated(n=1)])


def test_error_survives_pickling() -> None:
    """The copy has the same node and state path."""
    actions["bad"] = raiser(ValueError("x"))
    with pytest.raises(FuruComputeError) as caught:
        run_local([chain(2), Node(name="bad")])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(caught.value) == str(copy)
    assert (caught.value.node, caught.value.state_path) == (copy.node, copy.state_path)
    assert caught.value.report.computed == copy.report.computed


def test_record_that_cannot_be_written_does_not_hide_the_nodes_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node's exception is the cause, with a note about the record. The next run computes the node."""
    from furu.store import attempt

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    actions["bad"] = raiser(ValueError("bad split"))
    with monkeypatch.context() as patch:
        patch.setattr(attempt, "write_new", full)
        with pytest.raises(FuruComputeError) as caught:
            run_local([Node(name="bad")])
    assert "bad split" in str(caught.value.__cause__)
    assert "No space left on device" in caught.value.__cause__.__notes__[0]  # type: ignore[union-attr]
    actions.clear()
    assert 1 == run_local([Node(name="bad")]).computed


def test_thread_that_cannot_be_started_is_the_nodes_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is not an exception group."""
    import anyio.to_thread as to_thread

    real = to_thread.run_sync

    async def refuse(function: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(function, "__name__", "") == "_work":
            raise RuntimeError("can't start new thread")
        return await real(function, *args, **kwargs)

    monkeypatch.setattr(to_thread, "run_sync", refuse)
    with pytest.raises(FuruComputeError, match=r"no thread could be started .*can't start new thread"):
        run_local([Node(name="n")])


def test_store_that_cannot_be_written_is_one_error(store: Path, record: Computed) -> None:
    """The error names the store and is raised before any node is computed."""
    store.write_text("a file")
    with pytest.raises(FuruStoreError, match=r"is a file. Name a directory with FURU_PATH") as caught:
        run_local(flat(20))
    assert store == caught.value.path
    assert [] == record.order


def test_only_cancellations_are_logged_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """A failure is raised, so a log line on stderr would repeat it."""
    actions["bad"] = raiser(ValueError("x"))
    with caplog.at_level(logging.INFO, "furu.run"), pytest.raises(FuruComputeError):
        run_local([Node(name="bad")])
    assert [logging.INFO] == [r.levelno for r in caplog.records if r.name == "furu.run"]


def test_started_events_stop_with_the_failure() -> None:
    """With one worker exactly one node starts."""
    events: list[object] = []
    actions["f0"] = raiser(ValueError("x"))
    with pytest.raises(FuruComputeError):
        run_local(flat(5), max_workers=1, on_event=events.append)
    assert 1 == sum(isinstance(event, NodeStarted) for event in events)
