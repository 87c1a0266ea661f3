"""The progress of a run: the estimate of the remaining time, and the display."""

from __future__ import annotations

import errno
import io
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from furu import FuruUsageError, current_settings, run_local, run_local_async
from furu.context import Advance
from furu.events import NodeDone, NodePlanned, NodeProgress, NodeStarted, PlanKnown, Timing
from furu.execution.options import progress_is_wanted
from furu.observing.estimate import Estimate
from furu.observing.progress import Progress, duration
from tests.graphs import Computed, actions, chain, flat, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as record:
        yield record


def follow(*, recorded: float | None = None, max_workers: int = 4) -> Estimate:
    """Make an estimate. The duration recorded in earlier runs is the same for all classes."""
    return Estimate(lambda name: recorded, max_workers=max_workers)


def plan(estimate: Estimate, name: str, *depends_on: str) -> None:
    """Add a planned node to the estimate."""
    estimate.add(NodePlanned(name, "m:Node", "default", depends_on))


def end(estimate: Estimate, name: str, duration_sec: float) -> None:
    """Start and finish a node in the estimate."""
    estimate.add(NodeStarted(name, "m:Node", "default", "thread-1", 0.0))
    estimate.add(NodeDone(name, "m:Node", "default", Timing("thread-1", 0.0, duration_sec)))


# ---- the estimate ----


def test_remaining_time_is_remaining_work_divided_by_work_per_second() -> None:
    """In its first second, the run did 4 s of work: two of eight nodes. The other six take 12 s of work."""
    estimate = follow()
    for name in "abcdefgh":
        plan(estimate, name)
    end(estimate, "a", 2)
    end(estimate, "b", 2)
    assert 3.0 == estimate.remaining_sec(1.0, now=0.0)


def advance(estimate: Estimate, name: str, done: float, total: float, at: float) -> None:
    """Let a running node report its progress."""
    estimate.add(NodeProgress(name, "m:Node", Advance(done, total), at))


def test_remaining_time_follows_what_nodes_report() -> None:
    """A node that was a quarter done after 10 s takes 30 s more, whatever other nodes of its class took."""
    estimate = follow(max_workers=1)
    plan(estimate, "a")
    plan(estimate, "b")
    end(estimate, "a", 1)
    estimate.add(NodeStarted("b", "m:Node", "default", "thread-1", 1.0))
    advance(estimate, "b", 1, 4, at=11.0)
    assert 30.0 == estimate.remaining_sec(11.0, now=11.0)
    assert 28.0 == estimate.remaining_sec(13.0, now=13.0)
    advance(estimate, "b", 4, 4, at=13.0)
    assert 0.0 == estimate.remaining_sec(13.0, now=13.0)


def test_report_of_a_node_that_has_ended_is_not_shown() -> None:
    estimate = follow()
    plan(estimate, "a")
    estimate.add(NodeStarted("a", "m:Node", "default", "thread-1", 0.0))
    advance(estimate, "a", 1, 4, at=1.0)
    assert [("a", "m:Node", Advance(1, 4))] == estimate.advances
    estimate.add(NodeDone("a", "m:Node", "default", Timing("thread-1", 0.0, 2.0)))
    assert [] == estimate.advances


def test_nothing_is_estimated_before_a_node_has_finished() -> None:
    estimate = follow()
    plan(estimate, "a")
    assert estimate.remaining_sec(1.0, now=0.0) is None


def test_recorded_durations_are_used_before_the_first_node_finishes() -> None:
    estimate = follow(recorded=3.0)
    for number in range(8):
        plan(estimate, str(number))
    assert 6.0 == estimate.remaining_sec(0.5, now=0.0)


def test_chain_takes_its_length_with_any_number_of_workers() -> None:
    estimate = follow(recorded=1.0, max_workers=100)
    for name, below in [("a", ()), ("b", ("a",)), ("c", ("b",)), ("d", ("c",))]:
        plan(estimate, name, *below)
    assert 4.0 == estimate.remaining_sec(0.0, now=0.0)


def test_running_nodes_count_with_their_work_so_far() -> None:
    """Half of a node that takes 2 s is done."""
    estimate = follow(recorded=2.0, max_workers=1)
    plan(estimate, "a")
    estimate.add(NodeStarted("a", "m:Node", "default", "thread-1", at=100.0))
    assert 1.0 == estimate.remaining_sec(1.0, now=101.0)


def test_estimate_counts_the_nodes_of_a_run() -> None:
    estimate = follow()
    roots = flat(3)
    run_local(roots, on_event=estimate.add)
    assert (3, 3, 0, 0) == (estimate.known, estimate.done, estimate.running, estimate.failed)
    assert estimate.plan_is_known


# ---- what is shown ----


