"""Shared runs: starting, following and cancelling them, and stopping the service."""

from __future__ import annotations

import functools
import logging
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruUsageError,
    Status,
    check_cancelled,
    run_local_async,
    use_settings,
)
from furu.service import Run, RunCancelledError, Runs, RunsClosedError, RunsFullError
from tests.graphs import AsyncNode, Computed, Node, actions, diamond, flat
from tests.service.gates import Gate

pytestmark = pytest.mark.anyio


class Loop(Furu[int]):
    """Runs in its thread until its run is cancelled."""

    name: str

    def _create(self) -> int:
        actions["begun"]()
        while True:
            check_cancelled()


async def status(node: Furu[Any]) -> Status:
    """Read the status in a thread."""
    return await anyio.to_thread.run_sync(node.status)


async def wait(runs: Runs, roots: list[Any], followed: list[Run], **options: Any) -> None:
    """Follow the run of these roots until it ends."""
    async with runs.follow(roots, **options) as run:
        followed.append(run)
        await run.wait()


async def test_followed_run_computes_and_reports() -> None:
    async with Runs() as runs, runs.follow([diamond()]) as run:
        report = await run.wait()
    assert (4, "finished") == (report.computed, run.state)
    assert {"done": 4} == +run.progress.counts
    assert [run] == runs.recent()


async def test_followers_of_the_same_roots_in_any_order_share_one_run(computed: Computed) -> None:
    gate = Gate("a")
    roots = [AsyncNode(name="a"), AsyncNode(name="b")]
    async with Runs() as runs, runs.follow(roots) as first, runs.follow(roots[::-1]) as second:
        assert first is second
        gate.opened.set()
        await second.wait()
    assert {"a": 1, "b": 1} == computed.counts()


async def test_same_roots_in_another_store_are_another_run(tmp_path: Path) -> None:
    async with Runs() as runs:
        with use_settings(store=tmp_path / "one"):
            first = await runs.submit([diamond()])
        with use_settings(store=tmp_path / "other"):
            second = await runs.submit([diamond()])
        assert [4, 4] == [(await run.wait()).computed for run in (first, second)]


async def test_last_follower_that_leaves_cancels_the_run(computed: Computed) -> None:
    gate = Gate("a")
    async with Runs() as runs:
        async with runs.follow([AsyncNode(name="a")]) as run:
            async with runs.follow([AsyncNode(name="a")]):
                await gate.begun.wait()
            assert "running" == run.state
        with pytest.raises(RunCancelledError) as raised:
            await run.wait()
    assert ("cancelled", run) == (run.state, raised.value.run)
    assert {"stopped": 1} == +run.progress.counts
    assert Status.TODO is await status(AsyncNode(name="a"))


async def test_run_goes_on_for_the_followers_that_stay() -> None:
    gate = Gate("a")
    async with Runs() as runs, runs.follow([AsyncNode(name="a")]) as run:
        async with runs.follow([AsyncNode(name="a")]):
            await gate.begun.wait()
        gate.opened.set()
        assert 1 == (await run.wait()).computed


async def test_run_continues_if_any_follower_asked_for_finish() -> None:
    gate = Gate("a")
    roots = [AsyncNode(name="a")]
    async with Runs() as runs:
        async with runs.follow(roots) as run, runs.follow(roots, on_disconnect="finish"):
            await gate.begun.wait()
        gate.opened.set()
        assert 1 == (await run.wait()).computed


