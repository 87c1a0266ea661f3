"""The Furu class: fields, getting a value in a user's own code and in a worker, files, logs, errors."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import inspect
import logging
import os
import pickle
import re
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import anyio.to_thread
import pytest

import furu
from furu import (
    EXEC_CONTEXT,
    ExecContext,
    Failure,
    Furu,
    FuruComputeError,
    FuruCycleError,
    FuruError,
    FuruIdentityError,
    FuruLoadError,
    FuruMissingArtifactError,
    FuruRunningLoopError,
    FuruSpecMismatchError,
    FuruUsageError,
    Status,
    register_canonical_form,
    run_local,
    use_settings,
)
from furu.context import executor_context
from furu.node.base import describe
from furu.node.dependencies import dependencies
from tests.graphs import AsyncNode, Computed, Node, actions, chain, diamond, recording

T = TypeVar("T")


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """What this test's nodes computed."""
    with recording() as computed:
        yield computed


class Holder(Furu[int]):
    value: Any = None

    def _create(self) -> int:
        return 1


def fail() -> None:
    raise ValueError("bad split")


# ---- the class ----


def test_subclass_is_a_frozen_keyword_only_dataclass() -> None:
    """By itself: no decorator, no __init__."""

    class Model(Furu[int]):
        rate: float
        layers: tuple[int, ...] = (1, 2)
        tags: list[str] = dataclasses.field(default_factory=list)

    node = Model(rate=0.1)
    assert (0.1, (1, 2), []) == (node.rate, node.layers, node.tags)
    assert ["rate", "layers", "tags"] == [field.name for field in dataclasses.fields(node)]
    assert node.tags is not Model(rate=0.1).tags
    with pytest.raises(dataclasses.FrozenInstanceError):
        node.rate = 0.2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del node.rate
    with pytest.raises(TypeError):
        Model(0.1)  # type: ignore[misc]
    with pytest.raises(TypeError, match="rate"):
        Model()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="speed"):
        Model(rate=0.1, speed=2)  # type: ignore[call-arg]


def test_fields_are_inherited_and_may_be_overridden() -> None:
    """As in any dataclass; a field without a default may follow one with."""

    class Base(Furu[int]):
        a: int = 1
        b: int = 2

        def _create(self) -> int:
            return self.a + self.b

    class Derived(Base):
        c: int
        b: int = 20

        def _create(self) -> int:
            return super()._create() + self.c

    assert 121 == Derived(c=100).get()
    assert ["a", "b", "c"] == [field.name for field in dataclasses.fields(Derived)]
    assert 3 == Base().get()


def test_generic_class_and_its_parametrized_form_make_the_same_node() -> None:
    """Type parameters are for type checkers and for reading back."""

    class Box(Furu[T], Generic[T]):
        value: Any

        def _create(self) -> T:
            value: T = self.value
            return value

    class IntBox(Box[int]):
        pass

    assert Box(value=1) == Box[int](value=1)
    assert Box(value=1) != IntBox(value=1)
    assert 5 == IntBox(value=5).get() == IntBox(value=5).get()


def test_mixin_that_is_no_node_adds_behaviour() -> None:
    """Before or after Furu among the bases."""

    class Doubling:
        def twice(self, value: int) -> int:
            return 2 * value

    class Before(Doubling, Furu[int]):
        def _create(self) -> int:
            return self.twice(2)

    class After(Furu[int], Doubling):
        def _create(self) -> int:
            return self.twice(3)

    assert [4, 6] == [Before().get(), After().get()]


def test_post_init_may_check_and_normalize() -> None:
    """What it leaves in the fields is what counts."""

    class Sorted(Furu[int]):
        items: tuple[int, ...]

        def __post_init__(self) -> None:
            if not self.items:
                raise ValueError("no items")
            object.__setattr__(self, "items", tuple(sorted(self.items)))

    assert Sorted(items=(2, 1)) == Sorted(items=(1, 2))
    with pytest.raises(ValueError, match="no items"):
        Sorted(items=())


def test_field_with_a_default_outside_the_constructor() -> None:
    """`field(init=False, default=...)` is a field like others, only fixed."""

    class Fixed(Furu[int]):
        kind: str = dataclasses.field(init=False, default="a")

        def _create(self) -> int:
            return len(self.kind)

    assert 1 == Fixed().get()
    assert repr(Fixed()).endswith("Fixed(kind='a')")
    assert [] == dependencies(Fixed())


