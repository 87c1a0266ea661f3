"""The plan of a run: why each node would be computed, and how long the run would take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from furu import File, Furu, FuruComputeError, PlanSummary, plan_local, run_local
from furu.demo import analyse
from furu.execution.discovery import Fact, Found, RootRead, RootWalked
from furu.execution.scheduler import Order
from furu.execution.workers.base import Job, Lane, make_job
from furu.planning.simulate import simulate
from furu.store.artifact import Status
from tests.graphs import AsyncNode, Computed, Node, actions, chain, diamond, flat, recording
from tests.test_demo import TREE, write


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as record:
        yield record


class Reads(Furu[str]):
    """Returns the text of a file."""

    source: File
    mark: int = 0

    def _create(self) -> str:
        return self.source.get().read_text()


class Joins(Furu[str]):
    """Joins the texts of several files."""

    parts: tuple[Reads, ...]

    def _create(self) -> str:
        return "".join(part.get() for part in self.parts)


class Seeded(Furu[int]):
    """A node with a number as its only field."""

    seed: int

    def _create(self) -> int:
        return self.seed


class Above(Furu[int]):
    """A node that depends on a Seeded node."""

    below: Seeded

    def _create(self) -> int:
        return self.below.get()


def reasons(plan: PlanSummary) -> dict[str, str]:
    """Map the class name of each node to its reason and the fields that the reason names."""
    return {node.name.rpartition(":")[2]: str(node).partition(": ")[2] for node in plan.nodes}


def files(folder: Path, *texts: str) -> list[File]:
    """Write input files with these contents."""
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    return [File(path=folder / f"{number}.txt") for number in range(len(texts))]


# ---- reasons ----


def test_new_node_is_missing() -> None:
    """The node is missing even if another node of its class is done."""
    run_local([Seeded(seed=1)])
    plan = plan_local([Seeded(seed=1), Seeded(seed=2), Above(below=Seeded(seed=2))])
    assert {"Seeded": "missing", "Above": "missing"} == reasons(plan)


def test_changed_file_makes_its_dependents_stale(tmp_path: Path) -> None:
    """The reason names the field. Nodes with an unchanged file are not stale."""
    run_local([Joins(parts=tuple(Reads(source=one) for one in files(tmp_path, "a", "b")))])
    plan = plan_local([Joins(parts=tuple(Reads(source=one) for one in files(tmp_path, "a", "c")))])
    assert {"Reads": "stale input: source", "Joins": "stale input: parts"} == reasons(plan)
    assert 2 == plan.to_compute


def test_node_with_different_inputs_is_missing_and_not_stale() -> None:
    """In a sweep, the node of the next value does not replace an earlier node."""
    run_local([Above(below=Seeded(seed=1))])
    plan = plan_local([Above(below=Seeded(seed=2))])
    assert {"Seeded": "missing", "Above": "missing"} == reasons(plan)


def test_added_file_makes_the_node_that_combines_files_stale(tmp_path: Path) -> None:
    run_local([Joins(parts=tuple(Reads(source=one) for one in files(tmp_path, "a")))])
    two = tuple(Reads(source=one, mark=number) for number, one in enumerate(files(tmp_path, "a", "b")))
    plan = plan_local([Joins(parts=two)])
    assert {"Reads": "missing", "Joins": "stale input: parts"} == reasons(plan)


def test_raised_version_is_a_reason_and_makes_dependents_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    run_local([Above(below=Seeded(seed=1))])
    monkeypatch.setattr(Seeded, "_version", 2)
    plan = plan_local([Above(below=Seeded(seed=1))])
    assert {"Seeded": "version raised", "Above": "stale input: below"} == reasons(plan)


def test_failed_node_has_the_reason_failed() -> None:
    actions["n0"] = lambda: 1 / 0
    with pytest.raises(FuruComputeError):
        run_local([chain(1)])
    assert {"Node": "failed"} == reasons(plan_local([chain(1)]))


def test_plan_of_the_demo_names_the_dependents_of_a_changed_file(tmp_path: Path) -> None:
    """A changed file affects its module, the package and the report."""
    tree = write(tmp_path / "tree", TREE)
    run_local([analyse(tree)])
    (tree / "shop/till/drawer.py").write_text("from ..price import of\n")
    plan = plan_local([analyse(tree)])
    assert [
        ("furu.demo:ParsedModule", "stale input", ("source",)),
        ("furu.demo:Package", "stale input", ("modules",)),
        ("furu.demo:Report", "stale input", ("packages",)),
    ] == [(node.name, node.reason, node.fields) for node in plan.nodes]
    assert "name='shop.till.drawer'" in plan.nodes[0].text


def test_plan_names_a_thousand_nodes_and_counts_all() -> None:
    plan = plan_local([Seeded(seed=number) for number in range(1500)])
    assert (1500, 1000) == (plan.to_compute, len(plan.nodes))


# ---- simulated runs ----


def facts_of(root: Node, number: int = 0) -> list[RootRead | Found | RootWalked]:
    """Return the facts of a discovery about a root whose nodes must all be computed."""
    facts: list[RootRead | Found | RootWalked] = [RootRead(root.furu_hash, type(root).__qualname__, number)]
    seen: set[str] = set()

    def visit(node: Node) -> None:
        if node.furu_hash in seen:
            return
        seen.add(node.furu_hash)
        for below in node.below:
            visit(below)  # type: ignore[arg-type]
        depends_on = tuple(below.furu_hash for below in node.below)
        facts.append(Found(job_of(node), Status.TODO, depends_on))

    visit(root)
    return [*facts, RootWalked(root.furu_hash)]


def job_of(node: Node) -> Job:
    """Make the scheduler's job for a node."""
    return make_job(node, Lane(False, "default"))


