"""Retries, timeouts, limits for each spec key, and the grace period of a run that stops."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruTimeoutError,
    FuruUsageError,
    Retry,
    Status,
    check_cancelled,
    run_local,
    run_local_async,
)
from furu.events import (
    Event,
    NodeAbandoned,
    NodeDone,
    NodeFailed,
    NodeOverran,
    NodeRetried,
    NodeStarted,
    RunFinished,
)
from furu.node.base import artifact_of
from tests.graphs import AsyncNode, Computed, Node, actions, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as computed:
        yield computed


class Flaky(Node):
    _retry = Retry(attempts=3, on=ConnectionError, delay_sec=0)


class FlakyAsync(AsyncNode):
    _retry = Retry(attempts=3, on=ConnectionError, delay_sec=0)


def failing(*errors: BaseException) -> Callable[[], None]:
    """Return an action that raises these errors, one per call, and then succeeds."""
    left = list(errors)

    def act() -> None:
        if left:
            raise left.pop(0)

    return act


def names(events: list[Event], kind: type[Any]) -> list[str]:
    return [event.name for event in events if isinstance(event, kind)]


# ---- retries ----


@pytest.mark.parametrize("cls", [Flaky, FlakyAsync])
@pytest.mark.anyio
async def test_node_that_raised_a_listed_exception_is_retried(cls: type[Node], record: Computed) -> None:
    """Each attempt is in the store, and dependents run after the last attempt."""
    node = cls(name="flaky")
    top = Node(name="top", below=(node,))
    actions["flaky"] = failing(ConnectionError("reset"), ConnectionError("reset again"))
    events: list[Event] = []
    report = await run_local_async([top], on_event=events.append)
    assert (2, 2, 0) == (report.computed, report.retried, report.failed)
    assert ["flaky", "flaky", "flaky", "top"] == record.order
    assert [1, 2] == [event.attempt for event in events if isinstance(event, NodeRetried)]
    assert "reset again" in (await _read_attempt(node, 2))


async def _read_attempt(node: Furu[Any], number: int) -> str:
    path = Path(artifact_of(node).files.attempt(number))
    return await anyio.to_thread.run_sync(path.read_text)


def test_node_fails_after_its_last_attempt(record: Computed) -> None:
    """The error of the run is the error of the last attempt."""
    node = Flaky(name="flaky")
    actions["flaky"] = failing(*[ConnectionError(f"number {number}") for number in range(9)])
    with pytest.raises(FuruComputeError, match="number 2") as caught:
        run_local([node])
    assert ["flaky"] * 3 == record.order
    assert (2, 1) == (caught.value.report.retried, caught.value.report.failed)
    assert "try-3" == caught.value.state_path.name


def test_other_exceptions_are_not_retried(record: Computed) -> None:
    actions["flaky"] = failing(ValueError("bad split"))
    with pytest.raises(FuruComputeError, match="bad split"):
        run_local([Flaky(name="flaky")])
    assert ["flaky"] == record.order


def test_slot_is_free_during_the_delay(record: Computed) -> None:
    """With one worker, other nodes run while the first node waits for its second attempt."""

    class Delayed(Node):
        _retry = Retry(attempts=2, on=(OSError,), delay_sec=0.2)

    others = [Node(name=f"n{number}") for number in range(20)]
    actions["late"] = failing(OSError("busy"))
    assert 21 == run_local([Delayed(name="late"), *others], max_workers=1).computed
    assert ["late", *(node.name for node in others), "late"] == record.order


def test_stopping_run_reports_a_node_that_waited_for_its_next_attempt() -> None:
    """The node counts as failed, because it will not be retried."""

    class Delayed(Node):
        _retry = Retry(attempts=2, on=(OSError,), delay_sec=60)

    late, bad = Delayed(name="late"), Node(name="bad")
    waiting = threading.Event()
    actions["late"] = failing(OSError("busy"))

    def fail() -> None:
        assert waiting.wait(10)
        raise ValueError("bad split")

    actions["bad"] = fail

    def on_event(event: Event) -> None:
        if isinstance(event, NodeRetried):
            waiting.set()

    with pytest.raises(FuruComputeError) as caught:
        run_local([late, bad], on_event=on_event)
    assert [bad, late] == [failure.node for failure in caught.value.failures]


@pytest.mark.parametrize(
    ("retry", "attempt", "expected"),
    [
        (Retry(attempts=9, on=OSError, jitter=0), 1, 1.0),
        (Retry(attempts=9, on=(OSError,), delay_sec=1, jitter=0), 1, 1.0),
        (Retry(attempts=9, on=(OSError,), delay_sec=1, jitter=0), 4, 8.0),
        (Retry(attempts=9, on=(OSError,), delay_sec=1, jitter=0, backoff=1), 4, 1.0),
        (Retry(attempts=9, on=(OSError,), delay_sec=1, jitter=0, max_delay_sec=5), 4, 5.0),
        (Retry(attempts=9999, on=(OSError,), delay_sec=1, jitter=0), 5000, 60.0),
    ],
)
def test_delay_grows_by_backoff_up_to_max_delay_sec(retry: Retry, attempt: int, expected: float) -> None:
    assert expected == retry.delay_after(attempt)


def test_jitter_spreads_the_delay_around_its_value() -> None:
    """The delay differs from its value by at most the given fraction, and varies."""
    retry = Retry(attempts=2, on=(OSError,), delay_sec=10, jitter=0.5)
    delays = {retry.delay_after(1) for _ in range(50)}
    assert len(delays) > 1
    assert all(5 <= delay <= 15 for delay in delays)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 1.5},
        {"on": ()},
        {"on": (KeyboardInterrupt,)},
        {"on": ("OSError",)},
        {"delay_sec": -1},
        {"delay_sec": float("nan")},
        {"delay_sec": float("inf")},
        {"backoff": 0.5},
        {"jitter": 2},
        {"max_delay_sec": "1"},
    ],
)
def test_wrong_values_of_retry_are_rejected(wrong: dict[str, Any]) -> None:
    """The message names the field."""
    with pytest.raises((TypeError, ValueError), match=rf"Retry\.{next(iter(wrong))}"):
        Retry(**{"attempts": 2, "on": (OSError,), **wrong})


def test_retry_on_accepts_a_single_exception_class() -> None:
    """`on` accepts one class, as an except clause does."""
    assert (OSError,) == Retry(attempts=2, on=OSError).on


@pytest.mark.parametrize(
    ("name", "value"),
    [("_retry", 3), ("_timeout_sec", 0), ("_timeout_sec", True), ("_timeout_sec", "1")],
)
def test_wrong_class_settings_are_rejected(name: str, value: Any) -> None:
    """The error is raised when the class is defined."""
    with pytest.raises(FuruUsageError, match=rf"Wrong\.{name} must be"):
        type("Wrong", (Furu,), {name: value})


def test_retry_that_is_due_while_the_run_stops_is_not_made(record: Computed) -> None:
    """The node counts as failed and is among the run's failures."""

    class Flaky(Node):
        _retry = Retry(attempts=2, on=(OSError,), delay_sec=0.02)

    retried, stopping = threading.Event(), threading.Event()

    def fail() -> None:
        raise OSError("flaky")

    def fail_after_that() -> None:
        assert retried.wait(10)
        raise ValueError("bad")

    def outlast_the_delay() -> None:
        assert stopping.wait(10)
        time.sleep(0.1)

    def on_event(event: Event) -> None:
        if isinstance(event, NodeRetried):
            retried.set()
        elif isinstance(event, NodeFailed):
            stopping.set()

    actions.update({"flaky": fail, "bad": fail_after_that, "slow": outlast_the_delay})
    # The delay ends while the run waits for the slow node to finish.
    flaky = Flaky(name="flaky")
    with pytest.raises(FuruComputeError) as caught:
        run_local([Node(name="bad"), Node(name="slow"), flaky], max_workers=3, on_event=on_event)
    assert {"bad", "flaky"} == {failure.node.name for failure in caught.value.failures}
    assert 2 == caught.value.report.failed


