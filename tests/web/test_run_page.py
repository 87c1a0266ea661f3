"""The page of a run, the stream that continues from the page, and the pages of nodes."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from furu import Furu
from furu.events import NodeDone, NodePlanned, NodeStarted, Timing
from furu.service.progress import Progress
from furu.web.reading import take_snapshot
from tests.graphs import AsyncNode, Node, chain, diamond, flat
from tests.service.gates import Gate
from tests.web.asgi_calls import ask, mounted

pytestmark = pytest.mark.anyio


def cells(page: str) -> dict[str, str]:
    """Return the state of each cell of a page, by node hash."""
    return {key: state for state, key in re.findall(r'class="cell ([a-z]+)" id="n([0-9a-f]{32})"', page)}


def counts(page: str) -> Counter[str]:
    """Return the counts at the top of a page."""
    found = re.findall(r'data-count="(\w+)">([\d,]+)<', page)
    return +Counter({state: int(number.replace(",", "")) for state, number in found})


async def test_snapshot_does_not_change_with_its_run() -> None:
    async with mounted() as (_, runs):
        gate = Gate("a")
        run = await runs.submit([AsyncNode(name="a"), AsyncNode(name="b")])
        await gate.begun.wait()
        before = take_snapshot(run, show_details=False)
        copy = (dict(before.progress.nodes), dict(before.progress.counts), before.facts)
        gate.opened.set()
        await run.wait()
        after = take_snapshot(run, show_details=False)
    assert copy == (before.progress.nodes, before.progress.counts, before.facts)
    assert ("running", "finished") == (before.facts.state, after.facts.state)
    assert before.progress.last_change < after.progress.last_change


async def test_page_and_stream_together_miss_nothing_whenever_the_page_is_made() -> None:
    """After each change of a run, a new page and the stream from it lead to the final states."""
    nodes = flat(30)
    pages: list[str] = []
    async with mounted() as (site, runs):
        run = await runs.submit([Node(name="top", below=tuple(nodes))])

        async def look() -> None:
            while not run.has_ended:
                seen = run.progress.last_change
                pages.append((await ask(site, f"/furu/runs/{run.id}")).text)
                if not run.has_ended:
                    await run.progress.wait_changed(seen)

        await look()
        for page in pages:
            if (after := re.search(r'data-after="(\d+)"', page)) is None:
                assert "finished" in page
                continue
            answer = await ask(site, f"/furu/api/runs/{run.id}/events?after={after[1]}")
            states = cells(page)
            for _, _, value in answer.events()[:-1]:
                states |= {node["hash"]: node["state"] for node in value["nodes"]}
            assert {"done"} == set(states.values())
            assert ("end", "finished") == (answer.events()[-1][0], answer.events()[-1][2]["state"])
            assert Counter(cells(page).values()) - Counter(pending=31) == counts(page)


async def test_stream_of_a_run_that_finished_before_it_was_opened_ends() -> None:
    gate = Gate("a")
    async with mounted() as (site, runs):
        run = await runs.submit([AsyncNode(name="a")])
        await gate.begun.wait()
        page = (await ask(site, f"/furu/runs/{run.id}")).text
        gate.opened.set()
        await run.wait()
        after = re.findall(r'data-after="(\d+)"', page)[0]
        answer = await ask(site, f"/furu/api/runs/{run.id}/events?after={after}")
    assert ["progress", "end"] == [name for name, _, _ in answer.events()]
    assert "finished" == answer.events()[-1][2]["state"]


async def test_stream_of_a_run_that_is_not_kept_is_404() -> None:
    """The 404 tells the page that the run is no longer kept."""
    gate = Gate("a")
    async with mounted(keep=0) as (site, runs):
        run = await runs.submit([AsyncNode(name="a")])
        await gate.begun.wait()
        page = (await ask(site, f"/furu/runs/{run.id}")).text
        gate.opened.set()
        await run.wait()
        for target in re.findall(r'data-(?:events|run)="([^"]+)"', page):
            assert 404 == (await ask(site, target)).status


async def test_stream_has_the_counts_of_classes_and_the_first_running_nodes() -> None:
    """The counts include nodes without a cell."""
    progress = Progress()
    for number in range(70):
        progress(NodePlanned(f"{number:032x}", "tests:Small", "default", ()))
        progress(NodeStarted(f"{number:032x}", "tests:Small", "default", "thread-1", 0.0))
    assert [f"{number:032x}" for number in range(50)] == [node.hash for node in progress.running()]
    for number in range(30):
        progress(NodeDone(f"{number:032x}", "tests:Small", "default", Timing("thread-1", 0.0, 0.1)))
    assert [f"{number:032x}" for number in range(30, 70)] == [node.hash for node in progress.running()]
    assert {"tests:Small": {"running": 40, "done": 30}} == {
        name: dict(+found) for name, found in progress.class_counts.items()
    }
    async with mounted() as (site, runs):
        run = await runs.submit([diamond(), AsyncNode(name="a")])
        answer = await ask(site, f"/furu/api/runs/{run.id}/events")
    classes: dict[str, Any] = {}
    for _, _, value in answer.events()[:-1]:
        classes |= value["classes"]
        assert {"hash", "name"} >= {key for node in value["running"] for key in node}
    assert {"tests.graphs:Node": {"done": 4}, "tests.graphs:AsyncNode": {"done": 1}} == classes


@pytest.mark.parametrize(
    ("made", "roots", "expected"),
    [
        ([chain(4)], [chain(4)], {"n3": "reused", "n2": "unneeded", "n1": "unneeded", "n0": "unneeded"}),
        ([chain(3)], [chain(4)], {"n3": "done", "n2": "reused", "n1": "unneeded", "n0": "unneeded"}),
        ([diamond()], [*diamond().below], {"left": "reused", "right": "reused", "base": "unneeded"}),
        (
            [chain(3)],
            [chain(4), chain(2)],
            {"n3": "done", "n2": "reused", "n1": "reused", "n0": "unneeded"},
        ),
    ],
    ids=["all", "part", "shared", "root below a root"],
)
async def test_dependencies_of_reused_nodes_are_shown_as_not_needed(
    made: list[Any], roots: list[Any], expected: dict[str, str]
) -> None:
    async with mounted() as (site, runs):
        await (await runs.submit(made)).wait()
        run = await runs.submit(roots)
        await run.wait()
        page = (await ask(site, f"/furu/runs/{run.id}")).text
    names = {node.furu_hash: node.name for node in _all_nodes(roots)}
    assert expected == {names[key]: state for key, state in cells(page).items()}
    assert ("not needed" in page) == ("unneeded" in expected.values())


async def test_unneeded_nodes_are_shown_during_the_run() -> None:
    reused, held = chain(3), AsyncNode(name="held")
    gate = Gate("held")
    async with mounted() as (site, runs):
        await (await runs.submit([reused])).wait()
        top = Node(name="top", below=(held,))
        run = await runs.submit([reused, top])
        await gate.begun.wait()
        states = cells((await ask(site, f"/furu/runs/{run.id}")).text)
        gate.opened.set()
        await run.wait()
    assert {"reused": 1, "unneeded": 2, "planned": 1, "running": 1} == Counter(states.values())


def _all_nodes(roots: list[Any]) -> list[Any]:
    found: dict[str, Any] = {}
    pending = list(roots)
    while pending:
        node = pending.pop()
        found[node.furu_hash] = node
        pending += node.below
    return list(found.values())


async def test_node_that_has_not_started_has_a_page() -> None:
    """The page has the node's configuration, its dependencies, and its state in the run."""
    gate = Gate("held")
    held = AsyncNode(name="held")
    waiting = Node(name="top", below=(held,))
    async with mounted() as (site, runs):
        run = await runs.submit([waiting])
        await gate.begun.wait()
        page = await ask(site, f"/furu/nodes/{waiting.furu_hash}")
        value = await ask(site, f"/furu/api/nodes/{waiting.furu_hash}")
        running = await ask(site, f"/furu/api/nodes/{held.furu_hash}")
        gate.opened.set()
        await run.wait()
        done = await ask(site, f"/furu/api/nodes/{waiting.furu_hash}")
    assert (200, 200) == (page.status, value.status)
    assert ("TODO", "top", [held.furu_hash]) == (
        value.json()["status"],
        value.json()["config"]["name"],
        value.json()["depends_on"],
    )
    assert f'href="/furu/runs/{run.id}"' in page.text
    assert ": planned" in page.text
    assert ("IN_PROGRESS", "held") == (running.json()["status"], running.json()["config"]["name"])
    assert "DONE" == done.json()["status"]


