"""Events, streams of events, and the report of a run."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_type_hints

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from furu import (
    EventsDropped,
    FuruCancelledError,
    FuruComputeError,
    FuruUsageError,
    RunReport,
    check_cancelled,
    run_local,
    run_local_async,
    stream_local,
)
from furu.events import (
    Event,
    NodeDone,
    NodeFailed,
    NodePlanned,
    NodeStarted,
    PlanKnown,
    RunFinished,
    RunStarted,
)
from furu.execution.stream import RunOptions
from furu.execution.workers import ThreadWorkers
from furu.observing.critical_path import CriticalPath
from furu.observing.estimate import Estimate
from furu.observing.report import Recorder
from tests.graphs import AsyncNode, Computed, Node, actions, chain, diamond, flat, recording
from tests.observing.events import done


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as record:
        yield record


def events_of(roots: list[Node], **options: int) -> list[Event]:
    """Run the roots, and return all events."""
    events: list[Event] = []
    run_local(roots, on_event=events.append, **options)
    return events


# ---- events ----


def test_times_of_events_are_in_order() -> None:
    before = time.time()
    events = events_of([chain(2)])
    started = [event.at for event in events if isinstance(event, NodeStarted)]
    done = [event for event in events if isinstance(event, NodeDone)]
    assert started == [event.timing.started_at for event in done]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    times = [before, events[0].at, *started, events[-1].at, time.time()]
    assert sorted(times) == times


def test_worker_computes_one_node_at_a_time() -> None:
    """Two threads that compute at the same time have different worker names."""
    barrier = threading.Barrier(2)
    for number in range(2):
        actions[f"f{number}"] = barrier.wait
    workers = [event.timing.worker for event in events_of(flat(2)) if isinstance(event, NodeDone)]
    assert 2 == len(set(workers))


@pytest.mark.anyio
async def test_async_nodes_that_run_at_once_have_different_worker_names() -> None:
    """A worker name is reused when it is free."""
    both = anyio.Event()
    waiting = []

    async def meet() -> None:
        waiting.append(1)
        if len(waiting) == 2:
            both.set()
        await both.wait()

    actions["a"] = actions["b"] = meet
    events: list[Event] = []
    roots = [AsyncNode(name="a"), AsyncNode(name="b"), AsyncNode(name="c")]
    await run_local_async(roots, max_async=2, on_event=events.append)
    workers = [event.timing.worker for event in events if isinstance(event, NodeDone)]
    assert {"async-1", "async-2"} == set(workers)
    assert 3 == len(workers)


def test_planned_nodes_name_their_dependencies() -> None:
    """Each node is planned once, after its dependencies. The plan is reported as known once."""
    top = diamond()
    events = events_of([top])
    planned = [event for event in events if isinstance(event, NodePlanned)]
    base = top.below[0].below[0]  # type: ignore[attr-defined]
    assert [(), (base.furu_hash,), (base.furu_hash,), tuple(n.furu_hash for n in top.below)] == [
        event.depends_on for event in planned
    ]
    assert 1 == sum(isinstance(event, PlanKnown) for event in events)


def test_failed_node_has_worker_and_times() -> None:
    actions["n0"] = lambda: 1 / 0
    events: list[Event] = []
    with pytest.raises(FuruComputeError):
        run_local([chain(1)], on_event=events.append)
    (failed,) = (event for event in events if isinstance(event, NodeFailed))
    assert failed.timing is not None
    assert failed.timing.worker.startswith("thread-")
    assert failed.timing.started_at > 0


def test_sink_that_raised_gets_no_more_events() -> None:
    """An exception of the sink stops its events, not the run."""
    seen: list[Event] = []

    def sink(event: Event) -> None:
        seen.append(event)
        raise RuntimeError("broken")

    run_local([chain(3)], on_event=sink)
    assert 1 == len(seen)


# ---- the stream ----


@pytest.mark.anyio
async def test_stream_yields_every_event_and_then_the_report() -> None:
    """The events range from RunStarted to RunFinished."""
    async with stream_local([diamond()]) as events:
        with pytest.raises(FuruUsageError, match="no report yet"):
            _ = events.report
        seen = [event async for event in events]
    assert isinstance(seen[0], RunStarted)
    assert isinstance(seen[-1], RunFinished)
    assert 4 == sum(isinstance(event, NodeDone) for event in seen)
    assert 4 == events.report.computed


@pytest.mark.anyio
async def test_slow_reader_loses_the_oldest_events_and_gets_their_number() -> None:
    """The run does not wait for the reader. The last event is never lost."""
    all_events: list[Event] = []
    async with stream_local([chain(20)], buffer_events=3, on_event=all_events.append) as events:
        while not all_events or not isinstance(all_events[-1], RunFinished):
            await anyio.sleep(0.001)
        seen = [event async for event in events]
    assert [EventsDropped(len(all_events) - 3), *all_events[-3:]] == seen


@pytest.mark.anyio
async def test_leaving_the_stream_early_cancels_its_run(record: Computed) -> None:
    """The running node receives the cancellation, and no other node starts."""

    def wait_until_cancelled() -> None:
        with suppress(FuruCancelledError):
            while True:
                check_cancelled()

    actions["n0"] = wait_until_cancelled
    node = chain(3)
    async with stream_local([node]) as events:
        async for event in events:
            if isinstance(event, NodeStarted):
                break
    assert not await anyio.to_thread.run_sync(node.exists)
    assert ["n0"] == record.order


@pytest.mark.anyio
async def test_failure_of_a_streamed_run_is_raised_when_the_block_is_left() -> None:
    """A single error is raised, not an exception group."""
    actions["n0"] = lambda: 1 / 0
    seen: list[object] = []
    with pytest.raises(FuruComputeError):
        async with stream_local([chain(2)]) as events:
            async for event in events:
                seen.append(event)
    assert isinstance(seen[-1], RunFinished)


@pytest.mark.anyio
async def test_error_of_the_block_is_raised_unchanged() -> None:
    """The error also stops the run."""
    with pytest.raises(KeyError):
        async with stream_local([chain(2)]):
            raise KeyError("mine")


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, -1, 1.5, True])
async def test_buffer_must_have_room_for_an_event(size: object) -> None:
    with pytest.raises((TypeError, ValueError), match="buffer_events"):
        async with stream_local([chain(1)], buffer_events=size):  # type: ignore[arg-type]
            pass


def test_stream_accepts_the_options_of_a_run() -> None:
    options = set(inspect.signature(run_local_async).parameters) - {"roots"}
    assert options == set(get_type_hints(RunOptions))


# ---- the report ----


def test_report_stays_small_for_any_number_of_nodes() -> None:
    """The report lists at most ten nodes of each kind, the slowest first."""
    recorder, path = Recorder(max_workers=4), CriticalPath()
    for number in range(5000):
        recorder(done(f"{number}", float(number)))
        path.computed(f"{number}", "Node", float(number), [f"{number + 1}"])
    report = recorder.finish("finished", skipped=0, failures=(), critical_path=path.longest)
    assert [4999.0 - number for number in range(10)] == [one.duration_sec for one in report.slowest]
    assert report.slowest == report.critical_path
    assert report.critical_path_sec == report.work_sec == sum(range(5000))


def test_efficiency_is_work_divided_by_the_workers_time() -> None:
    assert 0.5 == RunReport(wall_sec=2, max_workers=4, work_sec=4).efficiency
    assert 0.0 == RunReport().efficiency


def test_efficiency_leaves_out_async_nodes() -> None:
    """Async nodes need no worker: counting a hundred of them would give an efficiency far above 1."""
    report = RunReport(computed=101, wall_sec=2, max_workers=4, work_sec=204, async_sec=200)
    assert 0.5 == report.efficiency
    assert "4.00 s of work on 4 workers, 50% of their time" in report.summary()
    assert "async nodes: 200.00 s on the event loop" in report.summary()


def test_summary_shows_where_the_time_was_spent() -> None:
    """The first line has the counts. Each of the other lines has one topic."""
    lines = run_local([chain(3)], max_workers=2).summary().splitlines()
    assert lines[0].startswith("computed 3, reused 0, failed 0 in ")
    assert ["workers", "critical path", "on it", "slowest", "classes"] == [
        line.split(":")[0].strip() for line in lines[1:]
    ]
    assert "Node 3 in" in lines[-1]


def test_report_in_a_notebook_escapes_messages_of_nodes() -> None:
    actions["n0"] = lambda: (_ for _ in ()).throw(ValueError("<script>"))
    with pytest.raises(FuruComputeError) as caught:
        run_local([chain(1)])
    shown = caught.value.report._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


@pytest.mark.anyio
async def test_each_event_of_a_stream_is_read_by_one_reader_and_all_readers_finish() -> None:
    read: list[list[Any]] = [[], [], []]
    all_events: list[Any] = []

    async with (
        anyio.create_task_group(),
        stream_local(flat(30), on_event=all_events.append) as events,
    ):

        async def reader(own: list[Any]) -> None:
            async for event in events:
                own.append(event)
                await anyio.lowlevel.checkpoint()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as readers:
                for own in read:
                    readers.start_soon(reader, own)
    assert len(all_events) == sum(map(len, read))
    assert all(event in all_events for own in read for event in own)
    assert 30 == events.report.computed


def breaking_off(error: BaseException) -> Iterator[Any]:
    """Yield two roots, and then raise the error."""
    yield from flat(2)
    raise error


@pytest.mark.anyio
@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), LookupError("broke off")])
async def test_error_of_a_streamed_run_is_raised_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)):
        async with stream_local(breaking_off(error), window_size=1) as events:
            async for _ in events:
                pass


class FailingHelper(ThreadWorkers):
    """Workers that start a helper task, which fails."""

    def open(self, tasks: Any, deliver: Any, **options: Any) -> Any:
        async def fail() -> None:
            await anyio.lowlevel.checkpoint()
            raise OSError("the connection broke")

        tasks.start_soon(fail)
        return super().open(tasks, deliver, **options)


@pytest.mark.anyio
async def test_error_of_helper_tasks_of_workers_is_raised_unchanged() -> None:
    """The error is the same for a run and for a stream."""
    with pytest.raises(OSError, match="the connection broke"):
        await run_local_async(flat(5), workers=FailingHelper())
    with pytest.raises(OSError, match="the connection broke"):
        async with stream_local(flat(5), workers=FailingHelper()) as events:
            async for _ in events:
                pass


def test_classes_with_the_same_name_are_counted_separately() -> None:
    """Such classes are shown with their modules; other classes are shown by name only."""
    other: Any = type("Node", (Node,), {"__module__": "elsewhere"})
    estimate = Estimate(lambda node_class: None, max_workers=1)
    report = run_local(
        [*flat(3), other(name="o"), AsyncNode(name="a")], on_event=estimate.add, progress=False
    )
    counts = {one.name: one.computed for one in report.classes}
    assert {"tests.graphs:Node": 3, "elsewhere:Node": 1, "AsyncNode": 1} == counts
    known = {node_class: one.known for node_class, one in estimate.classes.items()}
    assert {"tests.graphs:Node": 3, "elsewhere:Node": 1, "tests.graphs:AsyncNode": 1} == known
