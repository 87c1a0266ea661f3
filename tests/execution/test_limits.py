"""How many nodes a run computes at once: `max_workers` in workers, `max_async` on the event loop."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from furu import Event, run_local_async, stream_local
from furu.events import NodeDone, NodeStarted, RunStarted
from tests.graphs import AsyncNode, Node, actions, recording

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _recording() -> Iterator[None]:
    with recording():
        yield


class Meeting:
    """Async nodes wait here until the expected number of nodes has arrived."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._complete = anyio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._complete.set()
        await self._complete.wait()


def most_at_once(events: list[Event]) -> int:
    """Return the greatest number of nodes that were being computed at the same time."""
    running = most = 0
    for event in events:
        running += isinstance(event, NodeStarted) - isinstance(event, NodeDone)
        most = max(most, running)
    return most


async def test_hundred_async_nodes_run_at_once_beside_a_single_worker() -> None:
    """Each node waits for all the others. If `max_workers` limited them, the run would not finish."""
    meeting = Meeting(100)
    nodes = [AsyncNode(name=f"a{number}") for number in range(100)]
    actions.update({node.name: meeting.wait for node in nodes})
    with anyio.fail_after(60):
        report = await run_local_async(nodes, max_workers=1)
    assert 100 == report.computed


@pytest.mark.parametrize("max_async", [1, 3])
async def test_no_more_async_nodes_run_at_once_than_max_async(max_async: int) -> None:
    """Groups of `max_async` nodes wait for each other, so the run must reach the limit too."""
    meetings = [Meeting(max_async) for _ in range(4)]
    nodes = [AsyncNode(name=f"a{number}") for number in range(4 * max_async)]
    for number, node in enumerate(nodes):
        actions[node.name] = meetings[number // max_async].wait
    events: list[Event] = []
    with anyio.fail_after(60):
        await run_local_async(nodes, max_async=max_async, on_event=events.append)
    assert max_async == most_at_once(events)


async def test_async_nodes_at_their_limit_do_not_delay_other_nodes() -> None:
    """The first async node waits for the last root, which runs in a thread."""
    computed = anyio.Event()
    actions["a0"] = computed.wait
    nodes = [AsyncNode(name="a0"), AsyncNode(name="a1"), Node(name="in a thread")]

    def on_event(event: Event) -> None:
        if isinstance(event, NodeDone) and event.hash == nodes[-1].furu_hash:
            computed.set()

    with anyio.fail_after(60):
        report = await run_local_async(nodes, max_workers=1, max_async=1, on_event=on_event)
    assert 3 == report.computed


async def test_limits_are_in_the_first_event_and_async_work_in_the_report() -> None:
    """A stream accepts the same options."""
    nodes = [AsyncNode(name="a"), Node(name="n")]
    async with stream_local(nodes, max_workers=2, max_async=5) as stream:
        events = [event async for event in stream]
    assert isinstance(events[0], RunStarted)
    assert (2, 5) == (events[0].max_workers, events[0].max_async)
    durations = {event.hash: event.timing.duration_sec for event in events if isinstance(event, NodeDone)}
    assert stream.report.async_sec == durations[nodes[0].furu_hash]
    assert stream.report.work_sec == pytest.approx(sum(durations.values()))
