"""`get` and `aget`: which nodes they load and compute, in interactive code and in workers."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from furu import (
    EXEC_CONTEXT,
    ExecContext,
    FuruComputeError,
    FuruCycleError,
    FuruError,
    FuruMissingArtifactError,
    FuruSpecMismatchError,
    Status,
    run_local,
)
from furu.context import executor_context
from furu.node.dependencies import dependencies
from tests.graphs import AsyncNode, Computed, Node, actions, chain, diamond
from tests.node.nodes import fail

# ---- get in interactive code ----


def test_missing_node_is_computed_with_its_dependencies_deepest_first(record: Computed) -> None:
    r"""
     top
    /   \
    left right
    \   /
     base
    """
    assert 5 == diamond().get()
    assert ["base", "left", "right", "top"] == record.order
    assert 5 == diamond().get()
    assert 5 == diamond().get(force=True)
    assert 4 == len(record.order)


def test_forced_get_is_like_a_plain_get_in_interactive_code(record: Computed) -> None:
    assert 5 == diamond().get(force=True)
    assert ["base", "left", "right", "top"] == record.order


def test_get_visits_dependencies_only_of_missing_nodes(record: Computed) -> None:
    """The chain is n0 <- n1 <- n2 <- n3, and n1 is DONE."""
    chain(2).get()
    record.order.clear()
    assert 4 == chain(4).get()
    assert ["n2", "n3"] == record.order


def test_get_of_a_deep_chain_needs_no_recursion(record: Computed) -> None:
    assert 1500 == chain(1500).get()
    assert [f"n{number}" for number in range(1500)] == record.order


def test_undeclared_node_is_computed_by_an_interactive_get(record: Computed) -> None:
    actions["outer"] = lambda: Node(name="undeclared").get()
    assert 1 == Node(name="outer").get()
    assert ["outer", "undeclared"] == record.order


def test_create_that_gets_itself_is_a_cycle() -> None:
    actions["a"] = lambda: Node(name="a").get()
    with pytest.raises(FuruComputeError) as caught:
        Node(name="a").get()
    assert isinstance(caught.value.__cause__, FuruCycleError)
    assert [Node(name="a"), Node(name="a")] == list(caught.value.__cause__.cycle)


def test_undeclared_cycle_is_an_error_that_names_its_nodes() -> None:
    """The cycle is a -> b -> a."""
    actions["a"] = lambda: Node(name="b").get()
    actions["b"] = lambda: Node(name="a").get()
    with pytest.raises(FuruComputeError) as caught:
        Node(name="a").get()
    error: BaseException | None = caught.value
    while isinstance(error, FuruComputeError):
        error = error.__cause__
    assert isinstance(error, FuruCycleError)
    assert ["a", "b", "a"] == [node.name for node in error.cycle]


def test_exists_and_status_follow_the_store() -> None:
    """The node is first TODO, then FAILED, then DONE."""
    node = Node(name="a")
    assert (False, Status.TODO) == (node.exists(), node.status())
    actions["a"] = fail
    with pytest.raises(FuruComputeError):
        node.get()
    assert (False, Status.FAILED) == (node.exists(), node.status())
    actions.clear()
    node.get()
    assert (True, Status.DONE) == (node.exists(), node.status())


def test_status_is_in_progress_while_a_node_is_computed() -> None:
    seen: list[Any] = []
    node = Node(name="a")
    actions["a"] = lambda: seen.append((node.status(), node.exists()))
    node.get()
    assert [(Status.IN_PROGRESS, False)] == seen


def test_exists_and_status_write_nothing(store: Path) -> None:
    """They do not even create the store."""
    node = diamond()
    node.exists(), node.status(), node.furu_dir, node.logger, repr(node), dependencies(node)
    assert not store.exists()


def test_two_threads_that_get_the_same_node_compute_it_once(record: Computed) -> None:
    """The second thread waits for the first one."""
    inside, go_on = threading.Event(), threading.Event()

    def block() -> None:
        inside.set()
        assert go_on.wait(10)

    actions["a"] = block
    values: list[int] = []
    threads = [threading.Thread(target=lambda: values.append(Node(name="a").get())) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert [1, 1] == values
    assert ["a"] == record.order


def test_async_node_is_computed_by_a_plain_get(record: Computed) -> None:
    """`get` starts a new event loop if no loop is running."""
    assert 2 == AsyncNode(name="top", below=(AsyncNode(name="a"),)).get()
    assert 2 == Node(name="mixed", below=(AsyncNode(name="a"),)).get()
    assert ["a", "top", "mixed"] == record.order


@pytest.mark.anyio
async def test_aget_computes_missing_nodes_and_loads_existing_ones(record: Computed) -> None:
    """Async and other nodes are computed deepest first."""
    middle = Node(name="middle", below=(AsyncNode(name="base"),))
    top = AsyncNode(name="top", below=(middle, AsyncNode(name="base")))
    assert 4 == await top.aget()
    assert ["base", "middle", "top"] == record.order
    assert 4 == await top.aget(force=True)
    assert 2 == await middle.aget()
    assert 3 == len(record.order)


@pytest.mark.anyio
async def test_aget_computes_plain_nodes_off_the_loop() -> None:
    threads: dict[str, int] = {}
    actions["plain"] = lambda: threads.__setitem__("plain", threading.get_ident())
    actions["async"] = lambda: threads.__setitem__("async", threading.get_ident())
    await AsyncNode(name="async", below=(Node(name="plain"),)).aget()
    assert threading.get_ident() == threads["async"]
    assert threading.get_ident() != threads["plain"]


@pytest.mark.anyio
async def test_aget_of_a_failing_node_raises_the_same_error() -> None:
    """The original exception is the cause of the error."""
    for node in (Node(name="a"), AsyncNode(name="a")):
        actions["a"] = fail
        with pytest.raises(FuruComputeError, match="bad split") as caught:
            await node.aget()
        assert isinstance(caught.value.__cause__, ValueError)
        assert node == caught.value.node
        assert Status.FAILED is await anyio.to_thread.run_sync(node.status)


# ---- get in a worker ----


def test_worker_loads_existing_nodes() -> None:
    """A worker loads nodes of any spec key, with or without `force`."""
    Node(name="a", kind="gpu").get()
    with executor_context(spec_key="default", backend="test", node_hash="0" * 32):
        assert [1, 1] == [Node(name="a", kind="gpu").get(), Node(name="a", kind="gpu").get(force=True)]


def test_worker_computes_only_the_node_it_was_given(record: Computed) -> None:
    """The worker needs `force=True` even for that node."""
    given, other = Node(name="given"), Node(name="other")
    with executor_context(spec_key="default", backend="test", node_hash=given.furu_hash):
        with pytest.raises(FuruMissingArtifactError):
            given.get()
        with pytest.raises(FuruError, match=r"get\(force=True\) of Node\(name='other'.* is refused"):
            other.get(force=True)
        assert [] == record.order
        assert 1 == given.get(force=True)
    assert ["given"] == record.order
    assert ExecContext() == EXEC_CONTEXT.get()


@pytest.mark.parametrize("fails", [False, True])
def test_worker_leaves_the_context_of_its_caller_as_it_was(fails: bool) -> None:
    """Neither furu's variables nor those that `_create` sets remain."""
    node, seen = Node(name="given"), ContextVar[str]("seen", default="nothing")

    def act() -> None:
        seen.set("something")
        if fails:
            raise ValueError

    actions["given"] = act
    before = dict(copy_context())
    with (
        executor_context(spec_key="default", backend="test", node_hash=node.furu_hash),
        pytest.raises(FuruComputeError) if fails else nullcontext(),
    ):
        node.get(force=True)
    assert before == dict(copy_context())


