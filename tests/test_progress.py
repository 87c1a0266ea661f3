"""`furu.progress`, which a node calls to report how far it is."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from furu import Furu, FuruComputeError, progress, run_local, run_local_async
from furu.events import Event, NodeDone, NodeProgress, NodeStarted


class Steps(Furu[int]):
    """Reports each of its steps."""

    steps: int
    total: Any = None
    unit: str = ""

    def _create(self) -> int:
        for step in range(self.steps):
            progress(step + 1, self.total, self.unit)
        return self.steps


class InThread(Furu[int]):
    """Reports its progress in a thread that it starts."""

    def _create(self) -> int:
        thread = threading.Thread(target=progress, args=(2, 5))
        thread.start()
        thread.join()
        return 1


class Nested(Furu[int]):
    """Runs other nodes, which report their progress."""

    def _create(self) -> int:
        run_local([Steps(steps=1, total=7)])
        progress(1, 1)
        return 1


def reports_of(node: Furu[Any]) -> list[str]:
    seen: list[Event] = []
    run_local([node], on_event=seen.append)
    for index, event in enumerate(seen):
        if isinstance(event, NodeProgress):
            assert any(isinstance(other, NodeStarted) for other in seen[:index])
            assert any(isinstance(other, NodeDone) for other in seen[index:])
            assert event.hash == node.furu_hash
    return [str(event.advance) for event in seen if isinstance(event, NodeProgress)]


def test_first_report_and_the_last_are_passed_on() -> None:
    reports = reports_of(Steps(steps=20_000, total=20_000, unit="rows"))
    assert ("1 of 20,000 rows", "20,000 of 20,000 rows") == (reports[0], reports[-1])
    assert len(reports) < 20


@pytest.mark.parametrize(
    ("total", "unit", "text"), [(None, "", "1"), (None, "rows", "1 rows"), (2.5, "GB", "1 of 2.5 GB")]
)
def test_total_and_unit_may_be_left_out(total: Any, unit: str, text: str) -> None:
    assert [text] == reports_of(Steps(steps=1, total=total, unit=unit))


def test_threads_that_a_node_starts_report_its_progress() -> None:
    assert ["2 of 5"] == reports_of(InThread())


def test_report_of_a_nested_run_belongs_to_that_run() -> None:
    assert ["1 of 1"] == reports_of(Nested())


@pytest.mark.anyio
async def test_async_node_reports_its_progress() -> None:
    class Async(Furu[int]):
        async def _create(self) -> int:
            progress(1, 3)
            await anyio.to_thread.run_sync(progress, 3, 3)
            return 1

    seen: list[Event] = []
    await run_local_async([Async()], on_event=seen.append)
    assert ["1 of 3", "3 of 3"] == [str(e.advance) for e in seen if isinstance(e, NodeProgress)]


def test_outside_a_run_nothing_happens() -> None:
    progress(1, 2)
    assert 3 == Steps(steps=3).get()


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_negative_or_infinite_amount_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="of 0 or more"):
        progress(bad)
    with pytest.raises(FuruComputeError, match="of 0 or more"):
        run_local([Steps(steps=1, total=bad)])
    with pytest.raises((TypeError, ValueError)):
        progress("half")  # type: ignore[arg-type]
