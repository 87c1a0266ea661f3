"""Identity: different configurations have different hashes, and equal configurations have equal hashes."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import fractions
import pathlib
import struct
import typing
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from furu import Furu, FuruIdentityError
from tests.graphs import Node
from tests.node.values import (
    NAN,
    Access,
    Colour,
    Holder,
    Level,
    Noted,
    OtherHolder,
    OtherPoint,
    OtherTuple,
    Pair,
    Point,
    PointStruct,
    PointTuple,
    Shade,
    Word,
    hash_of,
    made,
    zone,
)

# ---- different configurations ----


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        (1, 1.0),
        (1, True),
        (1.0, True),
        (0, False),
        (0, None),
        ("p", Path("p")),
        ({1: 2}, {"1": 2}),
        ({1: "2"}, {1: 2}),
        ({1, 2}, frozenset({1, 2})),
        ({1, 2}, [1, 2]),
        (b"a", "a"),
        (b"a", bytearray(b"a")),
        (0.0, -0.0),
        (PointTuple(1, 2), (1, 2)),
        (PointTuple(1, 2), OtherTuple(1, 2)),
        (Point(1, 2), OtherPoint(1, 2)),
        (Point(1, 2), PointStruct(1, 2)),
        (Point(1, 2), PointTuple(1, 2)),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Point(1, 2), Point(2, 1)),
        (Colour.RED, 1),
        (Colour.RED, "RED"),
        (Colour.RED, Shade.RED),
        (Colour.RED, Colour.BLUE),
        (Level.RED, 1),
        (Word.RED, "RED"),
        (Access.READ, 1),
        (Access.READ, Access.READ | Access.WRITE),
        (Access(0), Access.READ),
        (dt.date(2024, 1, 1), dt.datetime(2024, 1, 1)),
        (dt.date(2024, 1, 1), "2024-01-01"),
        (dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        (dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, fold=1)),
        (dt.time(1), dt.time(1, fold=1)),
        (dt.time(1), dt.time(1, tzinfo=dt.UTC)),
        (dt.timedelta(1), 86400),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        (decimal.Decimal(1), 1),
        (fractions.Fraction(1, 2), 0.5),
        (complex(1, 0), 1.0),
        (complex(0.0, 0.0), complex(0.0, -0.0)),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (range(3), [0, 1, 2]),
        (range(0, 4, 2), range(0, 3, 2)),
        (int, "int"),
        (int, float),
        (Point, Point()),
        (Holder, Holder()),
        (Holder(), OtherHolder()),
        (Holder(), Holder().furu_hash),
        (Holder(), bytes.fromhex(Holder().furu_hash)),
        (pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")),
        (..., "..."),
        (None, "None"),
        (2**64, -(2**64)),
        (2**64, 2.0**64),
        ("\ud800\udc00", "\U00010000"),
        ("e\u0301", "\u00e9"),
    ],
)
def test_different_values_have_different_hashes(one: Any, other: Any) -> None:
    """Each value is used as a field, in a list, as a dict's value, and as a key if it is hashable."""
    assert hash_of(one) != hash_of(other)
    assert hash_of([one]) != hash_of([other])
    assert hash_of({"k": one}) != hash_of({"k": other})
    if isinstance(one, collections.abc.Hashable) and isinstance(other, collections.abc.Hashable):
        assert hash_of({one: 0}) != hash_of({other: 0})
        assert hash_of({one}) != hash_of({other})


