"""Threads: which nodes run beside each other, and which one after another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from blockbuster import BlockBuster

from furu import FuruComputeError, run_local, run_local_async
from furu.execution.workers import threads

from .graphs import AsyncNode, Computed, Node, actions, chain, flat, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """What this test's nodes computed."""
    with recording() as computed:
        yield computed


def test_slow_nodes_get_every_thread() -> None:
    """Each of eight waits until all eight run."""
    barrier = threading.Barrier(8)
    for number in range(8):
        actions[f"f{number}"] = lambda: barrier.wait(10)
    assert 8 == run_local(flat(8), max_workers=8).computed


def test_slow_node_holds_up_no_short_one(record: Computed) -> None:
    """It ends only when a thousand others, before and after it in the order, have ended."""
    short = flat(1000)
    slow = Node(name="slow")
    last_but_one = threading.Event()

    def wait_for_the_others() -> None:
        assert last_but_one.wait(15)

    actions["slow"] = wait_for_the_others
    actions["f999"] = last_but_one.set
    assert 1001 == run_local([*short[:100], slow, *short[100:]], max_workers=2).computed


def test_as_many_slow_nodes_as_threads_but_one_leave_one_for_the_short(record: Computed) -> None:
    """Three of four threads are held until a chain of short nodes has ended."""
    ended = threading.Event()
    for number in range(3):
        actions[f"f{number}"] = lambda: ended.wait(15)
    actions["n199"] = ended.set
    assert 203 == run_local([*flat(3), chain(200)], max_workers=4).computed
    assert ended.is_set()


@pytest.mark.anyio
async def test_async_node_behind_one_that_waits_for_a_thread_is_not_held_up() -> None:
    """The first async node needs what a thread computes; the second needs nothing, and lets it end."""
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


def test_short_nodes_after_slow_ones_are_computed_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads take part in the slow nodes; short ones bring the sequence back."""
    monkeypatch.setattr(threads, "_SHORT_SEC", 1.0)  # however slow the machine
    barrier = threading.Barrier(4)
    slow, short = flat(1000)[:4], flat(1000)[4:]
    by_thread: list[int] = []

    def hold() -> None:
        barrier.wait(10)
        monkeypatch.setattr(threads, "_PATIENCE_SEC", 60.0)  # nor takes a short node for a slow one

    for node in slow:
        actions[node.name] = hold
    for node in short:
        actions[node.name] = lambda: by_thread.append(threading.get_ident())
    run_local([*slow, *short], max_workers=4)
    assert 1 == len(set(by_thread[-20:]))


def test_failure_in_a_sequence_hands_back_what_it_was_to_precede(record: Computed) -> None:
    """Nothing that follows the failed node in its chain begins, and what does not depend on it ends."""
    top = chain(30)
    actions["n9"] = lambda: 1 / 0
    with pytest.raises(FuruComputeError, match="ZeroDivisionError"):
        run_local([top, *flat(50)], on_failure="continue")
    assert {f"n{number}" for number in range(10)} | {f"f{number}" for number in range(50)} == set(
        record.order
    )
    assert 60 == len(record.order)


def test_node_that_ends_while_its_sequence_is_taken_back_is_heard_of(
    monkeypatch: pytest.MonkeyPatch, no_blocking_calls: BlockBuster
) -> None:
    """Nothing else is left to wake the loop: all others depend on it."""
    no_blocking_calls.deactivate()  # the loop is to be held here
    let_go, ended, withdrawn = threading.Event(), threading.Event(), threading.Event()
    withdraw, next_job = threads._ThreadCrew._withdraw, threads._ThreadCrew._next

    def withdraw_after_the_end(self: threads._ThreadCrew) -> None:
        let_go.set()
        assert ended.wait(10)
        withdraw(self)
        withdrawn.set()

    def next_after_withdrawal(self: threads._ThreadCrew, sleeper: threading.Semaphore) -> Any:
        if let_go.is_set() and not ended.is_set():
            ended.set()
            assert withdrawn.wait(10)
        return next_job(self, sleeper)

    monkeypatch.setattr(threads._ThreadCrew, "_withdraw", withdraw_after_the_end)
    monkeypatch.setattr(threads._ThreadCrew, "_next", next_after_withdrawal)
    actions["n0"] = lambda: let_go.wait(10)
    assert 40 == run_local([chain(40)]).computed
