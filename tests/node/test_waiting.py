"""Nodes that wait for themselves through runs and gets: an error names the cycle, and nothing hangs."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import anyio
import pytest

from furu import Furu, FuruComputeError, FuruCycleError, run_local, run_local_async
from furu.node.waiting import COMPUTING, Wait
from tests.graphs import AsyncNode, Computed, Node, actions, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """The record of the nodes that the test computes."""
    with recording() as computed:
        yield computed


def cycle_of(error: BaseException) -> list[str]:
    """Return the names of the nodes in the cycle that is the first cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, FuruCycleError)
    return [node.name for node in error.cycle]


def runs(*names: str) -> Callable[[], object]:
    """Return a function that runs other nodes, for use as the action of a node."""
    return lambda: run_local([Node(name=name) for name in names])


def in_own_thread(function: Callable[[], object]) -> list[BaseException]:
    """Call a function in a thread, and return the errors that it raised. A hang fails the test."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    return errors


def test_node_that_runs_itself_is_a_cycle() -> None:
    actions["a"] = runs("a")
    (error,) = in_own_thread(runs("a"))
    assert ["a", "a"] == cycle_of(error)
    assert "Node(name='a'" in str(error)


def test_nodes_that_run_each_other_are_a_cycle() -> None:
    """a runs b, b runs c, and c runs a."""
    actions["a"], actions["b"], actions["c"] = runs("b"), runs("c"), runs("a")
    (error,) = in_own_thread(runs("a"))
    assert ["a", "b", "c", "a"] == cycle_of(error)


def test_cycle_through_a_dependency_of_an_inner_run_is_found() -> None:
    """Node a runs another node, which depends on a."""
    actions["a"] = lambda: run_local([Node(name="top", below=(Node(name="a"),))])
    (error,) = in_own_thread(runs("a"))
    assert ["a", "a"] == cycle_of(error)


@pytest.mark.anyio
async def test_async_nodes_that_run_each_other_are_a_cycle() -> None:
    """The nodes run on one loop, without threads."""
    actions["a"] = lambda: run_local_async([AsyncNode(name="b")])
    actions["b"] = lambda: run_local_async([AsyncNode(name="a")])
    with anyio.fail_after(20), pytest.raises(FuruComputeError) as caught:
        await run_local_async([AsyncNode(name="a")])
    assert ["a", "b", "a"] == cycle_of(caught.value)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_nodes_of_several_threads_that_wait_in_a_circle_are_a_cycle(names: str) -> None:
    """Each node is computed by a separate run, and runs the next node after all nodes have begun."""
    all_begun = threading.Barrier(len(names))
    begun: set[str] = set()
    following = dict(zip(names, names[1:] + names[0], strict=True))

    def act(name: str) -> None:
        if name not in begun:  # only once: another run may compute the node again
            begun.add(name)
            all_begun.wait(10)
        run_local([Node(name=following[name])])

    for name in names:
        actions[name] = lambda name=name: act(name)  # type: ignore[misc]
    threads = [threading.Thread(target=in_own_thread_of, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "they hang"
    for name in names:
        assert any(name in cycle for cycle in cycles)


cycles: list[list[str]] = []


def in_own_thread_of(name: str) -> None:
    """Run a node, and record the cycle that makes it fail."""
    try:
        run_local([Node(name=name)])
    except FuruComputeError as error:
        cycles.append(cycle_of(error))


def test_run_inside_a_node_that_waits_for_another_run_is_not_a_cycle() -> None:
    computing, awaited = threading.Event(), threading.Event()

    def hold() -> None:
        computing.set()
        assert awaited.wait(10)

    actions["shared"] = hold
    actions["outer"] = lambda: run_local([Node(name="shared")], on_event=lambda _: awaited.set())
    other = threading.Thread(target=runs("shared"))
    other.start()
    assert computing.wait(10)
    assert 1 == run_local([Node(name="outer")]).computed
    other.join()


def test_ended_waits_do_not_make_cycles() -> None:
    a, b = Node(name="a"), Node(name="b")
    token = COMPUTING.set((a,))
    begun(b).end()
    COMPUTING.reset(token)
    token = COMPUTING.set((b,))
    begun(a).end()
    COMPUTING.reset(token)


def begun(awaited: Furu[int]) -> Wait:
    """Return a wait that has begun."""
    wait = Wait()
    wait.begin(awaited)
    return wait


class Unequal(Furu[int]):
    """Raises an error when it is compared."""

    n: int

    def _create(self) -> int:
        return self.n

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = Furu.__hash__


def test_waiting_nodes_are_identified_by_their_hash() -> None:
    """No method of a user's class is called under the lock."""
    token = COMPUTING.set((Unequal(n=1),))
    waits = [begun(Unequal(n=n)) for n in (2, 2, 3)]
    with pytest.raises(FuruCycleError):
        begun(Unequal(n=1))
    for wait in waits:
        wait.end()
    COMPUTING.reset(token)


class Listener:
    """Receives the events of a run. It is alive for as long as something refers to the run."""

    def __call__(self, event: object) -> None:
        """Receive an event."""


def test_run_that_found_a_cycle_is_not_kept_by_the_awaited_node() -> None:
    alive: list[bool] = []

    def run_itself() -> weakref.ref[Listener]:
        listener = Listener()
        with pytest.raises(FuruCycleError):
            run_local([Node(name="a")], on_event=listener)
        return weakref.ref(listener)

    def act() -> None:
        reference = run_itself()
        for _ in range(500):  # anyio's threads drop their references to a call a moment after its end
            gc.collect()
            if reference() is None:
                break
            time.sleep(0.01)
        alive.append(reference() is not None)

    actions["a"] = act
    assert [] == in_own_thread(runs("a"))
    assert [False] == alive


class Crosswise(Furu[int]):
    """Gets the other node once both nodes are being computed."""

    n: int

    async def _create(self) -> int:
        _begun[self.n].set()
        await _begun[1 - self.n].wait()
        return await Crosswise(n=1 - self.n).aget()


_begun: dict[int, anyio.Event] = {}


@pytest.mark.anyio
async def test_async_nodes_that_get_each_other_in_two_tasks_are_a_cycle() -> None:
    """At least one of the nodes fails because of the cycle, and then the other node fails too."""
    _begun.update({0: anyio.Event(), 1: anyio.Event()})
    errors: list[BaseException] = []

    async def get(n: int) -> None:
        try:
            await Crosswise(n=n).aget()
        except FuruComputeError as error:
            errors.append(error)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get, 0)
            tasks.start_soon(get, 1)
    assert 2 == len(errors)
    assert any("wait for each other" in str(error) for error in errors)