def test_worker_of_another_kind_computes_nothing(record: Computed) -> None:
    """The error has the spec keys of the node and of the worker."""
    node = Node(name="a", kind="gpu")
    with (
        executor_context(spec_key="cpu", backend="test", node_hash=node.furu_hash),
        pytest.raises(FuruSpecMismatchError, match=r"kind 'gpu', and this one is 'cpu'") as caught,
    ):
        node.get(force=True)
    assert (node, "gpu", "cpu") == (caught.value.node, caught.value.spec_key, caught.value.worker_spec_key)
    assert [] == record.order


def test_missing_artifact_error_has_the_asking_node_and_the_line_to_add() -> None:
    actions["asker"] = lambda: Node(name="undeclared").get()
    with pytest.raises(FuruComputeError) as caught:
        run_local([Node(name="asker")])
    cause = caught.value.__cause__
    assert isinstance(cause, FuruMissingArtifactError)
    assert (Node(name="undeclared"), Node(name="asker")) == (cause.node, cause.asked_by)
    assert "Node(name='undeclared', below=(), kind='default') has no artifact" in str(cause)
    assert "Node(name='asker', below=(), kind='default') asked for it" in str(cause)
    assert "def _dependencies(self): return [Node(name='undeclared'" in str(cause)


@pytest.mark.anyio
async def test_aget_in_a_worker_keeps_the_same_rules(record: Computed) -> None:
    given, other = AsyncNode(name="given"), AsyncNode(name="other")
    with executor_context(spec_key="default", backend="test", node_hash=given.furu_hash):
        with pytest.raises(FuruMissingArtifactError):
            await other.aget()
        with pytest.raises(FuruError, match="is refused"):
            await other.aget(force=True)
        assert 1 == await given.aget(force=True)
        assert 1 == await given.aget()
    assert ["given"] == record.order