def table() -> dict[str, Any]:
    """Return values that are all different configurations. Similar values are next to each other."""
    berlin = zone("Europe/Berlin")
    noon = dt.datetime(2024, 3, 1, 12)
    return {
        # empty
        "none": None,
        "ellipsis": ...,
        "false": False,
        "zero": 0,
        "float zero": 0.0,
        "minus zero": -0.0,
        "complex zero": 0j,
        "empty str": "",
        "empty bytes": b"",
        "empty bytearray": bytearray(),
        "empty tuple": (),
        "empty list": [],
        "empty set": set(),
        "empty frozenset": frozenset(),
        "empty dict": {},
        "empty range": range(0),
        "timedelta zero": dt.timedelta(),
        "decimal zero": decimal.Decimal(0),
        "decimal minus zero": decimal.Decimal("-0"),
        "fraction zero": fractions.Fraction(0),
        # nested empty containers
        "((),)": ((),),
        "((), ())": ((), ()),
        "(((),),)": (((),),),
        "((), ((),))": ((), ((),)),
        "(((),), ())": (((),), ()),
        "[[]]": [[]],
        "[[], []]": [[], []],
        "[[[]]]": [[[]]],
        "[()]": [()],
        "([],)": ([],),
        "[{}]": [{}],
        "{(): ()}": {(): ()},
        "{(): []}": {(): []},
        "{frozenset()}": {frozenset()},
        "frozenset({frozenset()})": frozenset({frozenset()}),
        "[None]": [None],
        "[None, None]": [None, None],
        "['']": [""],
        "['', '']": ["", ""],
        "[b'']": [b""],
        # numbers
        "one": 1,
        "minus one": -1,
        "float one": 1.0,
        "true": True,
        "nan": NAN,
        "inf": float("inf"),
        "minus inf": float("-inf"),
        "smallest float": 5e-324,
        "next float": 1.0000000000000002,
        "complex one": 1 + 0j,
        "complex i": 1j,
        "complex nan": complex(NAN, 0),
        "complex nan imag": complex(0, NAN),
        "2**64": 2**64,
        "float 2**64": 2.0**64,
        "2**64 + 1": 2**64 + 1,
        "16": 16,
        "hex digits of 16": 10,
        "decimal one": decimal.Decimal(1),
        "decimal 1.0": decimal.Decimal("1.0"),
        "decimal 1E+1": decimal.Decimal("1E+1"),
        "decimal 10": decimal.Decimal("10"),
        "decimal nan": decimal.Decimal("nan"),
        "decimal snan": decimal.Decimal("snan"),
        "decimal nan7": decimal.Decimal("nan7"),
        "fraction one": fractions.Fraction(1),
        "fraction half": fractions.Fraction(1, 2),
        # text that looks like numbers, like the encoding, or like other text
        "'1'": "1",
        "b'1'": b"1",
        "'i1;'": "i1;",
        "'None'": "None",
        "'n'": "n",
        "'s1:a'": "s1:a",
        "'a'": "a",
        "'a\\0'": "a\0",
        "'\\0a'": "\0a",
        "'\\0'": "\0",
        "'a b'": "a b",
        "'a\\n'": "a\n",
        "'A'": "A",
        "e acute": "\u00e9",
        "e combining": "e\u0301",
        "lone surrogate": "\ud800",
        "other surrogate": "\udc00",
        "two surrogates": "\ud800\udc00",
        "the same as one character": "\U00010000",
        "the surrogate's bytes": b"\xed\xa0\x80",
        # the same text, divided into items in different ways
        "['a', 'b']": ["a", "b"],
        "['ab']": ["ab"],
        "['ab', '']": ["ab", ""],
        "['', 'ab']": ["", "ab"],
        "['b', 'a']": ["b", "a"],
        "['a', ['b']]": ["a", ["b"]],
        "[['a'], 'b']": [["a"], "b"],
        "[['a', 'b']]": [["a", "b"]],
        "[['a'], ['b']]": [["a"], ["b"]],
        "['as1:b']": ["as1:b"],
        "['a', 's1:b']": ["a", "s1:b"],
        "['1:as1:b']": ["1:as1:b"],
        "[1, 23]": [1, 23],
        "[12, 3]": [12, 3],
        "[123]": [123],
        "(1, (2, 3))": (1, (2, 3)),
        "((1, 2), 3)": ((1, 2), 3),
        "(1, 2, 3)": (1, 2, 3),
        "[1, 2, 3]": [1, 2, 3],
        "{1, 2, 3}": {1, 2, 3},
        "frozenset {1, 2, 3}": frozenset({1, 2, 3}),
        "{1.0, 2, 3}": {1.0, 2, 3},
        "{True, 2, 3}": {True, 2, 3},
        "range(1, 4)": range(1, 4),
        # dicts
        "{1: 2}": {1: 2},
        "{2: 1}": {2: 1},
        "{'1': 2}": {"1": 2},
        "{1: '2'}": {1: "2"},
        "{1.0: 2}": {1.0: 2},
        "{True: 2}": {True: 2},
        "{1: 2, 3: 4}": {1: 2, 3: 4},
        "{1: 4, 3: 2}": {1: 4, 3: 2},
        "[(1, 2), (3, 4)]": [(1, 2), (3, 4)],
        "{(1, 2), (3, 4)}": {(1, 2), (3, 4)},
        "{(1, 2): (3, 4)}": {(1, 2): (3, 4)},
        "{1: {2: 3}}": {1: {2: 3}},
        "{1: {}, 2: 3}": {1: {}, 2: 3},
        "{'a': None}": {"a": None},
        "{'a': {}}": {"a": {}},
        "{None: 'a'}": {None: "a"},
        # bytes
        "b'a'": b"a",
        "bytearray a": bytearray(b"a"),
        # paths
        "path .": Path("."),
        "path a": Path("a"),
        "path A": Path("A"),
        "path a/b": Path("a/b"),
        "path /a/b": Path("/a/b"),
        "path ..": Path(".."),
        "windows a": pathlib.PureWindowsPath("a"),
        "windows a/b": pathlib.PureWindowsPath("a/b"),
        "path a\\b": pathlib.PurePosixPath("a\\b"),
        "path not utf-8": Path("\udcff"),
        "'a/b'": "a/b",
        # times
        "date": dt.date(2024, 3, 1),
        "midnight": dt.datetime(2024, 3, 1),
        "noon": noon,
        "noon, fold": noon.replace(fold=1),
        "noon utc": noon.replace(tzinfo=dt.UTC),
        "noon +1": noon.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
        "11 utc, the same instant": dt.datetime(2024, 3, 1, 11, tzinfo=dt.UTC),
        "noon berlin": noon.replace(tzinfo=berlin),
        "noon berlin, fold": noon.replace(tzinfo=berlin, fold=1),
        "noon paris": noon.replace(tzinfo=zone("Europe/Paris")),
        "noon and a microsecond": noon.replace(microsecond=1),
        "12:00": dt.time(12),
        "12:00 fold": dt.time(12, fold=1),
        "12:00 utc": dt.time(12, tzinfo=dt.UTC),
        "12:00 berlin": dt.time(12, tzinfo=berlin),
        "12:00 paris": dt.time(12, tzinfo=zone("Europe/Paris")),
        "'2024-03-01'": "2024-03-01",
        "a day": dt.timedelta(1),
        "a second": dt.timedelta(0, 1),
        "a microsecond": dt.timedelta(0, 0, 1),
        "minus a day": dt.timedelta(-1),
        "utc": dt.UTC,
        "+1": dt.timezone(dt.timedelta(hours=1)),
        "-1": dt.timezone(-dt.timedelta(hours=1)),
        "+1 by name": dt.timezone(dt.timedelta(hours=1), "CET"),
        "berlin": berlin,
        "'Europe/Berlin'": "Europe/Berlin",
        # enums
        "Colour.RED": Colour.RED,
        "Colour.BLUE": Colour.BLUE,
        "Shade.RED": Shade.RED,
        "Level.RED": Level.RED,
        "Word.RED": Word.RED,
        "'RED'": "RED",
        "no access": Access(0),
        "read": Access.READ,
        "write": Access.WRITE,
        "read and write": Access.READ | Access.WRITE,
        # classes and their instances
        "int": int,
        "bool": bool,
        "Colour": Colour,
        "Point": Point,
        "Holder": Holder,
        "Point()": Point(),
        "Point(1, 2)": Point(1, 2),
        "Point(2, 1)": Point(2, 1),
        "Point('1', 2)": Point("1", 2),
        "OtherPoint(1, 2)": OtherPoint(1, 2),
        "PointStruct(1, 2)": PointStruct(1, 2),
        "PointTuple(1, 2)": PointTuple(1, 2),
        "OtherTuple(1, 2)": OtherTuple(1, 2),
        "(1, 2)": (1, 2),
        "[1, 2]": [1, 2],
        "{1, 2}": {1, 2},
        "{'x': 1, 'y': 2}": {"x": 1, "y": 2},
        "Point(Point())": Point(Point()),
        "Point(0, Point())": Point(0, Point()),
        "PointTuple((), 2)": PointTuple((), 2),
        # nodes
        "Holder()": Holder(),
        "Holder(None, in a node)": Holder(value=Holder()),
        "OtherHolder()": OtherHolder(),
        "[Holder()]": [Holder()],
        "[Holder(), Holder()]": [Holder(), Holder()],
        "the hash of Holder()": Holder().furu_hash,
        "its bytes": bytes.fromhex(Holder().furu_hash),
        # UUIDs
        "uuid": uuid.UUID(int=1),
        "uuid's str": str(uuid.UUID(int=1)),
        "uuid's int": uuid.UUID(int=1).int << 1,
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: [value],
        lambda value: (0, value, 0),
        lambda value: {"key": value},
        lambda value: Point(value),
        lambda value: PointStruct(0, value),
        lambda value: Holder(value=value),
    ],
    ids=["bare", "list", "tuple", "dict", "dataclass", "struct", "node"],
)
def test_no_two_values_of_the_table_collide(wrap: Callable[[Any], Any]) -> None:
    """All pairs are compared, bare and inside other values."""
    seen: dict[str, str] = {}
    collisions = []
    for name, value in table().items():
        other = seen.setdefault(hash_of(wrap(value)), name)
        if other is not name:
            collisions.append((other, name))
    assert [] == collisions