# ---- timeouts ----


@pytest.mark.anyio
async def test_async_node_that_takes_too_long_is_cancelled() -> None:
    """The node fails with a timeout, which the run treats like any other failure."""

    class Slow(AsyncNode):
        _timeout_sec = 0.01

    node = Slow(name="slow")
    actions["slow"] = anyio.sleep_forever
    with pytest.raises(
        FuruComputeError, match=r"Slow.* took longer than its _timeout_sec of 0\.01 s"
    ) as caught:
        await run_local_async([node])
    cause = caught.value.__cause__
    assert isinstance(cause, FuruTimeoutError)
    assert (node, 0.01) == (cause.node, cause.timeout_sec)
    assert Status.FAILED is await anyio.to_thread.run_sync(node.status)


@pytest.mark.anyio
async def test_timeout_can_be_retried() -> None:

    class Slow(AsyncNode):
        _timeout_sec = 0.05
        _retry = Retry(attempts=2, on=TimeoutError, delay_sec=0)

    calls: list[int] = []

    def sleep_once() -> Any:
        calls.append(1)
        return anyio.sleep_forever() if len(calls) == 1 else None

    actions["slow"] = sleep_once
    report = await run_local_async([Slow(name="slow")])
    assert (1, 1) == (report.computed, report.retried)


