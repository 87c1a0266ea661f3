"""Node classes: fields, equality, copies, pickles and repr."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any, ClassVar, Generic

import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruUsageError,
    Status,
)
from furu.node.base import describe
from furu.node.dependencies import dependencies
from tests.graphs import AsyncNode, Computed, Node, diamond
from tests.node.nodes import Holder, T

# ---- the class ----


def test_subclass_is_a_frozen_keyword_only_dataclass() -> None:
    """The subclass needs no decorator and no `__init__`."""

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
    """Fields behave as in any dataclass. A field without a default may follow a field with a default."""

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
    """Type parameters do not count in the hash. They are for type checkers and for loading results."""

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


def test_mixin_adds_behaviour() -> None:
    """The mixin may come before or after `Furu` in the bases."""

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
    """The normalized values count in the hash."""

    class Sorted(Furu[int]):
        items: tuple[int, ...]

        def __post_init__(self) -> None:
            if not self.items:
                raise ValueError("no items")
            object.__setattr__(self, "items", tuple(sorted(self.items)))

    assert Sorted(items=(2, 1)) == Sorted(items=(1, 2))
    with pytest.raises(ValueError, match="no items"):
        Sorted(items=())


def test_field_may_have_a_default_outside_the_constructor() -> None:

    class Fixed(Furu[int]):
        kind: str = dataclasses.field(init=False, default="a")

        def _create(self) -> int:
            return len(self.kind)

    assert 1 == Fixed().get()
    assert repr(Fixed()).endswith("Fixed(kind='a')")
    assert [] == dependencies(Fixed())


def test_custom_constructor_may_call_the_constructor_of_its_base() -> None:
    """The node is complete when the outer constructor has returned."""

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
def test_field_with_a_name_of_furu_is_rejected(name: str) -> None:
    """The error is raised when the class is defined."""
    with pytest.raises(FuruUsageError, match=rf"the field Hiding\.{name} hides Furu's own {name}"):
        type("Hiding", (Furu,), {"__annotations__": {name: int}, name: 1})
    with pytest.raises(FuruUsageError, match=rf"the field Hiding\.{name} hides"):
        type("Hiding", (Furu,), {"__annotations__": {name: int}})


def test_class_variables_are_not_fields() -> None:
    """Settings such as `_version` and `_codec` may be annotated with `ClassVar` too."""

    class Settled(Furu[int]):
        _version: ClassVar[int] = 3
        _codec: ClassVar[Any] = "pickle"
        limit: ClassVar[int] = 5

    assert () == dataclasses.fields(Settled)


@pytest.mark.parametrize(("old", "new"), [({}, {"_version": 1}), ({"_version": 1}, {"_version": "1"})])
def test_raised_version_makes_the_artifact_stale(old: dict[str, Any], new: dict[str, Any]) -> None:
    """The old artifact is kept for code that uses the old class."""
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
    """Raising the version of the base makes the artifacts of both classes stale."""

    def hashes(version: int) -> list[str]:
        base = type("Base", (Furu,), {"_version": version, "__module__": "m"})
        return [base().furu_hash, type("Derived", (base,), {"__module__": "m"})().furu_hash]

    assert hashes(1) == hashes(1)
    assert 4 == len({*hashes(1), *hashes(2)})


def test_class_in_a_function_works_and_has_a_directory_in_the_store(store: Path) -> None:
    """The qualified name of such a class is not an identifier."""

    class Local(Furu[int]):
        x: int

        def _create(self) -> int:
            return self.x

    assert 5 == Local(x=5).get() == Local(x=5).get()
    expected = store / __name__ / Local.__qualname__ / Local(x=5).furu_hash
    assert expected.is_file()
    assert "<locals>" in Local.__qualname__


def test_class_without_create_is_an_error_when_it_is_computed() -> None:

    class Empty(Furu[int]):
        pass

    with pytest.raises(FuruComputeError, match=r"Empty defines no _create\(\)"):
        Empty().get()


def test_furu_itself_cannot_be_instantiated() -> None:
    with pytest.raises(FuruUsageError, match=r"(?i)subclass"):
        Furu()


# ---- equality, copies, pickles, repr ----


def test_nodes_are_equal_by_their_hash() -> None:
    """Equal nodes are also equal as members of sets and as keys of dicts."""
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
def test_copy_of_a_node_is_the_same_node(node: Any, copied: Any, record: Computed) -> None:
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
    node = Node(name="a")
    other = dataclasses.replace(node, name="b")
    assert (Node(name="b"), Node(name="a")) == (other, node)
    assert node.furu_hash != other.furu_hash


def test_unpickled_node_has_the_hash_of_the_current_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """If `_version` was raised after pickling, the unpickled node is one of the new version."""
    pickled = pickle.dumps(Node(name="a"))
    monkeypatch.setattr(Node, "_version", 2, raising=False)
    assert Node(name="a").furu_hash == pickle.loads(pickled).furu_hash


def test_repr_shows_the_fields_and_only_names_the_nodes_in_them() -> None:
    """Fields with `repr=False` are left out."""

    class Shown(Furu[int]):
        a: int
        hidden: int = dataclasses.field(default=0, repr=False)
        below: tuple[Furu[Any], ...] = ()

    node = Node(name="n")
    shown = f"Shown(a=1, below=(<Node {node.furu_hash[:8]}>,))".replace("Shown", Shown.__qualname__)
    assert shown == repr(Shown(a=1, below=(node,)))
    assert shown == repr(Shown(a=1, below=(node,)))  # the second time too


def test_repr_of_a_ladder_of_diamonds_is_short() -> None:
    """If nodes in fields were written in full, the repr would have 2**1000 parts."""
    node: Any = Holder()
    for _ in range(1000):
        node = Holder(value=(Holder(value=("left", node)), Holder(value=("right", node))))
    assert 100 > len(repr(node))


def test_failing_repr_of_a_field_does_not_affect_the_next_repr() -> None:

    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no repr")

    class Loose(Furu[int]):
        value: Any = dataclasses.field(compare=False)

    assert "value=<" in repr(Loose(value=Broken()))
    assert "Broken, which cannot be shown: ValueError>" in repr(Loose(value=Broken()))
    assert "Node(name='a', below=(), kind='default')" == repr(Node(name="a"))


def test_long_node_is_cut_in_messages() -> None:
    assert "Node(name='a', below=(), kind='default')" == describe(Node(name="a"))
    assert 300 == len(describe(Node(name="x" * 1000)))