def test_class_b_c_of_module_a_differs_from_class_c_of_module_a_b() -> None:
    inner = made("C", __module__="a", __qualname__="b.C")
    outer = made("C", __module__="a.b", __qualname__="C")
    assert inner().furu_hash != outer().furu_hash
    assert hash_of(inner) != hash_of(outer)

    values = []
    for module, qualname in [("a", "b.C"), ("a.b", "C"), ("", "a.b.C"), ("a.b.C", "")]:
        cls = dataclasses.make_dataclass("C", [("x", int)])
        cls.__module__, cls.__qualname__ = module, qualname
        values.append(hash_of(cls(1)))
    assert 4 == len(set(values))


def test_class_version_and_each_field_count() -> None:
    names = {"__module__": "m", "__qualname__": "C", "__annotations__": {"x": int, "y": int}}
    configurations = [
        made("C", **names)(x=1, y=2),
        made("C", **names)(x=2, y=1),
        made("C", **names)(x=1, y=3),
        made("C", **names, _version=1)(x=1, y=2),
        made("C", **names, _version="1")(x=1, y=2),
        made("C", **names, _version=True)(x=1, y=2),
        made("C", **{**names, "__qualname__": "D"})(x=1, y=2),
        made("C", **{**names, "__module__": "n"})(x=1, y=2),
        made("C", **{**names, "__annotations__": {"x": int, "z": int}})(x=1, z=2),
        made("C", **{**names, "__annotations__": {"x": int}})(x=1),
        made("C", **{**names, "__annotations__": {}})(),
    ]
    assert len(configurations) == len({node.furu_hash for node in configurations})


