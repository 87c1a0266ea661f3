"""Values with fields, defaults and generic classes have one form, and so one hash."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import runpy
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
import msgspec
import numpy as np
import pytest

import furu
from furu import Furu, FuruFieldError
from tests.node.test_fields import class_with

T = TypeVar("T")
U = TypeVar("U")


@dataclasses.dataclass(frozen=True)
class Square:
    side: float
    area: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "area", self.side**2)


@attrs.frozen
class Circle:
    radius: float
    text: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.radius!r}")


class Line(msgspec.Struct):
    length: float
    text: str = ""

    def __post_init__(self) -> None:
        self.text = f"{self.length!r}"


class Pair(typing.NamedTuple):
    low: float
    high: float


class Ordered(Pair):
    """A named tuple whose constructor takes other arguments."""

    def __new__(cls, both: str) -> typing.Self:
        low, high = both.split()
        return tuple.__new__(cls, (int(low), int(high)))


@dataclasses.dataclass
class NeedsMore:
    x: float
    more: dataclasses.InitVar[int]

    def __post_init__(self, more: int) -> None: ...


@dataclasses.dataclass
class KeepsInts:
    x: float

    def __post_init__(self) -> None:
        self.x = int(self.x)


@pytest.mark.parametrize(
    ("declared", "given", "same"),
    [
        (Square, Square(2), Square(2.0)),
        (Circle, Circle(2), Circle(2.0)),
        (Line, Line(2), Line(2.0)),
        (Pair, Ordered("1 2"), Ordered("1 2")),
        (list[Square], [Square(2)], (Square(2.0),)),
    ],
    ids=repr,
)
def test_what_a_class_derives_from_a_field_follows_its_converted_value(
    declared: Any, given: Any, same: Any
) -> None:
    cls = class_with(declared)
    node: Any = cls(value=given)
    assert cls(value=same).furu_hash == node.furu_hash
    assert repr(cls(value=same)) == repr(node)


def test_value_of_a_named_tuple_keeps_its_class() -> None:
    value = class_with(Pair)(value=Ordered("1 2")).value  # type: ignore[attr-defined]
    assert (Ordered, float, (1.0, 2.0)) == (type(value), type(value[0]), tuple(value))


@pytest.mark.parametrize("value", [NeedsMore(1, more=2), KeepsInts(1)], ids=repr)
def test_value_that_cannot_be_made_again_is_refused(value: Any) -> None:
    with pytest.raises(FuruFieldError, match="values of exactly the types that its fields declare"):
        class_with(type(value))(value=value)


# ---- defaults ----


class Defaults(Furu[int]):
    rate: float = 1
    sizes: tuple[int, ...] = dataclasses.field(default_factory=list)  # type: ignore[assignment]
    seen: str = furu.field(default="", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", repr((self.rate, self.sizes)))


def test_post_init_sees_normalised_defaults() -> None:
    assert "(1.0, ())" == Defaults().seen
    assert Defaults().furu_hash == Defaults(rate=1.0, sizes=()).furu_hash


# ---- generic classes ----


class Holds(Furu[Any], Generic[T]):
    held: T


class Counts(Furu[Any], Generic[T]):
    count: T


class Both(Holds[str], Counts[int]):
    """Passes two types for one type variable."""


class Middle(Holds[list[U]], Generic[U]):
    """Passes a type that has a type variable of its own."""

    middle: U


class Leaf(Middle[float]):
    pass


@dataclasses.dataclass
class Held(Generic[T]):
    held: T


@dataclasses.dataclass
class Counted(Held[str], Generic[T]):
    count: T = None  # type: ignore[assignment]


def test_two_bases_may_use_one_type_variable_for_two_types() -> None:
    node = Both(held="x", count=np.int64(1))  # type: ignore[arg-type]
    assert ("x", 1, int) == (node.held, node.count, type(node.count))
    with pytest.raises(FuruFieldError, match=r"Both\.held is declared as str"):
        Both(held=1, count=1)  # type: ignore[arg-type]


def test_type_variable_is_passed_through_two_classes() -> None:
    node = Leaf(held=[1], middle=2)
    assert ([1.0], 2.0) == (node.held, node.middle)
    assert (float, float) == (type(node.held[0]), type(node.middle))


def test_record_may_use_the_type_variable_of_its_base_for_another_type() -> None:
    value = class_with(Counted[float])(value=Counted("x", 1)).value  # type: ignore[attr-defined]
    assert ("x", float) == (value.held, type(value.count))


# ---- values that only look as if they fit ----


@pytest.mark.parametrize(
    ("declared", "value", "hint"),
    [
        (list[int], np.array(["2031-01-01"], dtype="datetime64[ns]"), r"\[0\] is declared as int"),
        (list[int], np.array([5], dtype="timedelta64[ns]"), r"\[0\] is declared as int"),
        (Iterable[str], {"b": 1, "a": 2}, r"write list\(x\)"),
        (typing.Collection[str], {"b": 1, "a": 2}, r"write list\(x\)"),
        (dict[str, int], collections.ChainMap({"a": 1}), r"write dict\(x\)"),
    ],
    ids=repr,
)
def test_value_of_another_meaning_is_refused(declared: Any, value: Any, hint: str) -> None:
    with pytest.raises(FuruFieldError, match=hint):
        class_with(declared)(value=value)


def test_array_of_days_is_a_list_of_dates() -> None:
    node: Any = class_with(list[dt.date])(value=np.array(["2031-05-06"], dtype="datetime64[D]"))
    assert [dt.date(2031, 5, 6)] == node.value


class Table(Furu[dict[str, int]]):
    def _create(self) -> dict[str, int]:
        return {}


@pytest.mark.parametrize(
    ("declared", "fits"),
    [
        (Furu[Iterable[str]], True),
        (Furu[Iterable[int]], False),
        (Furu[Mapping[str, int]], True),
        (Furu[Mapping[str, str]], False),
    ],
    ids=repr,
)
def test_dict_is_an_iterable_of_its_keys(declared: Any, fits: bool) -> None:
    if fits:
        class_with(declared)(value=Table())
    else:
        with pytest.raises(FuruFieldError):
            class_with(declared)(value=Table())


# ---- names in annotations ----


class Nested(Furu[int]):
    """Its annotations are text, and name a class of its body."""

    class Options(msgspec.Struct, frozen=True):
        """A class that only the body of `Nested` names."""

        rate: float

    options: Options
    more: tuple[Options, ...] = ()


def test_annotation_names_a_class_of_the_class_body() -> None:
    with pytest.raises(FuruFieldError, match=r"Nested\.options is declared as Nested\.Options"):
        Nested(options=3)  # type: ignore[arg-type]
    assert 1.0 == Nested(options=Nested.Options(1)).options.rate


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
def test_annotation_names_a_type_parameter() -> None:
    code = (
        "from __future__ import annotations\n"
        "import furu\n"
        "class Box[T](furu.Furu[T]):\n    value: T\n    others: tuple[T, ...] = ()\n"
        "class Ints(Box[int]):\n    pass\n"
        "type Tree = dict[str, Tree] | int\n"
        "class Holder(furu.Furu[int]):\n    tree: Tree\n    nodes: furu.Furu[Tree] | None = None\n"
        "class Makes(furu.Furu[Tree]):\n    def _create(self): return 1\n"
        "print(Ints(value=1, others=[2]), Holder(tree={'a': {'b': 1}}, nodes=Makes()).tree)\n"
        "try:\n    Makes().get()\n"
        "except furu.FuruUsageError as error:\n    print('refers to itself' in str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Ints(value=1, others=(2,)) {'a': {'b': 1}}\nTrue\n" == done.stdout


def test_class_of_a_file_that_runs_under_another_name_finds_its_names(tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text(
        "from __future__ import annotations\nimport furu\nfrom datetime import date\n"
        "class Fit(furu.Furu[int]):\n    day: date\n    def _create(self): return 1\n"
        "made = Fit(day=date(2031, 5, 6))\n"
    )
    names = runpy.run_path(str(tmp_path / "sweep.py"), run_name="other")
    assert dt.date(2031, 5, 6) == names["made"].day


# ---- hashes that depend on nothing else ----


def hash_of(value: Any) -> str:
    return class_with(Any)(value=value).furu_hash


def test_gaps_in_structured_arrays_do_not_count() -> None:
    gaps = np.dtype({"names": ["a", "b"], "formats": ["i1", "i8"], "offsets": [0, 8], "itemsize": 16})
    one, other = np.zeros(2, gaps), np.zeros(2, gaps)
    other.view(np.uint8)[1] = 7
    packed = np.zeros(2, [("a", "i1"), ("b", ">i8")])
    assert hash_of(one) == hash_of(other) == hash_of(packed)
    packed["b"][1] = 1
    assert hash_of(one) != hash_of(packed)


@pytest.mark.parametrize("make", [lambda: np.longdouble(1), lambda: np.zeros(1, np.clongdouble)])
def test_numbers_of_a_size_that_depends_on_the_machine_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"write x\.astype\('float64'\)"):
        hash_of(make())


def test_class_names_do_not_depend_on_the_version_of_python() -> None:
    """In Python 3.13, `pathlib.Path` is a class of `pathlib._local`."""
    assert "bf1bf67e" == hash_of(Path)[:8]