async def test_nodes_of_queued_and_cancelled_runs_have_a_page() -> None:
    """These nodes have a page although no event has named them."""
    gate = Gate("held")
    async with mounted(max_running=1) as (site, runs):
        await runs.submit([AsyncNode(name="held")])
        await gate.begun.wait()
        async with runs.follow([chain(2)]) as queued:
            early = await ask(site, f"/furu/nodes/{chain(1).furu_hash}")
        await queued.wait_ended()
        late = await ask(site, f"/furu/nodes/{chain(1).furu_hash}")
        gate.opened.set()
    for page in (early, late):
        assert 200 == page.status
        assert ": pending" in page.text


async def test_classes_with_the_same_name_are_counted_separately_on_the_page_and_live() -> None:
    def make(module: str) -> type[Any]:
        return type("Twin", (Furu,), {"__module__": module, "__qualname__": "Twin", "_create": lambda _: 1})

    roots = [make("alpha")(), make("beta")(), *flat(2)]
    async with mounted() as (site, runs):
        run = await runs.submit(roots)
        await run.wait()
        page = (await ask(site, f"/furu/runs/{run.id}")).text
        answer = await ask(site, f"/furu/api/runs/{run.id}/events")
    names = ["alpha:Twin", "beta:Twin", "tests.graphs:Node"]
    assert names == re.findall(r'data-class="([^"]+)"', page)
    assert ["alpha:Twin ", "beta:Twin ", "Node "] == re.findall(r"<h3>([^<]+)<", page)
    classes = answer.events()[0][2]["classes"]
    assert {
        "alpha:Twin": {"done": 1},
        "beta:Twin": {"done": 1},
        "tests.graphs:Node": {"done": 2},
    } == classes


async def test_page_of_more_nodes_than_cells_counts_them_all() -> None:
    async with mounted() as (site, runs):
        gate = Gate("held")
        run = await runs.submit([AsyncNode(name="held"), Node(name="top", below=tuple(flat(5200)))])
        await gate.begun.wait()
        page = (await ask(site, f"/furu/runs/{run.id}")).text
        runs.stop()
        gate.opened.set()
        await run.wait_ended()
    assert 5000 == page.count('class="cell ')
    assert ["1", "5201"] == sorted(re.findall(r'data-total="(\d+)"', page))
    assert "and 202 more" in page