def test_boundaries_of_fields_count() -> None:
    """Some of these pairs would be equal if the fields were only concatenated."""
    pairs = [
        ("a", "b"),
        ("ab", ""),
        ("", "ab"),
        ("as1:b", ""),
        (None, "ab"),
        (["a"], "b"),
        (["a", "b"], None),
    ]
    assert len(pairs) == len({Pair(a=a, b=b).furu_hash for a, b in pairs})


def test_dependency_counts_by_its_hash() -> None:
    """A change in the lowest node changes the hash of the top node."""

    def top(name: str) -> Node:
        middle = Node(name="middle", below=(Node(name=name),))
        return Node(name="top", below=(middle,))

    assert top("a") == top("a")
    assert top("a") != top("b")


def test_hash_is_128_bits_in_hexadecimal() -> None:
    """The hash has 32 digits. `_furu_hash` is an older name of `furu_hash`."""
    node = Holder(value=1)
    assert 32 == len(node.furu_hash)
    assert node.furu_hash == bytes.fromhex(node.furu_hash).hex() == node._furu_hash


# ---- equal configurations ----


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: {"a": 1, "b": 2}}, {1: {"b": 2, "a": 1}}),
        ({1, 2, 3, 1000, -5}, {-5, 1000, 3, 2, 1}),
        (frozenset("abcdef"), frozenset("fedcba")),
        ({("a", 1), ("b", 2)}, {("b", 2), ("a", 1)}),
        (NAN, float("inf") - float("inf")),
        (struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0], NAN),
        (struct.unpack(">d", bytes.fromhex("fff8000000000000"))[0], NAN),
        ([NAN, {"a": NAN}], [-NAN, {"a": NAN}]),
        (Path("a/b"), Path("a//b/.")),
        (Path("a"), pathlib.PurePosixPath("a")),
        (Colour.RED, Colour.CRIMSON),
        (Access.READ | Access.WRITE, Access(3)),
        (fractions.Fraction(2, 4), fractions.Fraction(1, 2)),
        (dt.timedelta(hours=24), dt.timedelta(days=1)),
        (dt.UTC, dt.timezone(dt.timedelta(0))),
        (zone("Europe/Berlin"), zone("Europe/Berlin")),
        (Noted(1, "one"), Noted(1, "other")),
        ([Noted(1, object())], [Noted(1, [])]),
        (Point(Noted(1, lambda: 0)), Point(Noted(1))),
        (Holder(value={"a": 1, "b": 2}), Holder(value={"b": 2, "a": 1})),
        ("a" * 1000, "".join(["a"] * 1000)),
    ],
)
def test_equal_values_have_the_same_hash(one: Any, other: Any) -> None:
    assert hash_of(one) == hash_of(other)
    assert hash_of((one, [other])) == hash_of((other, [one]))