def test_overrun_of_a_thread_is_reported_when_it_happens(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported by an event and in the log while the node runs, and in the report at the end."""

    class Slow(Node):
        _timeout_sec = 0.01

    reported = threading.Event()
    actions["slow"] = lambda: reported.wait(10)
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, NodeOverran):
            reported.set()

    with caplog.at_level(logging.WARNING, "furu.run"):
        report = run_local([Slow(name="slow")], on_event=on_event)
    assert (1, 1) == (report.computed, report.overran)
    order = [type(event) for event in events if isinstance(event, NodeStarted | NodeOverran | NodeDone)]
    assert [NodeStarted, NodeOverran, NodeDone] == order
    assert any("a thread cannot be stopped" in message for message in caplog.messages)
    assert "overran 1" in report.summary()


def test_check_cancelled_raises_after_the_timeout() -> None:
    """The node fails with the error that `check_cancelled` raises."""

    class Slow(Node):
        _timeout_sec = 0.01

    actions["slow"] = _check_for_ever
    with pytest.raises(FuruComputeError, match="took longer than its _timeout_sec") as caught:
        run_local([Slow(name="slow")])
    assert isinstance(caught.value.__cause__, FuruTimeoutError)


def _check_for_ever() -> None:
    while True:
        check_cancelled()
        time.sleep(0.001)


# ---- limits ----


@pytest.mark.parametrize("cls", [Node, AsyncNode])
@pytest.mark.anyio
async def test_spec_limit_bounds_the_nodes_of_a_key(cls: type[Node]) -> None:
    """No more nodes of the key than the limit run at once, and all nodes are computed."""

    class Limited(cls):  # type: ignore[misc,valid-type]
        def _executor_spec_key(self) -> str:
            return "gpu"

    lock, counts = threading.Lock(), {"now": 0, "most": 0}

    def enter() -> None:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])

    def leave() -> None:
        with lock:
            counts["now"] -= 1

    def act() -> None:
        enter()
        time.sleep(0.003)
        leave()

    async def async_act() -> None:
        enter()
        await anyio.sleep(0.003)
        leave()

    nodes = [Limited(name=f"g{number}") for number in range(12)]
    for node in nodes:
        actions[node.name] = async_act if cls is AsyncNode else act
    report = await run_local_async(nodes, spec_limits={"gpu": 2})
    assert 12 == report.computed
    assert 2 >= counts["most"]


def test_key_at_its_limit_does_not_delay_other_keys() -> None:
    first, second = Node(name="g0", kind="gpu"), Node(name="g1", kind="gpu")
    others = [Node(name=f"c{number}") for number in range(10)]
    done = threading.Event()
    actions["g0"] = lambda: done.wait(10)

    def on_event(event: Event) -> None:
        if isinstance(event, NodeDone):
            finished.append(event.hash)
            if len(finished) == len(others):
                done.set()

    finished: list[str] = []
    report = run_local([first, second, *others], spec_limits={"gpu": 1}, on_event=on_event)
    assert 12 == report.computed
    assert {node.furu_hash for node in others} == set(finished[:10])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"gpu": 0}, ValueError),
        ({"gpu": True}, TypeError),
        ({"gpu": 1.5}, TypeError),
        ({1: 1}, TypeError),
        ([("gpu", 1)], TypeError),
    ],
)
def test_spec_limits_of_wrong_types_or_below_one_are_rejected(wrong: Any, error: type[Exception]) -> None:
    """The message names the option, and the key if it is a string."""
    with pytest.raises(error, match=r"spec_limits(\['gpu'\])? must "):
        run_local([Node(name="a")], spec_limits=wrong)


# ---- stopping ----


@pytest.mark.anyio
async def test_stopping_run_abandons_a_thread_after_grace_sec(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log names the nodes that are left. The thread keeps its claim and publishes its node later."""
    gate, held = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert gate.wait(10)

    slow, bad = Node(name="slow"), Node(name="bad")
    actions["slow"] = hold

    def fail() -> None:
        assert held.wait(10)
        raise ValueError("bad split")

    actions["bad"] = fail
    events: list[Event] = []
    with caplog.at_level(logging.WARNING, "furu.run"), pytest.raises(FuruComputeError) as caught:
        await run_local_async([slow, bad], grace_sec=0.01, on_event=events.append)
    assert (1, 1, 0) == (
        caught.value.report.abandoned,
        caught.value.report.failed,
        caught.value.report.skipped,
    )
    assert [slow.furu_hash] == [event.hash for event in events if isinstance(event, NodeAbandoned)]
    assert any("Node(name='slow'" in message for message in caplog.messages)
    assert Status.IN_PROGRESS is await anyio.to_thread.run_sync(slow.status)
    later = anyio.create_task_group()
    async with later:
        later.start_soon(run_local_async, [slow])  # waits for the abandoned thread
        gate.set()
    assert Status.DONE is await anyio.to_thread.run_sync(slow.status)


@pytest.mark.anyio
async def test_async_node_is_cancelled_after_grace_sec() -> None:
    """The cancelled node keeps no claim and is not FAILED, and the next run computes it."""
    node = AsyncNode(name="slow")
    computing = anyio.Event()

    async def hold() -> None:
        computing.set()
        await anyio.sleep_forever()

    actions["slow"] = hold
    events: list[Event] = []
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await computing.wait()
                scope.cancel()

            tasks.start_soon(cancel)
            await run_local_async([node], grace_sec=0.01, on_event=events.append)
    assert scope.cancelled_caught
    assert isinstance(events[-1], RunFinished)
    assert ("cancelled", 1, 0) == (events[-1].end, events[-1].report.skipped, events[-1].report.failed)
    assert Status.TODO is await anyio.to_thread.run_sync(node.status)
    actions.clear()
    assert 1 == (await run_local_async([node])).computed


@pytest.mark.anyio
async def test_check_cancelled_raises_when_the_run_is_cancelled() -> None:
    node = Node(name="long")
    computing = threading.Event()

    def act() -> None:
        computing.set()
        _check_for_ever()

    actions["long"] = act
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await anyio.to_thread.run_sync(computing.wait)
                scope.cancel()

            tasks.start_soon(cancel)
            await run_local_async([node])
    assert Status.TODO is await anyio.to_thread.run_sync(node.status)
    assert '"outcome": "cancelled"' in await _read_attempt(node, 1)
    actions.clear()
    assert 1 == (await run_local_async([node])).computed


def test_check_cancelled_does_not_raise_after_a_failure() -> None:
    """After a failure, running nodes may finish. Without `grace_sec`, there is no time limit for that."""
    held, failed = threading.Event(), threading.Event()

    def act() -> None:
        held.set()
        assert failed.wait(10)
        check_cancelled()

    def fail() -> None:
        assert held.wait(10)
        raise ValueError("bad split")

    def on_event(event: Event) -> None:
        if isinstance(event, NodeFailed):
            failed.set()

    actions["long"], actions["bad"] = act, fail
    long = Node(name="long")
    with pytest.raises(FuruComputeError, match="bad split"):
        run_local([long, Node(name="bad")], on_event=on_event)
    assert Status.DONE is long.status()


def test_check_cancelled_does_nothing_outside_a_run() -> None:
    check_cancelled()
    actions["a"] = check_cancelled
    assert 1 == Node(name="a").get()


def test_cancelled_error_without_a_cancellation_is_a_failure() -> None:
    from furu import FuruCancelledError

    actions["a"] = failing(FuruCancelledError("so I say"))
    with pytest.raises(FuruComputeError, match="so I say"):
        run_local([Node(name="a")])


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), (True, TypeError), ("1", TypeError)])
def test_wrong_grace_sec_is_rejected(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="grace_sec must be a number of seconds"):
        run_local([Node(name="a")], grace_sec=wrong)