async def test_new_follower_of_a_cancelled_run_gets_a_new_run() -> None:
    """The new run shares the nodes that the old run still computes."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(10)

    actions["a"] = hold
    async with Runs(cancel_sec=10) as runs:
        async with runs.follow([Node(name="a")]) as first:
            await anyio.to_thread.run_sync(begun.wait)
        async with runs.follow([Node(name="a")]) as second:
            assert first is not second
            go_on.set()
            report = await second.wait()
    assert ("cancelled", 1) == (first.state, report.computed + report.reused)


async def test_numbers_of_running_and_queued_runs_are_limited() -> None:
    """A follower that joins a run is not rejected."""
    gates = [Gate("a"), Gate("b")]
    async with Runs(max_running=1, max_queued=1) as runs:
        first = await runs.submit([AsyncNode(name="a")])
        second = await runs.submit([AsyncNode(name="b")])
        await gates[0].begun.wait()
        assert ["running", "queued"] == [first.state, second.state]
        with pytest.raises(RunsFullError, match="2 runs are running or queued"):
            await runs.submit([AsyncNode(name="c")])
        assert second is await runs.submit([AsyncNode(name="b")])
        for gate in gates:
            gate.opened.set()
        await second.wait()
        assert 1 == (await (await runs.submit([AsyncNode(name="c")])).wait()).computed


async def test_queued_run_without_followers_never_starts(computed: Computed) -> None:
    """The run is cancelled when its last follower leaves."""
    gate = Gate("a")
    async with Runs(max_running=1, max_queued=1) as runs:
        await runs.submit([AsyncNode(name="a")])
        async with runs.follow([AsyncNode(name="b")]) as queued:
            pass
        with pytest.raises(RunCancelledError):
            await queued.wait()
        gate.opened.set()
    assert ({"a": 1}, None) == (computed.counts(), queued.started_at)


async def test_queued_run_that_is_cancelled_wakes_its_watchers() -> None:
    """The run ends without an event, so its watchers have to be woken separately."""
    gate = Gate("a")
    async with Runs(max_running=1) as runs:
        await runs.submit([AsyncNode(name="a")])
        await gate.begun.wait()
        async with runs.follow([AsyncNode(name="b")]) as run:
            seen = run.progress.last_change
        with anyio.fail_after(5):
            await run.progress.wait_changed(seen)
        assert "cancelled" == run.state
        gate.opened.set()


async def test_queued_run_uses_the_store_of_its_follower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run uses that store even if the environment changes before the run starts."""
    gate, node = Gate("a"), AsyncNode(name="b")
    async with Runs(max_running=1) as runs:
        await runs.submit([AsyncNode(name="a")])
        await gate.begun.wait()
        run = await runs.submit([node])
        monkeypatch.setenv("FURU_PATH", str(tmp_path / "another"))
        gate.opened.set()
        await run.wait()
    assert Status.TODO is await status(node)
    monkeypatch.setenv("FURU_PATH", str(tmp_path / "store"))
    assert Status.DONE is await status(node)


async def test_every_follower_of_a_failed_run_gets_its_error() -> None:

    def fail() -> None:
        raise ValueError("no such split")

    actions["base"] = fail
    async with Runs() as runs, runs.follow([diamond()]) as run:
        for _ in range(2):
            with pytest.raises(FuruComputeError, match="no such split"):
                await run.wait()
    assert ("failed", 1) == (run.state, run.report.failed if run.report else 0)


async def test_unexpected_error_is_logged_and_raised_to_followers(caplog: pytest.LogCaptureFixture) -> None:

    async def compute(roots: object, **_: object) -> Any:
        raise RuntimeError("broken")

    async with Runs(compute=compute) as runs:
        with pytest.raises(RuntimeError, match="broken"):
            await (await runs.submit([diamond()])).wait()
    assert "ended with an error" in caplog.text


async def test_stopping_service_lets_runs_finish_and_starts_no_others() -> None:
    gate = Gate("a")
    async with anyio.create_task_group() as tasks, Runs(grace_sec=10) as runs:
        run = await runs.submit([AsyncNode(name="a")])
        await gate.begun.wait()
        runs.stop()
        stranger = threading.Thread(target=runs.stop)  # like a signal handler, this thread has no context
        stranger.start()
        stranger.join()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RunsClosedError, match="shutting down"):
            await runs.submit([AsyncNode(name="b")])
        tasks.start_soon(_open_when_blocked, gate)
    assert "finished" == run.state


async def _open_when_blocked(gate: Gate) -> None:
    await anyio.wait_all_tasks_blocked()
    gate.opened.set()