def test_constructor_of_its_own_may_call_that_of_its_base() -> None:
    """The base's fields are set first, and the node is whole at the end."""

    class Base(Furu[int]):
        a: int

        def __init__(self, a: int) -> None:
            object.__setattr__(self, "a", a)

    class Derived(Base):
        b: int

        def __init__(self, a: int, b: int) -> None:
            super().__init__(a)
            object.__setattr__(self, "b", b)

    assert (1, 2) == (Derived(1, 2).a, Derived(1, 2).b)
    assert Derived(1, 2) == Derived(1, 2) != Derived(1, 3)


NAMES_OF_FURU = sorted(
    {
        "_codec",
        "_create",
        "_dependencies",
        "_executor_spec_key",
        "_furu_hash",
        "_load",
        "_validate",
        "_version",
        "aget",
        "exists",
        "furu_dir",
        "furu_hash",
        "get",
        "logger",
        "status",
    }
)


@pytest.mark.parametrize("name", NAMES_OF_FURU)
def test_field_that_would_hide_a_name_of_furu_is_an_error_of_the_class(name: str) -> None:
    """At its definition, naming the field."""
    with pytest.raises(FuruUsageError, match=rf"the field Hiding\.{name} hides Furu's own {name}"):
        type("Hiding", (Furu,), {"__annotations__": {name: int}, name: 1})
    with pytest.raises(FuruUsageError, match=rf"the field Hiding\.{name} hides"):
        type("Hiding", (Furu,), {"__annotations__": {name: int}})


def test_class_variables_are_no_fields() -> None:
    """With ClassVar, also for `_version` and `_codec`."""

    class Settled(Furu[int]):
        _version: ClassVar[int] = 3
        _codec: ClassVar[Any] = "pickle"
        limit: ClassVar[int] = 5

    assert () == dataclasses.fields(Settled)


@pytest.mark.parametrize(("old", "new"), [({}, {"_version": 1}), ({"_version": 1}, {"_version": "1"})])
def test_raised_version_makes_the_artifact_stale(old: dict[str, Any], new: dict[str, Any]) -> None:
    """The old one stays where it was, for who still has the old class."""
    calls: list[int] = []

    def create(self: Any) -> int:
        calls.append(1)
        return len(calls)

    names = {"__module__": __name__, "__qualname__": "Versioned", "_create": create}
    before, after = (
        type("Versioned", (Furu,), {**names, **old}),
        type("Versioned", (Furu,), {**names, **new}),
    )
    assert 1 == before().get()
    assert Status.TODO is after().status()
    assert 2 == after().get()
    assert 1 == before().get()


def test_subclass_inherits_the_version() -> None:
    """And raising it in the base makes both stale."""

    def hashes(version: int) -> list[str]:
        base = type("Base", (Furu,), {"_version": version, "__module__": "m"})
        return [base().furu_hash, type("Derived", (base,), {"__module__": "m"})().furu_hash]

    assert hashes(1) == hashes(1)
    assert 4 == len({*hashes(1), *hashes(2)})


def test_class_in_a_function_works_and_has_a_directory_in_the_store(store: Path) -> None:
    """Its qualified name has a part that is no identifier."""

    class Local(Furu[int]):
        x: int

        def _create(self) -> int:
            return self.x

    assert 5 == Local(x=5).get() == Local(x=5).get()
    expected = store / __name__ / Local.__qualname__ / Local(x=5).furu_hash
    assert expected == Local(x=5).furu_dir.parent
    assert "<locals>" in Local.__qualname__


def test_class_without_create_is_an_error_that_says_so() -> None:
    """When it is to be computed."""

    class Empty(Furu[int]):
        pass

    with pytest.raises(FuruComputeError, match=r"Empty defines no _create\(\)"):
        Empty().get()


def test_furu_itself_is_no_node() -> None:
    """An error that says to subclass it."""
    with pytest.raises(FuruUsageError, match=r"(?i)subclass"):
        Furu()


# ---- equality, copies, pickles, repr ----


