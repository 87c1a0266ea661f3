"""Threads: which nodes run in parallel, and which run one after another."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from blockbuster import BlockBuster

from furu import FuruComputeError, run_local, run_local_async
from furu._common.loops import Waker
from furu.events import Event, NodeDone, NodeOverran, NodeStarted, PlanKnown
from furu.execution.workers.serial import SerialPolicy, Usage
from furu.execution.workers.threads import ThreadWorkers
from tests.graphs import AsyncNode, Computed, Node, actions, chain, flat, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


def test_slow_nodes_get_every_thread() -> None:
    """Each of eight nodes waits until all eight are running."""
    barrier = threading.Barrier(8)
    for number in range(8):
        actions[f"f{number}"] = lambda: barrier.wait(10)
    assert 8 == run_local(flat(8), max_workers=8).computed


def test_slow_node_does_not_delay_short_ones(record: Computed) -> None:
    """The slow node finishes after a thousand short nodes, most of which come later in the order."""
    short = flat(1000)
    slow = Node(name="slow")
    last_but_one = threading.Event()

    def wait_for_the_others() -> None:
        assert last_but_one.wait(15)

    actions["slow"] = wait_for_the_others
    actions["f999"] = last_but_one.set
    assert 1001 == run_local([*short[:100], slow, *short[100:]], max_workers=2).computed


def test_slow_nodes_in_all_threads_but_one_leave_that_thread_for_short_nodes(record: Computed) -> None:
    """Three of four threads are blocked until a chain of short nodes has been computed."""
    ended = threading.Event()
    for number in range(3):
        actions[f"f{number}"] = lambda: ended.wait(15)
    actions["n199"] = ended.set
    assert 203 == run_local([*flat(3), chain(200)], max_workers=4).computed
    assert ended.is_set()


@pytest.mark.anyio
async def test_async_node_is_not_delayed_by_an_earlier_one_that_waits_for_a_thread() -> None:
    held = threading.Event()
    below = Node(name="below")
    first, second = AsyncNode(name="first", below=(below,)), AsyncNode(name="second")

    def wait_for_the_second() -> None:
        assert held.wait(15)

    async def let_go() -> None:
        await anyio.lowlevel.checkpoint()
        held.set()

    actions["below"] = wait_for_the_second
    actions["second"] = let_go
    assert 3 == (await run_local_async([first, second])).computed


def test_short_nodes_after_slow_ones_are_computed_in_one_thread() -> None:
    """The patience is long, so that this also works on a slow machine."""
    policy = SerialPolicy(short_sec=1.0)
    barrier = threading.Barrier(4)
    slow, short = flat(1000)[:4], flat(1000)[4:]
    by_thread: list[int] = []

    def hold() -> None:
        barrier.wait(10)
        policy.patience_sec = 60.0  # from now on, no short node counts as slow

    for node in slow:
        actions[node.name] = hold
    for node in short:
        actions[node.name] = lambda: by_thread.append(threading.get_ident())
    run_local([*slow, *short], workers=ThreadWorkers(policy=lambda: policy), max_workers=4)
    assert 1 == len(set(by_thread[-20:]))


def test_failure_in_serial_mode_hands_back_later_jobs(record: Computed) -> None:
    """Dependents of the failed node do not start, and independent nodes are computed."""
    top = chain(30)
    actions["n9"] = lambda: 1 / 0
    with pytest.raises(FuruComputeError, match="ZeroDivisionError"):
        run_local([top, *flat(50)], on_failure="continue")
    assert {f"n{number}" for number in range(10)} | {f"f{number}" for number in range(50)} == set(
        record.order
    )
    assert 60 == len(record.order)


@pytest.mark.anyio
async def test_nothing_begins_serially_after_a_failure_that_the_loop_does_not_know(
    record: Computed, no_blocking_calls: BlockBuster
) -> None:
    """The event loop stays blocked until the next node of the chain would have started."""
    no_blocking_calls.deactivate()
    patient = ThreadWorkers(policy=lambda: SerialPolicy(patience_sec=60.0))
    known, held, begun = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        begun.wait(0.3)

    waker = Waker(hold)

    def fail() -> None:
        waker.wake()
        assert held.wait(10)
        raise ValueError("bad")

    def on_event(event: Event) -> None:
        if isinstance(event, PlanKnown):
            known.set()

    actions.update(n0=lambda: known.wait(10), n2=fail, n3=begun.set)
    with pytest.raises(FuruComputeError, match="bad"):
        await run_local_async([chain(10)], workers=patient, on_failure="continue", on_event=on_event)
    assert ["n0", "n1", "n2"] == record.order


class Leaving(SerialPolicy):
    """Leaves serial mode at the first check, and calls a function just before."""

    def __init__(self, just_before: Callable[[], None]) -> None:
        self._just_before = just_before
        self._leaving: int | None = None
        super().__init__()

    def is_slow(self, before: Usage, now: Usage, *, is_late: bool) -> bool:
        self._leaving = threading.get_ident()
        return True

    @property
    def is_serial(self) -> bool:  # type: ignore[override]
        """The event loop reads this after it has delivered all news and before it leaves serial mode."""
        if self._leaving == threading.get_ident():
            self._leaving = None
            self._just_before()
        return self._is_serial

    @is_serial.setter
    def is_serial(self, value: bool) -> None:
        self._is_serial = value


def test_outcome_of_a_node_that_finishes_as_serial_mode_is_left_is_delivered(
    no_blocking_calls: BlockBuster,
) -> None:
    """Nothing else wakes the loop: the next node waits for the delivery."""
    no_blocking_calls.deactivate()  # this test blocks the event loop
    let_go, next_began, delivered = threading.Event(), threading.Event(), threading.Event()
    ended_in_time: list[bool] = []

    def end_the_first() -> None:
        let_go.set()
        next_began.wait(10)

    def wait_delivered() -> None:
        next_began.set()
        ended_in_time.append(delivered.wait(5))

    def on_event(event: Event) -> None:
        if isinstance(event, NodeDone):
            delivered.set()

    actions.update(n0=lambda: let_go.wait(10), n1=wait_delivered)
    workers = ThreadWorkers(policy=lambda: Leaving(end_the_first))
    assert 40 == run_local([chain(40)], workers=workers, on_event=on_event).computed
    assert [True] == ended_in_time


# ---- time limits ----


class Limited(Node):
    """A node with a time limit that it never reaches."""

    _timeout_sec = 3600.0


class Briefly(Node):
    """A node that exceeds its time limit."""

    _timeout_sec = 0.01


@pytest.mark.anyio
async def test_time_limits_need_no_task_for_each_node(record: Computed) -> None:
    tasks: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, NodeDone):
            tasks.append(len(anyio.get_running_tasks()))

    nodes = (Limited(name=f"t{number}") for number in range(1000))
    report = await run_local_async(nodes, window_size=50, max_workers=4, on_event=on_event)
    assert 1000 == report.computed
    assert max(tasks) <= 20


@pytest.mark.anyio
@pytest.mark.parametrize("max_workers", [1, 4])
async def test_each_overrun_is_reported_once(max_workers: int) -> None:
    reported: dict[str, threading.Event] = {}
    overruns: list[str] = []
    nodes = [cls(name=f"{cls.__name__}{n}") for n in range(4) for cls in (Limited, Briefly, Node)]
    for node in nodes:
        if type(node) is Briefly:
            reported[node.furu_hash] = threading.Event()
            actions[node.name] = functools.partial(reported[node.furu_hash].wait, 10)

    def on_event(event: Event) -> None:
        if isinstance(event, NodeOverran):
            overruns.append(event.hash)
            reported[event.hash].set()

    with anyio.fail_after(20):
        report = await run_local_async(nodes, max_workers=max_workers, on_event=on_event)
    assert (12, 4) == (report.computed, report.overran)
    assert set(reported) == set(overruns)


# ---- threads that cannot be started ----


@pytest.fixture
def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Fail to start the n-th thread for nodes, counted from 0, if a function returns true for n."""
    run_sync = anyio.to_thread.run_sync

    def refuse(refused: Callable[[int], bool]) -> None:
        numbers = itertools.count()

        async def run_or_refuse(function: Any, *args: Any, **options: Any) -> Any:
            if getattr(function, "__name__", "") == "_work" and refused(next(numbers)):
                raise RuntimeError("can't start new thread")
            return await run_sync(function, *args, **options)

        monkeypatch.setattr(anyio.to_thread, "run_sync", run_or_refuse)

    return refuse


@pytest.mark.anyio
async def test_thread_that_cannot_be_started_is_not_counted(
    refuse_threads: Callable[[Callable[[int], bool]], None],
) -> None:
    """A thread that failed to start leaves room for a later thread."""
    refuse_threads(lambda number: number < 4)
    with (
        anyio.fail_after(20),
        pytest.raises(FuruComputeError, match="no thread could be started") as caught,
    ):
        await run_local_async(flat(50), max_workers=2, on_failure="continue")
    report = caught.value.report
    assert 50 == report.computed + report.failed
    assert report.failed <= 4


@pytest.mark.anyio
async def test_running_threads_compute_the_nodes_of_threads_that_cannot_be_started(
    refuse_threads: Callable[[Callable[[int], bool]], None],
) -> None:
    """With only one thread, even slow nodes are computed one after another."""
    let_go = threading.Event()
    actions["f0"] = functools.partial(let_go.wait, 10)
    refuse_threads(lambda number: number > 0)

    def on_event(event: Event) -> None:
        if isinstance(event, NodeStarted):
            threading.Timer(0.05, let_go.set).start()

    with anyio.fail_after(20):
        report = await run_local_async(flat(20), max_workers=8, on_event=on_event)
    assert 20 == report.computed