@pytest.mark.parametrize(("workers", "makespan"), [(1, 4.0), (2, 3.0), (8, 3.0)])
def test_simulated_diamond_takes_its_work_or_its_critical_path(workers: int, makespan: float) -> None:
    """
    base <- left, right <- top, each takes a second
    """
    facts = facts_of(diamond())
    assert makespan == simulate(facts, lambda job: 1.0, max_workers=workers, window_size="bfs")


@pytest.mark.parametrize(("max_async", "makespan"), [(1, 6.0), (3, 2.0), (100, 1.0)])
def test_simulated_async_nodes_have_their_own_limit(max_async: int, makespan: float) -> None:
    """There are six async nodes, and one worker that they do not need."""
    nodes = [AsyncNode(name=f"a{number}") for number in range(6)]
    jobs = [make_job(node, Lane(True, "default")) for node in nodes]
    facts: list[Fact] = []
    for number, job in enumerate(jobs):
        facts += [RootRead(job.key, job.node_class, number), Found(job, Status.TODO), RootWalked(job.key)]
    limits = {"max_workers": 1, "max_async": max_async}
    assert makespan == simulate(facts, lambda job: 1.0, **limits, window_size="bfs")


@pytest.mark.parametrize(("order", "makespan"), [("roots", 6.0), ("critical-path", 4.0)])
def test_simulated_critical_path_order_begins_with_the_long_chain(order: Order, makespan: float) -> None:
    """Two workers run four single nodes and a chain of four, given in this order."""
    facts: list[Fact] = []
    for number, root in enumerate([*flat(4), chain(4)]):
        facts += facts_of(root, number)
    limits = {"max_workers": 2, "order": order}
    assert makespan == simulate(facts, lambda job: 1.0, window_size="bfs", **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(("window", "makespan"), [("bfs", 3.0), ("dfs", 9.0), (2, 6.0)])
def test_simulated_window_delays_roots(window: str | int, makespan: float) -> None:
    """There are three chains of three nodes, and enough workers."""
    facts = []
    for number in range(3):
        node = Node(name=f"{number}-0")
        for step in (1, 2):
            node = Node(name=f"{number}-{step}", below=(node,))
        facts += facts_of(node, number)
    assert makespan == simulate(facts, lambda job: 1.0, max_workers=8, window_size=window)


def test_plan_without_records_forecasts_nothing() -> None:
    plan = plan_local([diamond()])
    assert (None, ()) == (plan.critical_path_sec, plan.forecasts)


def test_plan_forecasts_other_workers_and_windows_from_recorded_durations() -> None:
    """The first forecast has the given options. No forecast is shorter than the critical path."""
    actions.update(dict.fromkeys(["f0", "f1"], lambda: time.sleep(0.05)))
    run_local(flat(2))
    plan = plan_local([chain(3), *flat(6)[2:]], max_workers=3)
    asked = plan.forecasts[0]
    assert (3, "bfs") == (asked.max_workers, asked.window_size)
    assert {2, 3, 4, 8, 16} == {one.max_workers for one in plan.forecasts}
    assert {"bfs", "dfs"} == {one.window_size for one in plan.forecasts}
    assert plan.critical_path_sec is not None
    assert all(one.makespan_sec >= plan.critical_path_sec - 1e-9 for one in plan.forecasts)
    assert 0.15 <= plan.critical_path_sec < 1
    assert "with 3 workers and window bfs; the critical path is" in str(plan)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_plan_can_be_simulated_while_an_event_loop_is_running(no_blocking_calls: BlockBuster) -> None:
    """The simulation runs its own event loop in a separate thread."""
    no_blocking_calls.deactivate()
    facts = facts_of(diamond())
    assert 3.0 == simulate(facts, lambda job: 1.0, max_workers=2, window_size="bfs")


def test_options_of_a_plan_are_checked_like_those_of_a_run() -> None:
    with pytest.raises(ValueError, match="max_workers"):
        plan_local([diamond()], max_workers=0)
    with pytest.raises(ValueError, match="window_size"):
        plan_local([diamond()], window_size="sideways")
    with pytest.raises(ValueError, match="order must be 'roots' or 'critical-path', not 'random'"):
        plan_local([diamond()], order="random")  # type: ignore[arg-type]