async def test_stopping_service_cancels_and_logs_runs_that_outlast_grace_sec(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No node stays IN_PROGRESS, and queued runs never start."""
    gate = Gate("a")
    begun = threading.Event()
    actions["begun"] = begun.set
    roots: list[Any] = [AsyncNode(name="a"), Loop(name="b")]
    async with Runs(max_running=1, grace_sec=0, cancel_sec=0) as runs:
        run = await runs.submit(roots, title="the long one")
        queued = await runs.submit([AsyncNode(name="c")])
        await gate.begun.wait()
        await anyio.to_thread.run_sync(begun.wait)
    assert ["cancelled", "cancelled"] == [run.state, queued.state]
    [record] = [record for record in caplog.records if record.name == "furu.service"]
    assert (logging.WARNING, True) == (record.levelno, "the long one" in record.getMessage())
    assert queued.id not in record.getMessage()
    assert Status.TODO is await status(roots[0])


async def test_error_of_the_service_is_raised_after_its_runs_have_finished() -> None:
    gate = Gate("a")
    with pytest.raises(KeyError):
        async with Runs() as runs:
            run = await runs.submit([AsyncNode(name="a")])
            await gate.begun.wait()
            gate.opened.set()
            raise KeyError("of the service")
    assert "finished" == run.state


async def test_each_node_is_computed_once_for_a_hundred_followers(computed: Computed) -> None:
    """A third of the followers leave early. Afterwards all slots are free, and no follower remains."""
    nodes = flat(12)
    async with Runs(max_running=2, max_queued=200) as runs:
        followed: list[Run] = []

        async def one(number: int) -> None:
            wanted: list[Any] = nodes[number % 10 : number % 10 + 3]
            if number % 3:
                await wait(runs, wanted, followed)
            else:
                with anyio.CancelScope() as scope:
                    async with runs.follow(wanted) as run:
                        followed.append(run)
                        scope.cancel()
                        await run.wait()

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)
        await anyio.wait_all_tasks_blocked()
        assert ([], {}, 2) == (runs.live(), runs._joinable, runs._slots.value)
    assert 100 == len(followed)
    assert {0} == {run._followers for run in followed}
    assert {node.name: 1 for node in nodes} == computed.counts()


async def test_runs_need_no_thread_of_the_host() -> None:
    """All threads of the host may be waiting for this run."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    everyone = [object() for _ in range(int(limiter.total_tokens))]
    for borrower in everyone:
        limiter.acquire_on_behalf_of_nowait(borrower)
    try:
        with anyio.fail_after(10):
            async with Runs() as runs, runs.follow([diamond()]) as run:
                assert 4 == (await run.wait()).computed
    finally:
        for borrower in everyone:
            limiter.release_on_behalf_of(borrower)


async def test_newest_ended_runs_are_kept() -> None:
    async with Runs(keep=2) as runs:
        ended = []
        for node in flat(3):
            run = await runs.submit([node])
            await run.wait()
            ended.append(run)
        assert ended[:0:-1] == runs.recent()
        assert [None, ended[1]] == [runs.get(run.id) for run in ended[:2]]


async def test_compute_sets_the_options_of_runs() -> None:
    async with Runs(compute=functools.partial(run_local_async, window_size="dfs")) as runs:
        assert 3 == (await (await runs.submit(flat(3))).wait()).computed


@pytest.mark.parametrize("roots", ["ab", Node(name="a"), ["a"], 7], ids=repr)
async def test_bad_roots_are_rejected_before_anything_starts(roots: Any) -> None:
    async with Runs() as runs:
        with pytest.raises(FuruUsageError, match="root"):
            await runs.submit(roots)
        assert [] == runs.live()


async def test_misuse_raises_an_error_that_says_what_to_write() -> None:
    with pytest.raises(RunsClosedError, match="async with runs"):
        await Runs().submit([diamond()])
    async with Runs() as runs:
        with pytest.raises(ValueError, match="'cancel' or 'finish'"):
            async with runs.follow([], on_disconnect="x"):  # type: ignore[arg-type]
                pass
        with pytest.raises(RuntimeError, match="entered already"):
            await runs.__aenter__()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_running": 0}, ValueError),
        ({"max_queued": -1}, ValueError),
        ({"keep": True}, TypeError),
        ({"grace_sec": float("nan")}, ValueError),
        ({"cancel_sec": "1"}, TypeError),
    ],
    ids=str,
)
async def test_bad_options_are_errors_that_name_the_option(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        Runs(**options)
