"""The behaviour that all kinds of workers share, towards nodes and towards the run."""

from __future__ import annotations

import asyncio
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from furu import FuruComputeError, RunReport, Status, run_local_async
from furu.events import Event, NodeDone, NodeProgress, NodeStarted
from furu.execution.workers import DaskWorkers, ProcessWorkers, ThreadWorkers, Workers
from furu.execution.workers.base import Lane, News, Withdrawn, make_job
from furu.execution.workers.event_loop import EventLoopWorkers
from furu.node.base import artifact_of
from tests.workers.nodes import Act, AsyncAct, AsyncFlaky, Flaky, Gate

pytestmark = pytest.mark.anyio

KINDS = ["threads", "event loop", "processes", "dask"]


class Kind:
    """A kind of worker, and the class of the nodes that it computes."""

    def __init__(self, name: str, workers: Workers | None) -> None:
        self.name = name
        self.workers = workers

    @property
    def is_elsewhere(self) -> bool:
        return self.name in ("processes", "dask")

    def node(self, does: str, **fields: Any) -> Act:
        cls = AsyncAct if self.name == "event loop" else Act
        return cls(does=does, **fields)

    async def run(self, *nodes: Act, **options: Any) -> RunReport:
        options = {"max_workers": 2, "max_async": 2, **options}
        return await run_local_async(nodes, workers=self.workers, **options)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, anyio_backend: str) -> Kind:
    """Yield every kind of worker, on each backend that it supports."""
    if request.param == "dask":
        if anyio_backend == "trio":
            pytest.skip("Dask does not run on trio")
        return Kind("dask", DaskWorkers(request.getfixturevalue("dask_client")))
    makers: dict[str, Callable[[], Workers | None]] = {
        "threads": ThreadWorkers,
        "event loop": lambda: None,
        "processes": ProcessWorkers,
    }
    return Kind(request.param, makers[request.param]())


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that reads the store, outside the event loop."""
    return await anyio.to_thread.run_sync(function, *arguments)


async def failure(kind: Kind, does: str) -> tuple[Act, FuruComputeError]:
    """Run a node that fails, and return the node and the run's error."""
    node = kind.node(does)
    with pytest.raises(FuruComputeError) as caught:
        await kind.run(node)
    return node, caught.value


async def test_result_is_stored_after_the_results_it_needs(kind: Kind) -> None:
    """
    a   b
     \\ /
     top
    """
    top = kind.node("sum", below=(kind.node("sum a"), kind.node("sum b")))
    report = await kind.run(top)
    assert (3, 0) == (report.computed, report.failed)
    assert Status.DONE == await in_thread(top.status)
    assert 3 == await in_thread(top.get)


async def test_workers_can_be_used_for_several_runs(kind: Kind) -> None:
    node = kind.node("sum")
    first, second = await kind.run(node), await kind.run(node)
    assert (1, 0) == (first.computed, first.reused)
    assert (0, 1) == (second.computed, second.reused)