def test_nodes_are_equal_by_their_hash() -> None:
    """In sets and dicts too; and a node is equal to nothing else."""
    assert Node(name="a") == Node(name="a")
    assert Node(name="a") != Node(name="b")
    assert Node(name="a") != AsyncNode(name="a")
    assert 1 == len({Node(name="a"), Node(name="a", kind="gpu")})
    assert "x" == {Node(name="a"): "x"}[Node(name="a")]
    assert Node(name="a") != Node(name="a").furu_hash
    assert Node(name="a") != "a"


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, dataclasses.replace]
    + [
        lambda node, protocol=protocol: pickle.loads(pickle.dumps(node, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ],
    ids=["copy", "deepcopy", "replace", *(f"pickle {n}" for n in range(pickle.HIGHEST_PROTOCOL + 1))],
)
@pytest.mark.parametrize(
    "node",
    [
        diamond(),
        AsyncNode(name="a"),
        Holder(value={"a": [1, {2}], (3,): frozenset({Node(name="x")}), Node(name="y"): float("nan")}),
        Node(name="a", kind="gpu"),
    ],
    ids=["diamond", "async", "containers", "outside identity"],
)
def test_copy_of_a_node_is_that_node(node: Any, copied: Any, record: Computed) -> None:
    """The same hash and fields, and a value that is there already."""
    other = copied(node)
    assert other is not node
    assert node == other
    assert node.furu_hash == other.furu_hash
    assert repr(node) == repr(other)
    assert getattr(node, "kind", None) == getattr(other, "kind", None)
    value = node.get()
    record.order.clear()
    assert value == other.get()
    assert [] == record.order


def test_replaced_field_gives_another_node() -> None:
    """And the first stays as it was."""
    node = Node(name="a")
    other = dataclasses.replace(node, name="b")
    assert (Node(name="b"), Node(name="a")) == (other, node)
    assert node.furu_hash != other.furu_hash


def test_unpickled_node_has_the_hash_of_the_class_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle from before the version was raised is a node of the new version."""
    pickled = pickle.dumps(Node(name="a"))
    monkeypatch.setattr(Node, "_version", 2, raising=False)
    assert Node(name="a").furu_hash == pickle.loads(pickled).furu_hash


def test_repr_shows_the_fields_and_only_names_the_nodes_in_them() -> None:
    """Those marked repr=False are left out."""

    class Shown(Furu[int]):
        a: int
        hidden: int = dataclasses.field(default=0, repr=False)
        below: tuple[Furu[Any], ...] = ()

    node = Node(name="n")
    shown = f"Shown(a=1, below=(<Node {node.furu_hash[:8]}>,))".replace("Shown", Shown.__qualname__)
    assert shown == repr(Shown(a=1, below=(node,)))
    assert shown == repr(Shown(a=1, below=(node,)))  # after the first, too


def test_repr_of_a_ladder_of_diamonds_is_short() -> None:
    """Written out, it would have two to the thousandth parts."""
    node: Any = Holder()
    for _ in range(1000):
        node = Holder(value=(Holder(value=("left", node)), Holder(value=("right", node))))
    assert 100 > len(repr(node))


def test_repr_that_fails_in_a_field_does_not_spoil_the_next_one() -> None:
    """The next node is written out again."""

    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no repr")

    class Loose(Furu[int]):
        value: Any = dataclasses.field(compare=False)

    assert "value=<" in repr(Loose(value=Broken()))
    assert "Broken, which cannot be shown: ValueError>" in repr(Loose(value=Broken()))
    assert "Node(name='a', below=(), kind='default')" == repr(Node(name="a"))


def test_long_node_is_cut_in_messages() -> None:
    """300 characters say which one it is."""
    assert "Node(name='a', below=(), kind='default')" == describe(Node(name="a"))
    assert 300 == len(describe(Node(name="x" * 1000)))


# ---- getting, in a user's own code ----


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


def test_forced_get_computes_what_is_missing_as_a_plain_one_does(record: Computed) -> None:
    """In a user's own code there is no difference."""
    assert 5 == diamond().get(force=True)
    assert ["base", "left", "right", "top"] == record.order


def test_get_goes_only_below_what_is_missing(record: Computed) -> None:
    """n0 <- n1 (there already) <- n2 <- n3"""
    chain(2).get()
    record.order.clear()
    assert 4 == chain(4).get()
    assert ["n2", "n3"] == record.order


def test_get_of_a_deep_chain_needs_no_recursion(record: Computed) -> None:
    """Deeper than Python's own limit."""
    assert 1500 == chain(1500).get()
    assert [f"n{number}" for number in range(1500)] == record.order


def test_undeclared_node_is_computed_where_it_is_asked_for(record: Computed) -> None:
    """In a user's own code a `get()` inside `_create` is one like any other."""
    actions["outer"] = lambda: Node(name="undeclared").get()
    assert 1 == Node(name="outer").get()
    assert ["outer", "undeclared"] == record.order


def test_create_that_gets_itself_is_a_circle() -> None:
    """An error, not a wait for ever."""
    actions["a"] = lambda: Node(name="a").get()
    with pytest.raises(FuruComputeError) as caught:
        Node(name="a").get()
    assert isinstance(caught.value.__cause__, FuruCycleError)
    assert [Node(name="a"), Node(name="a")] == list(caught.value.__cause__.cycle)


def test_undeclared_circle_is_an_error_that_names_its_nodes() -> None:
    """a -> b -> a"""
    actions["a"] = lambda: Node(name="b").get()
    actions["b"] = lambda: Node(name="a").get()
    with pytest.raises(FuruComputeError) as caught:
        Node(name="a").get()
    error: BaseException | None = caught.value
    while isinstance(error, FuruComputeError):
        error = error.__cause__
    assert isinstance(error, FuruCycleError)
    assert ["a", "b", "a"] == [node.name for node in error.cycle]


def test_exists_and_status_tell_what_the_store_says() -> None:
    """TODO, then FAILED, then DONE."""
    node = Node(name="a")
    assert (False, Status.TODO) == (node.exists(), node.status())
    actions["a"] = fail
    with pytest.raises(FuruComputeError):
        node.get()
    assert (False, Status.FAILED) == (node.exists(), node.status())
    actions.clear()
    node.get()
    assert (True, Status.DONE) == (node.exists(), node.status())


def test_status_is_in_progress_while_it_is_computed() -> None:
    """Seen from inside."""
    seen: list[Any] = []
    node = Node(name="a")
    actions["a"] = lambda: seen.append((node.status(), node.exists()))
    node.get()
    assert [(Status.IN_PROGRESS, False)] == seen


def test_asking_makes_nothing_on_disk(store: Path) -> None:
    """Not even the store."""
    node = diamond()
    node.exists(), node.status(), node.furu_dir, node.logger, repr(node), dependencies(node)
    assert not store.exists()


def test_two_threads_that_get_the_same_node_compute_it_once(record: Computed) -> None:
    """The second waits for the first."""
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
    """Where no loop runs, one is started for it."""
    assert 2 == AsyncNode(name="top", below=(AsyncNode(name="a"),)).get()
    assert 2 == Node(name="mixed", below=(AsyncNode(name="a"),)).get()
    assert ["a", "top", "mixed"] == record.order


@pytest.mark.anyio
async def test_aget_computes_what_is_missing_and_loads_what_is_there(record: Computed) -> None:
    """Async nodes and others, deepest first."""
    middle = Node(name="middle", below=(AsyncNode(name="base"),))
    top = AsyncNode(name="top", below=(middle, AsyncNode(name="base")))
    assert 4 == await top.aget()
    assert ["base", "middle", "top"] == record.order
    assert 4 == await top.aget(force=True)
    assert 2 == await middle.aget()
    assert 3 == len(record.order)


@pytest.mark.anyio
async def test_aget_computes_plain_nodes_off_the_loop() -> None:
    """And async ones on it."""
    threads: dict[str, int] = {}
    actions["plain"] = lambda: threads.__setitem__("plain", threading.get_ident())
    actions["async"] = lambda: threads.__setitem__("async", threading.get_ident())
    await AsyncNode(name="async", below=(Node(name="plain"),)).aget()
    assert threading.get_ident() == threads["async"]
    assert threading.get_ident() != threads["plain"]


@pytest.mark.anyio
async def test_aget_of_a_failing_node_raises_the_same_error() -> None:
    """With the original as its cause."""
    for node in (Node(name="a"), AsyncNode(name="a")):
        actions["a"] = fail
        with pytest.raises(FuruComputeError, match="bad split") as caught:
            await node.aget()
        assert isinstance(caught.value.__cause__, ValueError)
        assert node == caught.value.node
        assert Status.FAILED is await anyio.to_thread.run_sync(node.status)


# ---- getting, in a worker ----


def test_worker_loads_what_is_there() -> None:
    """Forced or not, of whatever kind."""
    Node(name="a", kind="gpu").get()
    with executor_context(spec_key="default", backend="test", node_hash="0" * 32):
        assert [1, 1] == [Node(name="a", kind="gpu").get(), Node(name="a", kind="gpu").get(force=True)]


def test_worker_computes_only_the_node_it_was_given(record: Computed) -> None:
    """And only where it is told to."""
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


def test_worker_of_another_kind_computes_nothing(record: Computed) -> None:
    """The error has both kinds."""
    node = Node(name="a", kind="gpu")
    with (
        executor_context(spec_key="cpu", backend="test", node_hash=node.furu_hash),
        pytest.raises(FuruSpecMismatchError, match=r"kind 'gpu', and this one is 'cpu'") as caught,
    ):
        node.get(force=True)
    assert (node, "gpu", "cpu") == (caught.value.node, caught.value.spec_key, caught.value.worker_spec_key)
    assert [] == record.order


def test_missing_artifact_names_who_asked_and_the_line_that_would_declare_it() -> None:
    """In a run, where the graph was known before."""
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
    """Missing, given, and there already."""
    given, other = AsyncNode(name="given"), AsyncNode(name="other")
    with executor_context(spec_key="default", backend="test", node_hash=given.furu_hash):
        with pytest.raises(FuruMissingArtifactError):
            await other.aget()
        with pytest.raises(FuruError, match="is refused"):
            await other.aget(force=True)
        assert 1 == await given.aget(force=True)
        assert 1 == await given.aget()
    assert ["given"] == record.order


# ---- failing ----


def test_failed_node_says_which_with_what_where_and_what_next() -> None:
    """One error, the original as its cause, the traceback in the file that it names."""
    actions["a"] = fail
    node = Node(name="a")
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    error = caught.value
    assert isinstance(error.__cause__, ValueError)
    assert node is error.node
    assert [Failure(node, error.__cause__, error.state_path, str(error))] == list(error.failures)
    assert error.report is None
    assert error.state_path is not None
    assert (
        str(error)
        == f"{node!r} failed: ValueError: bad split. State: {error.state_path}. Run again to retry."
    )
    assert "in fail" in error.state_path.read_text()


def test_failed_dependency_is_the_node_of_the_error(record: Computed) -> None:
    """Nothing above it is tried."""
    actions["left"] = fail
    with pytest.raises(FuruComputeError) as caught:
        diamond().get()
    assert "left" == caught.value.node.name
    assert ["base", "left"] == record.order


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_users_own_code_stays_what_it_is(error: type[BaseException]) -> None:
    """It is the user's, not the node's: the node is not FAILED."""

    def interrupt() -> None:
        raise error

    actions["a"] = interrupt
    with pytest.raises(error):
        Node(name="a").get()
    assert Status.TODO is Node(name="a").status()
    actions.clear()
    assert 1 == Node(name="a").get()


class Unprintable:
    """An object for a field outside identity, which nobody can print."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Annotated(Furu[int]):
    value: Any = None
    note: Any = dataclasses.field(default=None, compare=False, repr=False)
    fails: bool = False

    def _create(self) -> int:
        if self.fails:
            raise ValueError("bad split")
        return 1


# Values that have a hash, and that are hard to show to people.
AWKWARD = {
    "lone surrogate": {"value": "\ud800"},
    "surrogate as a key": {"value": {"\ud800": 1}},
    "path that is not UTF-8": {"value": Path("\udcff")},
    "huge int": {"value": 10**5000},
    "huge int in a list": {"value": [10**5000]},
    "no repr": {"note": Unprintable()},
    "text of two MiB": {"value": "x" * 2**21},
    "NaN": {"value": float("nan")},
    "nested at the limit": {"value": eval("[" * 90 + "]" * 90)},
}


@pytest.mark.parametrize("name", AWKWARD)
def test_field_that_is_hard_to_show_does_not_keep_a_node_from_being_computed(name: str) -> None:
    """A configuration is written next to the result for people; the result matters more."""
    node = Annotated(**AWKWARD[name])
    assert 1 == node.get()
    assert Status.DONE is node.status()
    assert 1 == node.get()


@pytest.mark.parametrize("name", AWKWARD)
def test_field_that_is_hard_to_show_does_not_hide_why_a_node_failed(name: str) -> None:
    """The node's own error is the cause, and the node is FAILED: nobody waits for it."""
    node = Annotated(**AWKWARD[name], fails=True)
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    assert "bad split" == str(caught.value.__cause__)
    assert Status.FAILED is node.status()


@pytest.mark.parametrize("name", AWKWARD)
def test_field_that_is_hard_to_show_has_a_repr(name: str) -> None:
    """Messages about a node must not fail before they are made."""
    assert describe(Annotated(**AWKWARD[name])).startswith("Annotated(")


def test_small_results_of_large_configurations_can_be_read_back() -> None:
    """The setting limits the result, not what was asked for."""
    node = Annotated(value="x" * 2**21)
    with use_settings(max_result_bytes=100):
        assert 1 == node.get()
        assert 1 == node.get()


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


@pytest.mark.parametrize(
    "error",
    [ValueError("\ud800"), ValueError("x" * 2**21), UnprintableError(), ValueError(), ValueError("a\nb")],
    ids=["surrogate", "two MiB", "no str", "empty", "two lines"],
)
def test_whatever_a_node_raises_is_the_cause_and_is_recorded(error: Exception) -> None:
    """Even where its message is hard to write down."""

    def raise_it() -> None:
        raise error

    actions["a"] = raise_it
    with pytest.raises(FuruComputeError) as caught:
        Node(name="a").get()
    assert error is caught.value.__cause__
    assert Status.FAILED is Node(name="a").status()
    assert 5000 > len(str(caught.value))


def test_node_that_was_changed_after_it_was_made_is_not_computed() -> None:
    """Its hash would stand for what it no longer is."""

    class Listing(Furu[int]):
        items: list[int]

        def _create(self) -> int:
            return len(self.items)

    node = Listing(items=[1])
    node.items.append(2)
    with pytest.raises(FuruError, match=r"was changed after it was made.*make another node"):
        node.get()
    assert not node.exists()
    node.items.pop()
    assert 1 == node.get()
    changed_deep = Holder(value={"a": [{"b": set()}]})
    changed_deep.value["a"][0]["b"].add(1)
    with pytest.raises(FuruError, match="was changed"):
        changed_deep.get()


@pytest.mark.anyio
async def test_changed_node_is_not_computed_by_aget_or_a_run_either() -> None:
    """The same words."""
    node = Holder(value=[1])
    node.value.append(2)
    with pytest.raises(FuruError, match="was changed after it was made"):
        await node.aget()
    with pytest.raises(FuruError, match="was changed after it was made"):
        await furu.run_local_async([node])


# ---- _validate ----


class Checked(Furu[int]):
    name: str = "a"
    good: ClassVar[list[bool]] = [True]
    computed: ClassVar[list[int]] = []

    def _create(self) -> int:
        self.computed.append(1)
        self.good[0] = True
        return len(self.computed)

    def _validate(self) -> bool:
        return self.good[0]


@pytest.fixture
def checked() -> Checked:
    """A node that is DONE, and whose artifact a test may declare invalid."""
    Checked.good[0] = True
    Checked.computed.clear()
    node = Checked()
    assert 1 == node.get()
    return node


def test_artifact_that_validate_rejects_counts_as_missing(checked: Checked) -> None:
    """And is replaced, once."""
    Checked.good[0] = False
    assert (False, Status.TODO) == (checked.exists(), checked.status())
    assert 2 == checked.get()
    assert (True, Status.DONE, 2) == (checked.exists(), checked.status(), checked.get())


def test_rejected_dependency_is_computed_again_for_what_is_above(checked: Checked) -> None:
    """By a get() of something missing that stands on it."""

    class Above(Furu[int]):
        below: Checked

        def _create(self) -> int:
            return 10 * self.below.get()

    Checked.good[0] = False
    assert 20 == Above(below=checked).get()


def test_validate_is_asked_only_where_there_is_something_to_validate() -> None:
    """It may look at the files without checking that there are any."""

    class Filed(Furu[int]):
        def _create(self) -> int:
            (self.furu_dir / "a").write_text("x")
            return 1

        def _validate(self) -> bool:
            return (self.furu_dir / "a").read_text() == "x"

    node = Filed()
    assert (False, Status.TODO) == (node.exists(), node.status())
    assert 1 == node.get()
    (node.furu_dir / "a").write_text("y")
    assert not node.exists()
    assert 1 == node.get()
    assert "x" == (node.furu_dir / "a").read_text()


def test_validate_that_rejects_what_create_has_just_made_fails_the_node() -> None:
    """It would be made for ever."""

    class Never(Furu[int]):
        def _create(self) -> int:
            return 1

        def _validate(self) -> bool:
            return False

    with pytest.raises(FuruComputeError, match=r"_validate\(\) rejects the artifact of _create\(\)"):
        Never().get()


# ---- files and logs ----


class Writing(Furu[Path]):
    name: str = "a"

    def _create(self) -> Path:
        (self.furu_dir / "data.txt").write_text(self.name)
        return self.furu_dir

    def _load(self) -> Path:
        return self.furu_dir


def test_furu_dir_is_the_attempts_own_and_then_the_artifacts(store: Path) -> None:
    """One directory, made on first use, inside the node's."""
    node = Writing()
    before = node.furu_dir
    assert not before.exists()
    inside = node.get()
    assert before.parent == inside.parent
    assert inside == node.furu_dir == Writing().get()
    assert "a" == (node.furu_dir / "data.txt").read_text()
    assert store / __name__ / "Writing" / node.furu_hash == inside.parent


def test_furu_dir_is_not_made_for_a_node_that_does_not_use_it() -> None:
    """A million small nodes are a million directories fewer."""
    node = Holder()
    node.get()
    assert not node.furu_dir.exists()
    assert ["done"] == os.listdir(node.furu_dir.parent)


def test_second_attempt_starts_with_an_empty_directory() -> None:
    """What the failed one left does not get into the artifact; after the failure it is still there."""

    class Flaky(Furu[int]):
        fail: ClassVar[list[bool]] = [True]

        def _create(self) -> int:
            found = len(list(self.furu_dir.iterdir()))
            (self.furu_dir / "left").touch()
            if self.fail[0]:
                raise ValueError("half-way")
            return found

    with pytest.raises(FuruComputeError):
        Flaky().get()
    assert ["left"] == os.listdir(Flaky().furu_dir)
    first = Flaky().furu_dir
    Flaky.fail[0] = False
    assert 0 == Flaky().get()
    assert first != Flaky().furu_dir
    assert not first.exists()


class Logging(Furu[int]):
    def _create(self) -> int:
        self.logger.debug("a detail %d", 1)
        self.logger.warning("a warning\nof two lines")
        thread = threading.Thread(target=lambda: self.logger.info("from a thread of its own"))
        thread.start()
        thread.join()
        try:
            raise ValueError("bad split")
        except ValueError:
            self.logger.exception("went wrong")
        return 1


def test_logger_writes_every_level_to_the_attempts_own_file() -> None:
    """A message's own line breaks are told from those between messages."""
    Logging().get()
    text = (Logging().furu_dir / "furu.log").read_text()
    starts = [line for line in text.splitlines() if not line.startswith("    | ")]
    expected = [
        "DEBUG a detail 1",
        "WARNING a warning",
        "INFO from a thread of its own",
        "ERROR went wrong",
    ]
    assert expected == [re.sub(r"^\S+ \S+ ", "", line) for line in starts]
    assert "    | of two lines\n" in text
    assert "    | ValueError: bad split\n" in text


def test_logger_passes_on_what_the_host_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Under the node's class, as the host's levels say."""
    caplog.set_level(logging.WARNING)
    Logging().get()
    name = f"furu.node.{__name__}.Logging"
    expected = [(name, logging.WARNING, "a warning\nof two lines"), (name, logging.ERROR, "went wrong")]
    assert expected == caplog.record_tuples
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="furu.node"):
        Logging().logger.debug("between attempts")
    assert [(name, logging.DEBUG, "between attempts")] == caplog.record_tuples


def test_logger_between_attempts_writes_no_file() -> None:
    """There is no attempt that it would belong to."""
    Holder().logger.warning("before")
    Holder().get()
    Holder().logger.warning("after")
    assert not Holder().furu_dir.exists()


def test_logger_does_not_change_the_hosts_loggers() -> None:
    """No level, no handler."""
    before = (logging.root.level, list(logging.root.handlers))
    Logging().get()
    host = logging.getLogger(f"furu.node.{__name__}.Logging")
    assert (logging.NOTSET, [], True) == (host.level, host.handlers, host.propagate)
    assert before == (logging.root.level, list(logging.root.handlers))


# ---- the errors ----


def every_error() -> list[type[FuruError]]:
    """The classes that furu exports."""
    names = [getattr(furu, name) for name in furu.__all__]
    return [one for one in names if isinstance(one, type) and issubclass(one, FuruError)]


@pytest.mark.parametrize("cls", every_error(), ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling_with_its_data(cls: type[FuruError]) -> None:
    """And can be made with its message alone."""
    sample = {
        "node": Node(name="a"),
        "asked_by": Node(name="b"),
        "cycle": (Node(name="a"), Node(name="a")),
        "path": Path("a"),
        "state_path": Path("b"),
        "node_dir": Path("c"),
        "failures": (Failure(Node(name="a"), ValueError("x"), Path("b"), "words"),),
        "attempt": 3,
    }
    names = [
        name for name in inspect.signature(cls).parameters if name not in ("message", "args", "kwargs")
    ]
    error = cls("what happened", **{name: sample.get(name, "text") for name in names})
    other = pickle.loads(pickle.dumps(error))
    assert type(error) is type(other)
    assert "what happened" == str(error) == str(other)
    for name in names:
        expected, found = getattr(error, name), getattr(other, name)
        assert expected == found or (name == "failures" and repr(expected) == repr(found))
    assert "what happened" == str(cls("what happened"))


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (FuruUsageError, TypeError),
        (FuruIdentityError, FuruUsageError),
        (furu.FuruSettingsError, ValueError),
        (FuruRunningLoopError, RuntimeError),
        (FuruLoadError, furu.FuruStoreError),
    ],
)
def test_errors_of_misuse_are_the_built_in_kind_too(cls: type, base: type) -> None:
    """For callers that know nothing of furu."""
    assert issubclass(cls, base)
    assert issubclass(cls, FuruError)


def test_errors_that_were_raised_survive_pickling() -> None:
    """With what their classes cannot be asked for by a signature."""
    actions["a"] = fail
    with pytest.raises(FuruComputeError) as computing:
        Node(name="a").get()
    with pytest.raises(FuruIdentityError) as identifying:
        Holder(value=[object()])
    other = pickle.loads(pickle.dumps(computing.value))
    assert (str(computing.value), Node(name="a")) == (str(other), other.node)
    assert ["bad split"] == [str(failure.error) for failure in other.failures]
    assert "Holder.value[0]" == pickle.loads(pickle.dumps(identifying.value)).field_path


# ---- and the rest of the contract ----


def test_registered_type_is_shown_in_the_record_and_counts_in_the_hash() -> None:
    """A node with a foreign value is computed like any other."""

    class Grid:
        def __init__(self, size: int) -> None:
            self.size = size

    register_canonical_form(Grid, lambda grid: grid.size)
    assert Holder(value=Grid(1)) == Holder(value=Grid(1)) != Holder(value=Grid(2))
    assert 1 == Holder(value=Grid(1)).get() == Holder(value=Grid(1)).get()


def test_create_without_side_effects_on_the_context(record: Computed) -> None:
    """In a user's own code the context stays interactive, inside and after."""
    seen: list[ExecContext] = []
    actions["a"] = lambda: seen.append(EXEC_CONTEXT.get())
    Node(name="a").get()
    assert [ExecContext()] == seen
    assert ExecContext("interactive", None, None, None) == EXEC_CONTEXT.get()


@pytest.mark.parametrize("raises", [False, True])
def test_what_create_sets_in_its_context_ends_with_it(raises: bool) -> None:
    """However it ends, the context of its caller is as it was."""
    variable: ContextVar[str] = ContextVar("variable", default="the caller's")

    def set_and_end() -> None:
        variable.set("the node's")
        if raises:
            raise ValueError("bad")

    actions["a"] = set_and_end
    with contextlib.suppress(FuruComputeError):
        Node(name="a").get()
    assert "the caller's" == variable.get()


def test_signal_handlers_are_not_touched_outside_the_main_thread() -> None:
    """And in it only on request."""
    before = signal.getsignal(signal.SIGTERM)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            Furu._setup_signal_handlers()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert [] == errors
    assert before == signal.getsignal(signal.SIGTERM)
    try:
        Furu._setup_signal_handlers()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_hash_seed_does_not_reach_pythons_hash_of_a_node() -> None:
    """Sets of nodes iterate alike in every process."""
    node = Node(name="a")
    assert int(node.furu_hash[:15], 16) == hash(node)
    assert collections.Counter([node, Node(name="a")]) == {node: 2}


def test_no_class_is_kept_alive_by_its_nodes_being_asked(record: Computed) -> None:
    """A failing block leaves nothing running: the same node can be computed at once."""
    actions["a"] = fail
    with contextlib.suppress(FuruComputeError):
        Node(name="a").get()
    actions.clear()
    assert 1 == Node(name="a").get()
    assert ["a", "a"] == record.order


def test_place_of_a_node_in_the_store_is_where_its_artifact_lies() -> None:
    node = chain(1)
    node.get()
    assert Path(node._artifact().files.done).is_file()
