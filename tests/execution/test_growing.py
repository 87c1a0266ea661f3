"""Graphs that grow: `_dependencies()` looks at values of nodes that are computed first."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import furu
import furu.events as events
from furu import (
    Furu,
    FuruComputeError,
    FuruCycleError,
    FuruError,
    plan_local,
    run_local,
    run_local_async,
)
from furu.graph import make_graph
from furu.node.base import artifact_of
from tests.graphs import recording

pytestmark = pytest.mark.anyio

ASKED: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _empty_record() -> Iterator[None]:
    ASKED.clear()
    with recording():
        yield


class Listing(Furu[list[str]]):
    """The names of the parts, which only its value shows."""

    names: tuple[str, ...]

    def _create(self) -> list[str]:
        ASKED["created Listing"] += 1
        return list(self.names)


class Part(Furu[int]):
    name: str

    def _create(self) -> int:
        ASKED[f"created {self.name}"] += 1
        if self.name == "bad":
            raise ValueError("a bad part")
        return len(self.name)


class Report(Furu[dict[str, int]]):
    """
    Report -> Listing, and then -> Part, Part, ...
    """

    listing: Furu[list[str]]

    def _dependencies(self) -> Iterable[Part]:
        ASKED["asked"] += 1
        return [Part(name=name) for name in self.listing.get()]

    def _create(self) -> dict[str, int]:
        return {part.name: part.get() for part in self._dependencies()}


class Generated(Report):
    """Yields its dependencies."""

    def _dependencies(self) -> Iterable[Part]:
        ASKED["asked"] += 1
        yield Part(name="first")
        for name in self.listing.get():
            yield Part(name=name)


class Awaiting(Report):
    """Its `_dependencies` and `_create` are async."""

    async def _dependencies(self) -> list[Part]:  # type: ignore[override]
        return [Part(name=name) for name in await self.listing.aget()]

    async def _create(self) -> dict[str, int]:  # type: ignore[override]
        return {part.name: await part.aget() for part in await self._dependencies()}


class AsyncGenerated(Awaiting):
    """Its `_dependencies` is an async generator."""

    async def _dependencies(self) -> AsyncIterator[Part]:  # type: ignore[override]
        for name in await self.listing.aget():
            yield Part(name=name)

    async def _create(self) -> dict[str, int]:  # type: ignore[override]
        return {part.name: await part.aget() async for part in self._dependencies()}


class Above(Furu[int]):
    """A dependent of a node whose dependencies are not known at first."""

    report: Furu[dict[str, int]]

    def _create(self) -> int:
        return sum(self.report.get().values())


KINDS = [Report, Generated, Awaiting, AsyncGenerated]
NAMES = ("a", "bb", "ccc")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", ["dfs", "bfs", 1])
async def test_nodes_found_while_the_run_lasts_are_computed(kind: Any, window: str | int) -> None:
    roots = [Above(report=kind(listing=Listing(names=names))) for names in (NAMES, NAMES[:1], ())]
    report = await run_local_async(roots, window_size=window)
    of_first = len("first") if kind is Generated else 0
    assert (3 + 3 + 3 + 3 + bool(of_first), 0) == (report.computed, report.failed)
    assert [6 + of_first, 1 + of_first, of_first] == [root.get() for root in roots]


@pytest.mark.parametrize("kind", KINDS)
def test_get_computes_what_dependencies_ask_for(kind: Any) -> None:
    node = Above(report=kind(listing=Listing(names=NAMES)))
    assert 6 + (len("first") if kind is Generated else 0) == node.get()
    assert 1 == ASKED["created a"]


async def test_aget_computes_what_dependencies_ask_for() -> None:
    assert 6 == await Above(report=AsyncGenerated(listing=Listing(names=NAMES))).aget()


def test_process_workers_compute_a_growing_graph() -> None:
    root = Above(report=Report(listing=Listing(names=NAMES)))
    report = run_local([root], workers=furu.ProcessWorkers(), max_workers=2)
    assert 6 == report.computed
    assert 6 == root.get()


# ---- how often a node is asked ----


class Asks(Furu[int]):
    """Asks for the values of other nodes, one after another."""

    parts: int

    def _dependencies(self) -> Iterable[Part]:
        ASKED["asked"] += 1
        for number in range(self.parts):
            Part(name=f"part {number}").get()
        return ()

    def _create(self) -> int:
        return self.parts


def test_node_that_asks_for_ten_values_is_asked_eleven_times() -> None:
    run_local([Asks(parts=10)])
    assert 11 == ASKED["asked"]
    assert all(count == 1 for name, count in ASKED.items() if name.startswith("created"))


def test_node_that_waits_for_a_value_holds_no_worker() -> None:
    """With one worker, a node that kept it while it waits would block the run."""
    root = Above(report=Report(listing=Listing(names=NAMES)))
    assert 6 == run_local([root], max_workers=1).computed


def test_values_that_were_looked_at_are_dependencies() -> None:
    """So that a plan and `gc` see them, although `_dependencies` did not return them."""
    run_local([Asks(parts=2)])
    graph = make_graph([Asks(parts=2)])
    assert 3 == len(graph.nodes)


# ---- endings ----


class Broken(Report):
    """Its `_dependencies` raises once it knows the value."""

    def _dependencies(self) -> Iterable[Part]:
        names = self.listing.get()
        raise LookupError(f"no part for {len(names)} names")


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_error_of_dependencies_is_a_failure_of_the_node(on_failure: Any) -> None:
    root = Above(report=Broken(listing=Listing(names=NAMES)))
    with pytest.raises(FuruComputeError, match=r"Broken.*no part for 3 names") as caught:
        run_local([root, Part(name="other")], on_failure=on_failure)
    assert caught.value.report is not None
    assert (1, 1) == (caught.value.report.failed, caught.value.report.skipped)


class BadListing(Listing):
    """A list that cannot be read."""

    def _create(self) -> list[str]:
        raise OSError("no list")


def test_failure_of_an_awaited_node_skips_those_that_ask_for_it() -> None:
    root = Above(report=Report(listing=BadListing(names=NAMES)))
    with pytest.raises(FuruComputeError, match="no list") as caught:
        run_local([root, Part(name="other")], on_failure="continue")
    assert caught.value.report is not None
    assert (1, 1, 2) == (
        caught.value.report.computed,
        caught.value.report.failed,
        caught.value.report.skipped,
    )


def test_failure_of_a_node_found_later_is_one_failure() -> None:
    root = Above(report=Report(listing=Listing(names=("good", "bad", "fine"))))
    with pytest.raises(FuruComputeError, match="a bad part") as caught:
        run_local([root], on_failure="continue")
    assert caught.value.report is not None
    assert (3, 1, 2) == (
        caught.value.report.computed,
        caught.value.report.failed,
        caught.value.report.skipped,
    )


class Catches(Report):
    """Catches every exception, as code must not."""

    catches: str = "Exception"

    def _dependencies(self) -> Iterable[Part]:
        try:
            names = self.listing.get()
        except Exception:  # does not catch that a node is not done
            names = ["caught"]
        except BaseException:
            if self.catches == "Exception":
                raise
            names = ["caught"]
        return [Part(name=name) for name in names]


@pytest.mark.parametrize("catches", ["Exception", "BaseException"])
def test_code_that_catches_everything_is_asked_again(catches: str) -> None:
    root = Catches(listing=Listing(names=NAMES), catches=catches)
    run_local([root])
    assert {"a": 1, "bb": 2, "ccc": 3} == root.get()
    assert 0 == ASKED["created caught"]


class Removes(Report):
    """Removes the value that it asks for."""

    def _dependencies(self) -> Iterable[Part]:
        Path(artifact_of(self.listing).files.done).unlink(missing_ok=True)
        return super()._dependencies()


def test_value_that_never_stays_done_is_a_failure_and_not_a_loop() -> None:
    root = Removes(listing=Listing(names=NAMES))
    with pytest.raises(FuruComputeError, match=r"was computed and is missing again"):
        run_local([root])
    with pytest.raises(FuruError, match="is missing again"):
        root.get()


class Circle(Furu[int]):
    """Depends on a node that depends on it, once the value of another node is known."""

    start: Part

    def _dependencies(self) -> Iterable[Furu[Any]]:
        return [BackToCircle(circle=self)] if self.start.get() else []

    def _create(self) -> int:
        return 1


class BackToCircle(Furu[int]):
    circle: Furu[int]

    def _create(self) -> int:
        return 1


@pytest.mark.parametrize("is_known_first", [False, True])
def test_circle_that_appears_later_is_named(is_known_first: bool) -> None:
    """If the dependent is a root of its own, it is in the plan before the circle closes."""
    circle = Circle(start=Part(name="x"))
    roots: list[Furu[Any]] = [BackToCircle(circle=circle)] if is_known_first else [circle]
    with pytest.raises(FuruCycleError, match=r"circle:\n.*Circle.*\n  -> BackToCircle.*\n  -> ") as caught:
        run_local(roots)
    assert {Circle, BackToCircle} == {type(node) for node in caught.value.cycle}
    with pytest.raises(FuruCycleError):
        circle.get()


class RunsInDependencies(Furu[int]):
    def _dependencies(self) -> Iterable[Part]:
        run_local([Part(name="x")])
        return []

    def _create(self) -> int:
        return 1


def test_run_inside_dependencies_is_refused() -> None:
    with pytest.raises(FuruComputeError, match="must compute nothing"):
        run_local([RunsInDependencies()])
    assert "must compute nothing" in plan_local([RunsInDependencies()]).failures[0].message


# ---- plans, graphs, events ----


def files_in(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.rglob("*"))


def test_plan_says_that_more_nodes_follow_and_computes_nothing(store: Path) -> None:
    root = Above(report=Report(listing=Listing(names=NAMES)))
    before = files_in(store)
    plan = plan_local([root])
    assert (3, 1, (f"{__name__}:Listing",)) == (plan.to_compute, plan.open_nodes, plan.more_after)
    assert "1 of these may have more dependencies, which are known after" in str(plan)
    assert before == files_in(store)
    assert 0 == ASKED["created Listing"]
    root.report.listing.get()  # type: ignore[attr-defined]
    plan = plan_local([root])
    assert (5, 0, ()) == (plan.to_compute, plan.open_nodes, plan.more_after)


def test_events_announce_a_node_again_when_its_dependencies_are_known() -> None:
    seen: list[events.Event] = []
    root = Report(listing=Listing(names=NAMES))
    run_local([root], on_event=seen.append)
    planned = [event for event in seen if isinstance(event, events.NodePlanned)]
    of_root = [event for event in planned if event.hash == root.furu_hash]
    assert [(True, 1), (False, 4)] == [(event.is_open, len(event.depends_on)) for event in of_root]
    names = [type(event).__name__ for event in seen]
    assert names.index("PlanKnown") > max(i for i, name in enumerate(names) if name == "NodePlanned")


def test_second_run_reuses_the_root_without_asking() -> None:
    root = Report(listing=Listing(names=NAMES))
    run_local([root])
    ASKED.clear()
    assert 1 == run_local([root], on_code_change="ignore").reused
    assert 0 == ASKED["asked"]


async def test_two_runs_at_once_compute_each_node_once() -> None:
    root = Above(report=Report(listing=Listing(names=NAMES)))
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(run_local_async, [root])
    assert {1} == {count for name, count in ASKED.items() if name.startswith("created")}


def test_graph_shows_what_is_known() -> None:
    root = Report(listing=Listing(names=NAMES))
    assert 2 == len(make_graph([root]).nodes)
    root.listing.get()
    assert 5 == len(make_graph([root]).nodes)


# ---- any graph, any order ----

GRAPHS: dict[int, list[list[list[int]]]] = {}
FAILING: dict[int, frozenset[int]] = {}
STARTED: dict[int, list[int]] = {}
_lock = threading.Lock()


class Grown(Furu[int]):
    """A node of a random graph. Its dependencies come in stages: to know the nodes of a stage, it needs the
    values of all nodes of the stage before."""

    graph: int
    number: int

    def _stages(self) -> list[list[Grown]]:
        stages = GRAPHS[self.graph][self.number]
        return [[type(self)(graph=self.graph, number=number) for number in stage] for stage in stages]

    def _dependencies(self) -> Iterable[Grown]:
        for stage in self._stages():
            yield from stage
            for node in stage:
                node.get()

    def _create(self) -> int:
        with _lock:
            STARTED[self.graph].append(self.number)
        if self.number in FAILING[self.graph]:
            raise ValueError(self.number)
        return 1 + sum(node.get() for stage in self._stages() for node in stage)


class AsyncGrown(Grown):
    """Like `Grown`, on the event loop."""

    async def _create(self) -> int:  # type: ignore[override]
        with _lock:
            STARTED[self.graph].append(self.number)
        if self.number in FAILING[self.graph]:
            raise ValueError(self.number)
        return 1 + sum([await node.aget() for stage in self._stages() for node in stage])


@st.composite
def stages(draw: st.DrawFn) -> list[list[list[int]]]:
    graph: list[list[list[int]]] = []
    for number in range(draw(st.integers(1, 9))):
        below = st.lists(st.integers(0, number - 1), max_size=3, unique=True) if number else st.just([])
        graph.append(draw(st.lists(below, max_size=3)))
    return graph


def paths(graph: list[list[list[int]]], number: int) -> int:
    return 1 + sum(paths(graph, below) for stage in graph[number] for below in stage)


def needed(graph: list[list[list[int]]], roots: Iterable[int], failing: frozenset[int]) -> set[int]:
    """Return the nodes that a run computes or tries: a stage is known if all nodes before it succeed."""
    succeeds: dict[int, bool] = {}
    tried: set[int] = set()

    def visit(number: int) -> bool:
        if number not in succeeds:
            is_good = True
            for stage in graph[number]:
                visited = [visit(below) for below in stage]  # all of them, also after one that fails
                is_good = all(visited)
                if not is_good:
                    break
            if is_good:
                tried.add(number)
            succeeds[number] = is_good and number not in failing
        return succeeds[number]

    for root in roots:
        visit(root)
    return tried


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    graph=stages(),
    data=st.data(),
    window=st.sampled_from(["dfs", "bfs", 2]),
    max_workers=st.integers(1, 3),
    kind=st.sampled_from([Grown, AsyncGrown]),
    backend=st.sampled_from(["asyncio", "trio"]),
)
def test_growing_graph_ends_like_the_static_one(
    graph: list[list[list[int]]],
    data: st.DataObject,
    window: Any,
    max_workers: int,
    kind: type[Grown],
    backend: str,
) -> None:
    identifier = len(GRAPHS)
    numbers = st.integers(0, len(graph) - 1)
    failing = data.draw(st.frozensets(numbers, max_size=1))
    root_numbers = data.draw(st.lists(numbers, min_size=1, max_size=3))
    GRAPHS[identifier], FAILING[identifier], STARTED[identifier] = graph, failing, []
    roots = [kind(graph=identifier, number=number) for number in root_numbers]

    async def run() -> None:
        await run_local_async(roots, window_size=window, max_workers=max_workers, on_failure="continue")

    tried = needed(graph, root_numbers, failing)
    if tried & failing:
        with pytest.raises(FuruComputeError):
            anyio.run(run, backend=backend)
    else:
        anyio.run(run, backend=backend)
        assert [paths(graph, number) for number in root_numbers] == [root.get() for root in roots]
    started = STARTED[identifier]
    assert tried == set(started)
    assert len(started) == len(set(started))
    for position, number in enumerate(started):
        for below in [below for stage in graph[number] for below in stage]:
            assert below in started[:position]


WATCHED = """
import os, sys
sys.path[:] = {path!r}
from tests.execution.test_growing import ASKED, NAMES, Above, AsyncGenerated, Listing, Report
import furu

roots = [Above(report=kind(listing=Listing(names=NAMES))) for kind in (Report, AsyncGenerated)]
furu.plan_local(roots)  # imports what it needs
WRITES = {{f"os.{{name}}" for name in "mkdir rename link symlink remove rmdir truncate utime".split()}}
seen = []

def watch(event, arguments):
    if event in WRITES:
        seen.append((event, arguments))
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        seen.append((event, arguments))

sys.addaudithook(watch)
plan = furu.plan_local(roots)
print(plan.to_compute, plan.open_nodes, seen, dict(ASKED))
"""


def test_plan_of_a_growing_graph_writes_nothing(store: Path) -> None:
    """Python reports each of its system calls that change files."""
    code = WATCHED.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "5 2 [] {'asked': 2}\n" == done.stdout
    assert not store.exists() or [] == files_in(store)