def test_field_order_in_the_class_body_does_not_count() -> None:
    """The order of the arguments does not count either."""
    names = {"__module__": "m", "__qualname__": "C"}
    one = made("C", **names, __annotations__={"x": int, "y": str})
    other = made("C", **names, __annotations__={"y": str, "x": int})
    assert one(x=1, y="a").furu_hash == other(x=1, y="a").furu_hash == other(y="a", x=1).furu_hash


def test_field_order_of_nested_dataclasses_and_structs_does_not_count() -> None:
    """Fields of dataclasses and structs count by name. Only fields of named tuples count by position."""
    for make in (dataclasses.make_dataclass, msgspec.defstruct):
        one = make("C", [("x", int), ("y", int)])
        other = make("C", [("y", int), ("x", int)])
        other.__module__ = one.__module__
        assert hash_of(one(x=1, y=2)) == hash_of(other(x=1, y=2))


def test_explicit_and_omitted_defaults_are_equal() -> None:
    assert Pair().furu_hash == Pair(a=None).furu_hash == Pair(b=None, a=None).furu_hash


def test_field_with_compare_false_does_not_count() -> None:
    """The value of such a field need not have a canonical form."""

    class Verbose(Furu[int]):
        x: int
        stream: Any = dataclasses.field(default=None, compare=False)

    assert Verbose(x=1) == Verbose(x=1, stream=object())
    assert Verbose(x=1) != Verbose(x=2)


def test_class_variables_do_not_count() -> None:
    names = {"__module__": "m", "__qualname__": "C"}
    one = made("C", **names, LIMIT=1, __annotations__={"LIMIT": typing.ClassVar[int]})
    assert one().furu_hash == made("C", **names)().furu_hash


def test_default_of_a_field_outside_the_constructor_counts() -> None:
    one = made("C", __annotations__={"x": int}, x=dataclasses.field(init=False, default=1), __module__="m")
    other = made(
        "C", __annotations__={"x": int}, x=dataclasses.field(init=False, default=2), __module__="m"
    )
    assert one().furu_hash != other().furu_hash


def test_decimal_does_not_depend_on_the_decimal_context() -> None:
    """Only the conversion of a Decimal to a string depends on the context."""
    value = decimal.Decimal("1E+10")
    expected = hash_of(value)
    with decimal.localcontext(decimal.Context(prec=2, capitals=0)):
        assert expected == hash_of(value)


def test_huge_numbers_have_hashes() -> None:
    """Python refuses to convert such numbers to decimal strings."""
    huge = 10**5000
    assert hash_of(huge) == hash_of(10**5000)
    assert 3 == len({hash_of(huge), hash_of(huge + 1), hash_of(-huge)})
    assert hash_of(fractions.Fraction(huge)) != hash_of(fractions.Fraction(huge + 1))


def test_time_zone_without_a_name_is_an_error() -> None:
    """The repr of such a time zone contains the address of a file object."""
    with pytest.raises(FuruIdentityError, match=r"Holder\.value: .*zone"):
        hash_of(zone(None))