def test_growing_plan_is_shown_as_growing() -> None:
    progress = Progress(current_settings(), max_workers=1, console=Console(file=io.StringIO()))
    progress(NodePlanned("a", "m:Node", "default", ()))
    progress._count()
    assert progress.line().startswith("0 of 1 known so far, 0 running")
    progress(PlanKnown())
    progress._count()
    assert progress.line().startswith("0 of 1, 0 running")


def test_progress_without_a_terminal_is_one_line_at_the_end() -> None:
    """The run finishes before the first progress line is due. The line has no control characters."""
    out = io.StringIO()
    with Progress(current_settings(), max_workers=2, console=Console(file=out)) as progress:
        run_local(flat(2), on_event=progress, progress=False)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("furu: run finished: computed 2, reused 0, failed 0 in ")
    assert "\x1b" not in line


class Terminal(io.StringIO):
    """A terminal that keeps its output, and sets an event when the live lines are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def write(self, text: str) -> int:
        if "\x1b[J\n" in text:
            self.drawn.set()
        return super().write(text)

    def isatty(self) -> bool:
        return True


def test_live_lines_are_below_an_empty_line_for_the_host() -> None:
    """A log line of the host goes to the empty line. At the end the live lines are erased."""
    out = Terminal()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    handler = logging.StreamHandler(out)
    host = logging.getLogger("some.host")
    host.propagate = False
    host.addHandler(handler)

    def look() -> None:
        assert out.drawn.wait(10)
        host.warning("the host says")

    (root,) = flat(1)
    actions[root.name] = look
    try:
        with Progress(current_settings(), max_workers=1, console=console) as progress:
            run_local([root], on_event=progress, progress=False)
    finally:
        host.removeHandler(handler)
    text = out.getvalue()
    assert "\r\x1b[J\n━" in text
    assert "A\rthe host says\n" in text
    assert text.rpartition("\x1b[J")[2].startswith("furu: run finished: computed 1")


def test_progress_is_shown_by_default_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run inside a node shows no progress, even on a terminal."""
    assert not progress_is_wanted()
    run_local(flat(1))
    assert "" == capsys.readouterr().err
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    assert progress_is_wanted()
    wanted: list[bool] = []
    (root,) = flat(2)[1:]
    actions[root.name] = lambda: wanted.append(progress_is_wanted())
    run_local([root], progress=False)
    assert [False] == wanted
    monkeypatch.setenv("TERM", "dumb")
    assert not progress_is_wanted()


def test_progress_must_be_a_bool_or_none() -> None:
    with pytest.raises(TypeError, match="progress must be True, False or None"):
        run_local(flat(1), progress=1)  # type: ignore[arg-type]


def test_progress_without_rich_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rich, progress that was not requested is not shown."""
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(FuruUsageError, match=r"furu\[cli\]"):
        run_local(flat(1), progress=True)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1:01"), (3600 * 26 + 63, "26:01:03")]
)
def test_durations_are_formatted_for_people(seconds: float, said: str) -> None:
    """The unit grows from seconds to minutes and hours."""
    assert said == duration(seconds)


@pytest.mark.anyio
async def test_async_app_shows_progress_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    await run_local_async(flat(2))
    assert "" == capsys.readouterr().err
    await run_local_async([chain(3)], progress=True)
    assert "furu: " in capsys.readouterr().err
    with pytest.raises(TypeError, match="progress must be True, False or None"):
        await run_local_async(flat(2), progress="yes")  # type: ignore[arg-type]


# ---- a stderr that cannot be used ----


class Broken:
    """A terminal with one method that raises an error after `good` successful calls."""

    encoding = "utf-8"

    def __init__(self, name: str, error: BaseException, good: int = 0) -> None:
        self._name, self._error, self._good = name, error, good

    def _call(self, name: str, result: object) -> object:
        if name == self._name:
            self._good -= 1
            if self._good < 0:
                raise self._error
        return result

    def isatty(self) -> object:
        return self._call("isatty", True)

    def write(self, text: str) -> object:
        return self._call("write", len(text))

    def flush(self) -> object:
        return self._call("flush", None)


HUNG_UP = OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("name", ["isatty", "write", "flush"])
@pytest.mark.parametrize("good", [0, 2])
@pytest.mark.parametrize("error", [HUNG_UP, ValueError("I/O operation on closed file")])
def test_terminal_that_hangs_up_does_not_fail_the_run(
    name: str, good: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal may fail at its first use or later."""
    monkeypatch.setattr(sys, "stderr", Broken(name, error, good))
    monkeypatch.delenv("TERM", raising=False)
    assert 3 == run_local([chain(3)]).computed
    assert 5 == run_local(flat(5), progress=True).computed


@pytest.mark.parametrize("stream", [None, object(), io.BytesIO()])
def test_strange_stderr_does_not_fail_the_run(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert 3 == run_local(flat(3)).computed
    assert 5 == run_local(flat(5), progress=True).computed + 3
