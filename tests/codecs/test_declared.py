"""The result type of a class: declared by the class itself or by a generic base, also in quotes."""

from __future__ import annotations

import sys
import textwrap
import types
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from furu import Furu, FuruComputeError, FuruUsageError
from furu.codecs.declared import result_type
from tests.codecs.test_json import Packed, Point, node_of

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Later(Furu["Below"]):
    def _create(self) -> Below:
        return Below(1)


class LaterInside(Furu["dict[str, list[Below]]"]):
    def _create(self) -> dict[str, list[Below]]:
        return {"a": [Below(1)]}


class LaterItem(Furu[list["Below"]]):
    def _create(self) -> list[Below]:
        return [Below(1)]


class Below(msgspec.Struct):
    x: int


class Lists(Furu[list[T]], Generic[T]):
    value: Any = None

    def _create(self) -> list[T]:
        return [self.value]


class Points(Lists[Point]):
    pass


class MorePoints(Points):
    pass


class Bare(Furu[T], Generic[T]):
    value: Any = None

    def _create(self) -> T:
        result: T = self.value
        return result


class Pairs(Furu[dict[K, V]], Generic[V, K]):
    """`Generic` lists the parameters in another order than the result type."""


class PairsOf(Pairs[V, str], Generic[V]):
    pass


class Tables(Lists[dict[str, T]], Generic[T]):
    """Uses the type variable of its base with another meaning."""


class Optionals(Furu[T | None], Generic[T]):
    pass


class Unparametrized(Furu):  # type: ignore[type-arg]
    pass


class Mixin:
    pass


class Recorded(Furu):  # type: ignore[type-arg]
    """A base class that adds behaviour and leaves the result type to its subclasses."""


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Later, Below),
        (LaterInside, dict[str, list[Below]]),
        (LaterItem, list[Below]),
        (Points, list[Point]),
        (MorePoints, list[Point]),
        (types.new_class("X", (Bare[tuple[int, str]],)), tuple[int, str]),
        (types.new_class("X", (Pairs[int, str],)), dict[str, int]),
        (types.new_class("X", (PairsOf[int],)), dict[str, int]),
        (types.new_class("X", (Tables[int],)), list[dict[str, int]]),
        (types.new_class("X", (Optionals[int],)), int | None),
        (types.new_class("X", (Mixin, Furu[int])), int),
        (types.new_class("X", (Mixin, Points)), list[Point]),
        (types.new_class("X", (Points,)), list[Point]),
        (types.new_class("X", (Points, Generic[T])), list[Point]),
        (types.new_class("X", (Recorded, Furu[int])), int),
        (types.new_class("X", (Furu[None],)), type(None)),
        (Unparametrized, Any),
        (types.new_class("X", (Unparametrized,)), Any),
    ],
)
def test_type_that_a_class_declares_is_found(cls: type, expected: Any) -> None:
    """The class itself or a generic base declares the type, with or without quotes."""
    assert expected == result_type(cls, Furu)


def test_unbound_type_variable_accepts_any_value() -> None:
    """An unbound type variable counts as `Any`, as in `Furu` without a parameter."""
    assert [{"a": 1}] == Lists(value={"a": 1}).get()
    assert "a" == Bare[str](value="a").get()
    with pytest.raises(FuruComputeError, match="tuple"):
        Bare(value=(1, 2)).get()


@pytest.mark.parametrize("node", [Later(), LaterInside(), LaterItem(), Points(value=Point(1))])
def test_value_of_a_quoted_or_inherited_type_is_read_back(node: Furu[Any]) -> None:
    """Types that are defined after the class are known by the time of the first result."""
    first = node.get()
    assert first == node.get()
    assert "1" in repr(first)


def test_class_without_a_type_keeps_plain_data() -> None:
    """Plain data is lists, dicts, strings, numbers, booleans and None."""

    class Plain(Furu):  # type: ignore[type-arg]
        def _create(self) -> Any:
            return {"a": [1, None, 2.5, "x"]}

    assert {"a": [1, None, 2.5, "x"]} == Plain().get() == Plain().get()


class Unknown(Furu["Nowhere"]):  # type: ignore[name-defined]
    def _create(self) -> Any:
        return 1


def test_unknown_type_name_is_an_error_that_names_the_module() -> None:
    with pytest.raises(FuruUsageError, match="Unknown declares a result of") as caught:
        Unknown().get()
    assert f"not known in module {__name__}" in str(caught.value)


def test_unknown_type_name_does_not_matter_without_json() -> None:
    """With `_load` or pickle, furu does not use the declared type."""

    class Files(Unknown):
        def _create(self) -> Any:
            (self.furu_dir / "a").write_text("1")

        def _load(self) -> Any:
            return (self.furu_dir / "a").read_text()

    class Pickled(Unknown):
        _codec = "pickle"

    Files().get()
    assert "1" == Files().get()
    assert 1 == Pickled().get() == Pickled().get()


@pytest.mark.parametrize("declared", [Point | Packed, Point | dict[str, int], set[dict[str, int]]])
def test_ambiguous_union_is_an_error_with_advice(declared: Any) -> None:
    """In JSON, two kinds of objects without a tag cannot be told apart, and a set holds no dicts."""
    with pytest.raises(FuruUsageError, match=r"define _load\(\)"):
        node_of(declared, {"x": 1}).get()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
def test_type_parameters_in_brackets_work() -> None:
    """Python 3.12 allows `class Base[T](Furu[list[T]])`."""
    source = """
        from furu import Furu
        type Pairs = tuple[tuple[int, str], ...]
        class Base[T](Furu[list[T]]):
            def _create(self): return [(1, 2)]
        class Leaf(Base[tuple[int, ...]]): pass
        class Aliased(Furu[Pairs]):
            def _create(self): return ((1, "a"),)
    """
    module = types.ModuleType("furu_test_new_syntax")
    sys.modules[module.__name__] = module
    try:
        exec(textwrap.dedent(source), vars(module))
        assert list[tuple[int, ...]] == result_type(module.Leaf, Furu)
        assert [(1, 2)] == module.Leaf().get() == module.Leaf().get()
        assert ((1, "a"),) == module.Aliased().get() == module.Aliased().get()
    finally:
        del sys.modules[module.__name__]
