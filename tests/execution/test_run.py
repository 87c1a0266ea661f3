"""What run_local and run_local_async compute, in which order, and how many nodes at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sniffio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import furu
from furu import EXEC_CONTEXT, ExecContext, Furu, FuruComputeError, run_local, run_local_async, use_settings
from furu._common.loops import loop_is_running
from furu.events import (
    NodeDone,
    NodePlanned,
    NodeReused,
    NodeStarted,
    PlanKnown,
    RootActivated,
    RootCompleted,
    RunFinished,
    RunStarted,
)
from tests.graphs import AsyncNode, Computed, Node, actions, chain, diamond, flat, from_edges, recording

WINDOWS = ["bfs", "dfs", 1, 2, 100]


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


@pytest.mark.parametrize("window_size", WINDOWS)
@pytest.mark.parametrize(
    ("make_roots", "nodes"),
    [
        (lambda: [diamond()], 4),
        (lambda: flat(20), 20),
        (lambda: [chain(30)], 30),
        (lambda: from_edges([[], [0], [0], [1, 2], [], [3, 4], [0, 5]]), 7),
        (lambda: [diamond(), *flat(3), chain(5), diamond()], 12),
        (list, 0),
    ],
    ids=["diamond", "flat", "chain", "mixed", "several with one twice", "none"],
)
def test_each_missing_node_is_computed_once_and_a_second_run_computes_nothing(
    make_roots: Any, nodes: int, window_size: str | int, record: Computed
) -> None:
    """The counts are the same for every window."""
    report = run_local(make_roots(), window_size=window_size, max_workers=4)
    assert (nodes, 0, 0, 0) == (report.computed, report.reused, report.failed, report.skipped)
    assert {1} >= set(record.counts().values())
    assert nodes == len(record.order)
    again = run_local(make_roots(), window_size=window_size)
    assert (0, len(set(make_roots()))) == (again.computed, again.reused)
    assert nodes == len(record.order)


@pytest.mark.anyio
@pytest.mark.parametrize("window_size", WINDOWS)
async def test_run_on_a_live_loop_computes_sync_and_async_nodes(window_size: str | int) -> None:
    """A node in a thread may depend on a node on the event loop, and the other way round."""
    base = Node(name="base")
    middle = [AsyncNode(name=f"m{i}", below=(base,)) for i in range(5)]
    top = Node(name="top", below=tuple(middle))
    report = await run_local_async([top, *middle], window_size=window_size)
    assert 7 == report.computed
    assert 11 == await top.aget()


def test_dependencies_of_a_done_node_are_not_visited() -> None:
    root = diamond()
    run_local([root])
    events: list[Any] = []
    report = run_local([root], on_event=events.append)
    assert (0, 1) == (report.computed, report.reused)
    assert [NodeReused(root.furu_hash, "tests.graphs:Node")] == [
        event for event in events if isinstance(event, NodeReused)
    ]


def test_run_continues_where_an_earlier_run_stopped(record: Computed) -> None:
    root = diamond()
    run_local(root.below[:1])
    report = run_local([root])
    assert (2, 2) == (report.computed, report.reused)
    assert ["base", "left", "right", "top"] == record.order


def test_deep_chain_runs_at_the_default_recursion_limit() -> None:
    """In a chain of 3,000 nodes, the value of the last node is the length of the chain."""
    root = chain(3000)
    assert 3000 == run_local([root]).computed
    assert 3000 == root.get()


@pytest.mark.anyio
async def test_as_many_threads_compute_as_there_are_workers_and_no_more() -> None:
    """Four nodes meet at a barrier of four, and never more than four run at once."""
    barrier = threading.Barrier(4)
    lock = threading.Lock()
    running = 0
    most = 0

    def meet() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(10)
        with lock:
            running -= 1

    roots = flat(12)
    for node in roots:
        actions[node.name] = meet
    report = await run_local_async(roots, max_workers=4)
    assert (12, 4) == (report.computed, most)


def test_sleeping_nodes_fill_all_workers() -> None:
    """32 nodes that sleep 0.1 s each on 8 workers take 0.4 s of sleep and not much more."""
    roots = flat(32)
    for node in roots:
        actions[node.name] = lambda: time.sleep(0.1)
    report = run_local(roots, max_workers=8)
    assert 1.3 * 0.4 * 2 >= report.wall_sec


@pytest.mark.parametrize(("window_size", "most"), [("dfs", 1), (1, 1), (2, 2), (5, 5)])
def test_window_bounds_the_active_roots(window_size: str | int, most: int) -> None:
    """A root is activated only if the window has room."""
    active: set[str] = set()
    seen: list[int] = []

    def watch(event: object) -> None:
        if isinstance(event, RootActivated):
            active.add(event.hash)
            seen.append(len(active))
        elif isinstance(event, RootCompleted):
            active.remove(event.hash)

    roots = [Node(name=f"root{i}", below=(Node(name=f"leaf{i}"),)) for i in range(12)]
    run_local(roots, window_size=window_size, on_event=watch)
    assert most == max(seen)
    assert 12 == len(seen)
    assert set() == active


def test_bfs_activates_every_root_before_any_completes() -> None:
    gate = threading.Event()
    actions["f0"] = lambda: gate.wait(10)
    active: list[str] = []

    def watch(event: object) -> None:
        if isinstance(event, RootActivated):
            active.append(event.hash)
            if len(active) == 30:
                gate.set()

    run_local(flat(30), max_workers=1, on_event=watch)
    assert gate.is_set()


def test_generator_of_roots_is_read_only_as_the_window_moves() -> None:
    """The generator is never ahead of the completed roots by more than the window size."""
    made = 0
    completed = 0
    ahead: list[int] = []

    def roots() -> Iterator[Node]:
        nonlocal made
        for number in range(50):
            made += 1
            ahead.append(made - completed)
            yield Node(name=f"g{number}")

    def watch(event: object) -> None:
        nonlocal completed
        completed += isinstance(event, RootCompleted)

    report = run_local(roots(), window_size=4, on_event=watch)
    assert (50, 50) == (report.computed, made)
    assert 4 >= max(ahead)


def test_roots_finish_in_order_and_depth_first_with_one_worker(record: Computed) -> None:
    """
    r1   r2
    | \\  | \\
    a  b b  c
    """
    a, b, c = Node(name="a"), Node(name="b"), Node(name="c")
    roots = [Node(name="r1", below=(a, b)), Node(name="r2", below=(b, c))]
    run_local(roots, max_workers=1)
    assert ["a", "b", "r1", "c", "r2"] == record.order


def test_critical_path_order_uses_recorded_durations(record: Computed) -> None:
    """The chain has more nodes, but nodes of the other class took longer in an earlier run."""

    class Long(Node):
        """A separate class, so that its duration is recorded separately."""

    actions["slow"] = lambda: time.sleep(0.1)
    run_local([Long(name="slow"), Node(name="quick")])
    record.order.clear()
    run_local([chain(3), Long(name="long")], max_workers=1, order="critical-path")
    assert ["long", "n0", "n1", "n2"] == record.order


def test_critical_path_order_counts_nodes_if_nothing_is_recorded(record: Computed) -> None:
    run_local([*flat(3), chain(3)], max_workers=1, order="critical-path")
    assert ["n0", "n1"] == record.order[:2]


def test_context_inside_a_node_names_the_node_and_is_reset_afterwards() -> None:
    """Inside a node, the context has the node's spec key and hash; outside, the mode is "interactive"."""
    seen: list[ExecContext] = []
    root = Node(name="look", kind="gpu")
    actions["look"] = lambda: seen.append(EXEC_CONTEXT.get())
    run_local([root])
    assert [ExecContext("executor", "gpu", "local", root.furu_hash)] == seen
    assert ExecContext("interactive", None, None, None) == EXEC_CONTEXT.get()