async def test_two_runs_at_once_may_share_workers(kind: Kind) -> None:
    reports: list[RunReport] = []

    async def run(number: int) -> None:
        reports.append(await kind.run(kind.node(f"sum {number}"), kind.node(f"pid {number}")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, 1)
        tasks.start_soon(run, 2)
    assert [2, 2] == [report.computed for report in reports]


async def test_nodes_own_error_arrives_with_its_traceback(kind: Kind) -> None:
    """The node's exception is the cause of the run's error. The state file has it too."""
    node, error = await failure(kind, "fail")
    assert node is error.node
    assert isinstance(error.__cause__, ValueError)
    assert "bad split" == str(error.__cause__)
    assert "_act_fail" in "".join(traceback.format_exception(error))
    assert error.state_path is not None
    record = json.loads(error.state_path.read_text())
    assert ("failed", "ValueError: bad split") == (record["outcome"], record["error"])
    assert any("_act_fail" in line for line in record["traceback"])
    assert Status.FAILED == await in_thread(node.status)


@pytest.mark.parametrize(
    ("does", "text"), [("unpicklable", "cannot travel"), ("two", "7: cannot come back")]
)
async def test_error_that_cannot_be_pickled_arrives_as_text(kind: Kind, does: str, text: str) -> None:
    """The traceback is part of the text."""
    _, error = await failure(kind, does)
    assert text in str(error)
    assert text in str(error.__cause__)
    assert f"_act_{does}" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("does", ["status", "lock", "local", "registered"])
async def test_error_that_cannot_be_pickled_is_retried_as_its_class_says(
    kind: Kind, does: str, tmp_path: Path
) -> None:
    """`Retry.on` is compared in the process that raised the error."""
    cls = AsyncFlaky if kind.name == "event loop" else Flaky
    node = cls(does=does, folder=tmp_path)
    report = await kind.run(node)
    assert (1, 1) == (report.computed, report.retried)
    assert "tried again" == await in_thread(node.get)


async def test_error_that_cannot_be_pickled_is_not_retried_if_on_does_not_name_it(
    kind: Kind, tmp_path: Path
) -> None:
    cls = AsyncFlaky if kind.name == "event loop" else Flaky
    with pytest.raises(FuruComputeError, match="not named in on") as caught:
        await kind.run(cls(does="other", folder=tmp_path))
    assert 0 == caught.value.report.retried


@pytest.mark.parametrize(("does", "cause"), [("exit", SystemExit), ("interrupt", KeyboardInterrupt)])
async def test_exit_in_a_node_is_that_nodes_failure(
    kind: Kind, does: str, cause: type[BaseException]
) -> None:
    """The other node is still computed."""
    other = kind.node("sum")
    with pytest.raises(FuruComputeError) as caught:
        await kind.run(kind.node(does), other, on_failure="continue")
    assert cause is type(caught.value.__cause__)
    assert 1 == caught.value.report.computed
    assert Status.DONE == await in_thread(other.status)


async def test_context_inside_a_node_has_the_settings_of_the_run(kind: Kind, store: Path) -> None:
    """The environment of the worker may name another store."""
    node = kind.node("context")
    await kind.run(node)
    assert ["executor", "default", node.furu_hash, str(store)] == await in_thread(node.get)


async def test_logger_writes_to_the_attempts_log(kind: Kind) -> None:
    """The node's logger works in every process."""
    node = kind.node("log")
    await kind.run(node)
    log = await in_thread(lambda: (node.furu_dir / "furu.log").read_text())
    assert log.endswith("INFO a line of log\n")


async def test_owner_in_the_store_is_the_process_that_computes(kind: Kind, gate: Gate) -> None:
    """Other processes see the node as IN_PROGRESS."""
    node = kind.node("gate", folder=gate.folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kind.run, node)
        await gate.wait_for_arrival()
        status = await in_thread(node.status)
        owner = json.loads(await in_thread(lambda: Path(artifact_of(node).files.attempt(1)).read_text()))
        gate.open()
    assert Status.IN_PROGRESS == status
    assert owner["pid"] == await in_thread(node.get)
    assert kind.is_elsewhere is (owner["pid"] != os.getpid())


async def test_next_run_finishes_a_node_of_a_cancelled_run(kind: Kind, gate: Gate) -> None:
    """Depending on the workers, the running node finishes, is killed, or continues on the cluster."""
    node = kind.node("gate", folder=gate.folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kind.run, node)
        await gate.wait_for_arrival()
        tasks.cancel_scope.cancel()
        gate.open()
    report = await kind.run(node, poll_interval_sec=0.01)
    assert 1 == report.computed + report.reused
    assert Status.DONE == await in_thread(node.status)


async def test_no_more_nodes_run_at_once_than_the_limit_of_their_kind(kind: Kind) -> None:
    """With a limit of two, the third node starts after another has finished."""
    events: list[Event] = []
    nodes = [kind.node(f"sum {number}") for number in range(6)]
    await kind.run(*nodes, on_event=events.append)
    running = most = 0
    for event in events:
        running += isinstance(event, NodeStarted) - isinstance(event, NodeDone)
        most = max(most, running)
    assert most <= 2
    assert 6 == sum(isinstance(event, NodeDone) for event in events)


async def test_jobs_do_not_start_after_a_failure(kind: Kind) -> None:
    nodes = [kind.node("fail"), *(kind.node(f"sum {number}") for number in range(5))]
    events: list[Event] = []
    with pytest.raises(FuruComputeError):
        await kind.run(*nodes, max_workers=1, max_async=1, on_event=events.append)
    assert 1 == sum(isinstance(event, NodeStarted) for event in events)


async def test_node_reports_its_progress_while_it_runs(kind: Kind, gate: Gate) -> None:
    """Of a thousand reports in a moment, the run passes on the last. (On Dask it may come too late.)"""
    node = kind.node("progress", folder=gate.folder)
    reports: list[NodeProgress] = []

    def note(event: Event) -> None:
        if isinstance(event, NodeProgress):
            reports.append(event)
            gate.open()

    await kind.run(node, on_event=note)
    assert (node.furu_hash, "1 of 4 steps") == (reports[0].hash, str(reports[0].advance))
    assert len(reports) < 10
    if kind.name != "dask":
        assert "1,000 of 1,000 steps" == str(reports[-1].advance)


async def test_job_that_has_not_started_when_workers_stop_is_handed_back(kind: Kind) -> None:
    node = kind.node("nothing")
    job = make_job(node, Lane(kind.name == "event loop", "default"))
    delivered: list[News] = []
    async with anyio.create_task_group() as tasks:
        workers = kind.workers or EventLoopWorkers()
        crew = workers.open(tasks, delivered.append, max_workers=2, stop_on_failure=True)
        crew.start(job)
        crew.stop(cancel=False)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert [job] == [one for news in delivered if isinstance(news, Withdrawn) for one in news.jobs]
    assert Status.TODO is await in_thread(node.status)


async def test_run_whose_tasks_are_all_cancelled_finishes(
    kind: Kind, gate: Gate, anyio_backend: str
) -> None:
    """`asyncio.run` cancels all tasks like this before it closes the loop."""
    if anyio_backend == "trio":
        pytest.skip("on trio only scopes cancel")
    node = kind.node("gate", folder=gate.folder)
    before = asyncio.all_tasks()
    run = asyncio.create_task(kind.run(node))
    await gate.wait_for_arrival()
    for task in asyncio.all_tasks() - before:
        task.cancel()
    gate.open()  # a thread exits only after its node has finished
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 10)