@pytest.mark.anyio
@pytest.mark.parametrize("cls", [Node, AsyncNode])
async def test_nodes_see_context_variables_of_the_host_but_not_of_other_nodes(cls: Any) -> None:
    """Every node sees the host's values. A value that a node sets is not visible to other nodes."""
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    variable.set("the host's")
    seen: list[str] = []

    def look_and_set() -> None:
        seen.append(variable.get())
        variable.set("a node's")

    roots = [cls(name=f"c{i}") for i in range(6)]
    for node in roots:
        actions[node.name] = look_and_set
    await run_local_async(roots, max_workers=2)
    assert ["the host's"] * 6 == seen
    assert "the host's" == variable.get()


@pytest.mark.anyio
async def test_settings_of_the_host_apply_inside_nodes(tmp_path: Path) -> None:
    """A host can use a separate store for each request. Nodes in threads and on the loop use it."""
    roots = [Node(name="n"), AsyncNode(name="a")]
    with use_settings(store=tmp_path / "other"):
        await run_local_async(roots)
        there = [await anyio.to_thread.run_sync(node.exists) for node in roots]
    outside = [await anyio.to_thread.run_sync(node.exists) for node in roots]
    assert ([True, True], [False, False]) == (there, outside)


def test_store_is_fixed_when_the_run_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that changes the working directory does not move the store."""
    monkeypatch.setenv("FURU_PATH", "relative-store")
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    actions["base"] = lambda: os.chdir(elsewhere)
    run_local([diamond()])
    monkeypatch.chdir(tmp_path)
    assert diamond().exists()


@pytest.mark.anyio
async def test_loop_stays_free_while_nodes_block() -> None:
    """A task of the host runs while every worker is blocked, and releases them."""
    gate = threading.Event()
    roots = flat(3)
    for node in roots:
        actions[node.name] = lambda: gate.wait(10)
    async with anyio.create_task_group() as tasks:

        async def host() -> None:
            await anyio.sleep(0)
            gate.set()

        tasks.start_soon(host)
        report = await run_local_async(roots, max_workers=3)
    assert 3 == report.computed


@pytest.mark.anyio
async def test_two_runs_on_one_loop_compute_a_shared_node_once(record: Computed) -> None:
    """The second run waits for the first."""
    results: list[furu.RunReport] = []

    async def run() -> None:
        results.append(await run_local_async([diamond()], poll_interval_sec=0.01))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        tasks.start_soon(run)
    assert {"base": 1, "left": 1, "right": 1, "top": 1} == record.counts()
    assert 4 == sum(report.computed for report in results)


def test_threads_with_their_own_event_loops_compute_a_shared_node_once(
    record: Computed,
) -> None:
    threads = [
        threading.Thread(target=lambda: run_local([diamond()], poll_interval_sec=0.01)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert {"base": 1, "left": 1, "right": 1, "top": 1} == record.counts()


def test_waiting_for_another_process_occupies_no_worker(tmp_path: Path, record: Computed) -> None:
    """With one worker, other nodes run while another process computes. After that its node is reused."""
    script = tmp_path / "other.py"
    script.write_text(
        "import sys\n"
        "from tests.graphs import Node, actions\n"
        "def block():\n"
        "    print('computing', flush=True)\n"
        "    sys.stdin.read()\n"
        "actions['shared'] = block\n"
        "Node(name='shared').get()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert b"computing\n" == other.stdout.readline()
        release = other.stdin.close
        actions["f2"] = release
        shared = Node(name="shared")
        report = run_local(
            [Node(name="top", below=(shared,)), *flat(3)], max_workers=1, poll_interval_sec=0.01
        )
    assert ["f0", "f1", "f2", "top"] == record.order
    assert (4, 1) == (report.computed, report.reused)


def test_events_are_in_order() -> None:
    """The events follow the run from its start through each node to its end."""
    events: list[object] = []
    run_local([chain(2)], on_event=events.append)
    kinds = [type(event) for event in events]
    assert [
        RunStarted,
        RootActivated,
        NodePlanned,
        NodePlanned,
        PlanKnown,
        NodeStarted,
        NodeDone,
        NodeStarted,
        NodeDone,
        RootCompleted,
        RunFinished,
    ] == kinds


def test_sink_that_raises_neither_breaks_nor_stops_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:

    def sink(event: object) -> None:
        raise RuntimeError("the sink is broken")

    assert 4 == run_local([diamond()], on_event=sink).computed
    assert "the sink is broken" in caplog.text


def run_order(graph: list[list[int]], store: Path, seed: str) -> list[str]:
    """Run a graph in another process with this hash seed, and return the order of its nodes."""
    code = (
        "import json, sys\n"
        "from furu import run_local, Furu\n"
        "from tests.graphs import Node, computed\n"
        "class Sets(Node):\n"
        "    more: frozenset[Furu] = frozenset()\n"
        f"graph = {graph!r}\n"
        "nodes = []\n"
        "for number, below in enumerate(graph):\n"
        "    nodes.append(Sets(name=f'r{number}', more=frozenset(nodes[i] for i in below)))\n"
        "run_local(nodes[::-1], max_workers=1)\n"
        "print(json.dumps(computed.order))\n"
    )
    import json

    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FURU_PATH": str(store / seed),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    order: list[str] = json.loads(done.stdout)
    return order


def test_order_of_dispatch_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    """Three processes with different seeds, and dependencies in sets, run the nodes in the same order."""
    graph = [[], [], [0, 1], [0], [1, 2, 3], [], [0, 3, 5], [4, 6, 2], [1, 5], [7, 8, 0, 3]]
    orders = [run_order(graph, tmp_path, seed) for seed in ("0", "1", "4242")]
    assert 10 == len(orders[0])
    assert orders[0] == orders[1] == orders[2]


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """Draw a graph: for each node, the earlier nodes that it depends on."""
    size = draw(st.integers(1, 12))
    return [
        sorted(draw(st.sets(st.integers(0, node - 1), max_size=3))) if node else [] for node in range(size)
    ]


@given(data=st.data())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_random_graphs_with_failures_are_computed_correctly(
    backend: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Each node runs at most once and after its dependencies. The next run computes the remaining nodes."""
    graph = data.draw(graphs(), label="graph")
    size = len(graph)
    numbers = st.integers(0, size - 1)
    failing = data.draw(st.frozensets(numbers, max_size=2), label="failing")
    asynchronous = data.draw(st.frozensets(numbers), label="async")
    roots = data.draw(st.lists(numbers, min_size=1, max_size=size), label="roots")
    window = data.draw(st.sampled_from(["bfs", "dfs", 1, 2, 5]), label="window")
    workers = data.draw(st.integers(1, 4), label="workers")
    on_failure: Any = data.draw(st.sampled_from(["stop", "continue"]), label="on_failure")
    as_generator = data.draw(st.booleans(), label="generator")

    nodes = from_edges(graph, asynchronous=asynchronous)
    needed: set[int] = set()
    for number in range(size - 1, -1, -1):
        if number in roots or any(number in graph[above] for above in needed):
            needed.add(number)

    def fail() -> None:
        raise ValueError("drawn to fail")

    async def run(fails: frozenset[int]) -> tuple[list[str], furu.RunReport]:
        with recording() as computed:
            for number in fails:
                actions[f"r{number}"] = fail
            wanted = [nodes[number] for number in roots]
            try:
                report = await run_local_async(
                    iter(wanted) if as_generator else wanted,
                    window_size=window,
                    max_workers=workers,
                    on_failure=on_failure,
                )
            except FuruComputeError as error:
                assert isinstance(error.__cause__, ValueError)  # noqa: PT017  # not every draw raises
                report = error.report
            return list(computed.order), report

    with use_settings(store=tmp_path_factory.mktemp("store")):
        order, report = anyio.run(run, failing, backend=backend)
        assert {1} >= set(Counter(order).values())
        position = {name: place for place, name in enumerate(order)}
        for number in needed & {int(name[1:]) for name in order}:
            for below in graph[number]:
                assert position[f"r{below}"] < position[f"r{number}"]
        must_fail = failing & needed
        assert bool(must_fail) == bool(report.failed)
        assert len(order) == report.computed + report.failed
        if not must_fail or on_failure == "continue":
            lost: set[int] = set()
            for number in sorted(needed):
                if number in failing or lost & set(graph[number]):
                    lost.add(number)
            assert {f"r{number}" for number in needed - lost} <= set(order)
            assert len(needed - lost) == report.computed
        second, report = anyio.run(run, frozenset(), backend=backend)
        assert not set(second) & (set(order) - {f"r{number}" for number in failing})
        assert all(nodes[number].exists() for number in roots)
        assert (0, 0) == (report.failed, report.skipped)


# ---- runs inside nodes ----


class Inner(Furu[int]):
    number: int

    def _create(self) -> int:
        return self.number


class RunsAGraph(Furu[int]):
    def _create(self) -> int:
        return run_local([Inner(number=number) for number in range(3)]).computed


class GetsAsync(Furu[int]):
    below: AsyncNode

    def _create(self) -> int:
        assert not loop_is_running()
        with pytest.raises(sniffio.AsyncLibraryNotFoundError):
            sniffio.current_async_library()
        return self.below.get()


@pytest.mark.anyio
async def test_node_in_a_thread_may_run_a_graph() -> None:
    """The node's thread has no running event loop."""
    assert 1 == (await run_local_async([RunsAGraph()])).computed
    assert 3 == await RunsAGraph().aget()


@pytest.mark.anyio
async def test_thread_of_a_node_has_no_current_async_library() -> None:
    """sniffio finds no async library in the thread, on either backend."""
    assert 2 == (await run_local_async([GetsAsync(below=AsyncNode(name="below"))])).computed
