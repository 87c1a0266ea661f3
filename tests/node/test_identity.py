"""Identity: what differs has another hash, what is equal has the same one, everywhere."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import hashlib
import io
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import time
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import furu
from furu import Furu, FuruIdentityError, FuruUsageError, register_canonical_form
from furu.node.identity import MAX_DEPTH
from tests.graphs import Node

NAN = float("nan")


class Holder(Furu[int]):
    value: Any = None


class OtherHolder(Furu[int]):
    value: Any = None


class Pair(Furu[int]):
    a: Any = None
    b: Any = None


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any = 0
    y: Any = 0


@dataclasses.dataclass(frozen=True)
class OtherPoint:
    x: Any = 0
    y: Any = 0


@dataclasses.dataclass
class Noted:
    x: int
    note: Any = dataclasses.field(default="", compare=False)


class PointStruct(msgspec.Struct, frozen=True):
    x: Any = 0
    y: Any = 0


class PointTuple(typing.NamedTuple):
    x: Any = 0
    y: Any = 0


class OtherTuple(typing.NamedTuple):
    x: Any = 0
    y: Any = 0


class Colour(enum.Enum):
    RED = 1
    BLUE = 2
    CRIMSON = RED


class Shade(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    RED = "RED"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


def hash_of(value: Any) -> str:
    """The hash of a node that holds this value."""
    return Holder(value=value).furu_hash


def made(cls_name: str, base: type = Furu, **namespace: Any) -> Any:
    """Make a class with the module and qualified name that a test wants."""
    return types.new_class(cls_name, (base,), exec_body=lambda names: names.update(namespace))


def zone(key: str | None) -> zoneinfo.ZoneInfo:
    """A time zone that needs no data on the machine: one offset, and the name that is asked for."""
    content = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0)
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(content + b"UTC\0"), key=key)


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
def test_pair_has_two_hashes(one: Any, other: Any) -> None:
    """As a field, inside a list, as a dict's value, and as a key where that is possible."""
    assert hash_of(one) != hash_of(other)
    assert hash_of([one]) != hash_of([other])
    assert hash_of({"k": one}) != hash_of({"k": other})
    if isinstance(one, collections.abc.Hashable) and isinstance(other, collections.abc.Hashable):
        assert hash_of({one: 0}) != hash_of({other: 0})
        assert hash_of({one}) != hash_of({other})


def table() -> dict[str, Any]:
    """Values that are all different configurations; those that look alike stand together."""
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
        # nested empties
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
        # where one item ends and another begins
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
        # one of each UUID
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
    """Every pair, bare and inside something else."""
    seen: dict[str, str] = {}
    collisions = []
    for name, value in table().items():
        other = seen.setdefault(hash_of(wrap(value)), name)
        if other is not name:
            collisions.append((other, name))
    assert [] == collisions


def test_class_b_c_of_module_a_and_class_c_of_module_a_b_are_two() -> None:
    """As nodes, as classes in a field, and as classes of values in a field."""
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
    """One difference is enough."""
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


def test_where_one_field_ends_and_another_begins() -> None:
    """Values that would read alike if they were only put one after another."""
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
    """A change at the bottom shows at the top, whatever lies between."""

    def top(name: str) -> Node:
        middle = Node(name="middle", below=(Node(name=name),))
        return Node(name="top", below=(middle,))

    assert top("a") == top("a")
    assert top("a") != top("b")


def test_hash_is_128_bits_in_hexadecimal() -> None:
    """32 digits, also under the name that users of the older spelling know."""
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
def test_equal_values_have_one_hash(one: Any, other: Any) -> None:
    """However they were written, ordered or put together."""
    assert hash_of(one) == hash_of(other)
    assert hash_of((one, [other])) == hash_of((other, [one]))


def test_field_order_in_the_class_body_does_not_count() -> None:
    """Nor does the order of the arguments."""
    names = {"__module__": "m", "__qualname__": "C"}
    one = made("C", **names, __annotations__={"x": int, "y": str})
    other = made("C", **names, __annotations__={"y": str, "x": int})
    assert one(x=1, y="a").furu_hash == other(x=1, y="a").furu_hash == other(y="a", x=1).furu_hash


def test_field_order_of_nested_dataclasses_and_structs_does_not_count() -> None:
    """Fields have names; only a named tuple's places do."""
    for make in (dataclasses.make_dataclass, msgspec.defstruct):
        one = make("C", [("x", int), ("y", int)])
        other = make("C", [("y", int), ("x", int)])
        other.__module__ = one.__module__
        assert hash_of(one(x=1, y=2)) == hash_of(other(x=1, y=2))


def test_default_that_is_given_and_one_that_is_left_out_are_equal() -> None:
    """A configuration is the values, not how they came about."""
    assert Pair().furu_hash == Pair(a=None).furu_hash == Pair(b=None, a=None).furu_hash


def test_field_with_compare_false_does_not_count() -> None:
    """Its value may even have no canonical form."""

    class Verbose(Furu[int]):
        x: int
        stream: Any = dataclasses.field(default=None, compare=False)

    assert Verbose(x=1) == Verbose(x=1, stream=object())
    assert Verbose(x=1) != Verbose(x=2)


def test_class_variables_do_not_count() -> None:
    """What is no field is no configuration."""
    names = {"__module__": "m", "__qualname__": "C"}
    one = made("C", **names, LIMIT=1, __annotations__={"LIMIT": typing.ClassVar[int]})
    assert one().furu_hash == made("C", **names)().furu_hash


def test_default_of_a_field_outside_the_constructor_counts() -> None:
    """`field(init=False)` with a default leaves the value on the class, and it is a value still."""
    one = made("C", __annotations__={"x": int}, x=dataclasses.field(init=False, default=1), __module__="m")
    other = made(
        "C", __annotations__={"x": int}, x=dataclasses.field(init=False, default=2), __module__="m"
    )
    assert one().furu_hash != other().furu_hash


def test_decimal_does_not_depend_on_the_decimal_context() -> None:
    """The context says how a Decimal is printed, such as with a small e."""
    value = decimal.Decimal("1E+10")
    expected = hash_of(value)
    with decimal.localcontext(decimal.Context(prec=2, capitals=0)):
        assert expected == hash_of(value)


def test_huge_numbers_have_hashes() -> None:
    """Python refuses to print them in decimal."""
    huge = 10**5000
    assert hash_of(huge) == hash_of(10**5000)
    assert 3 == len({hash_of(huge), hash_of(huge + 1), hash_of(-huge)})
    assert hash_of(fractions.Fraction(huge)) != hash_of(fractions.Fraction(huge + 1))


def test_time_zone_without_a_name_is_an_error_not_an_address() -> None:
    """Its repr holds where in memory the file object lay, which is another in every process."""
    with pytest.raises(FuruIdentityError, match=r"Holder\.value: .*zone"):
        hash_of(zone(None))


# ---- in other processes, on other Pythons ----

GOLDEN_SOURCE = """
from __future__ import annotations
import dataclasses, datetime as dt, decimal, enum, fractions, json, pathlib, sys, typing, uuid
import msgspec
from furu import Furu, register_canonical_form

class Leaf(Furu[int]):
    value: typing.Any = None

class Raised(Furu[int]):
    _version = 3
    b: int
    a: str = "x"
    note: object = dataclasses.field(default=None, compare=False)

@dataclasses.dataclass(frozen=True)
class Config:
    rate: float
    tags: frozenset[str] = frozenset()

class Packed(msgspec.Struct):
    y: int
    x: int

class Named(typing.NamedTuple):
    b: int
    a: int

class Colour(enum.Enum):
    RED = 1

class Access(enum.IntFlag):
    READ = 1
    WRITE = 2

class Foreign:
    pass

register_canonical_form(Foreign, lambda value: ("foreign", 1))

def function():
    class Local(Furu[int]):
        x: int
    return Local(x=1)

def ladder(steps):
    node = Leaf()
    for _ in range(steps):
        node = Leaf(value=(Leaf(value=[node]), Leaf(value={node})))
    return node

words = ["pear", "apple", "fig", "quince", "plum"]
VALUES = {
    "none": None, "ellipsis": ..., "true": True, "one": 1, "minus": -255, "huge": 10**5000,
    "float": 0.1, "minus zero": -0.0, "nan": float("nan"), "inf": float("inf"), "complex": 1-2j,
    "str": "h\\u00e9llo", "surrogate": "\\ud800", "bytes": b"\\0\\xff", "bytearray": bytearray(b"a"),
    "tuple": (1, (2,), ()), "list": [1, [2], []], "set": set(words), "frozenset": frozenset(words),
    "set of tuples": {(word, i) for i, word in enumerate(words)}, "range": range(1, 9, 2),
    "dict": {word: i for i, word in enumerate(words)},
    "mixed keys": {1: "a", "1": "b", None: "c", (1,): "d"},
    "date": dt.date(2024, 2, 29), "datetime": dt.datetime(2024, 2, 29, 1, 2, 3, 4, fold=1),
    "aware": dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    "time": dt.time(1, 2, 3), "timedelta": dt.timedelta(-1, 2, 3), "utc": dt.timezone.utc,
    "decimal": decimal.Decimal("1.50E+3"), "fraction": fractions.Fraction(1, 3), "uuid": uuid.UUID(int=7),
    "path": pathlib.Path("a/b"), "windows": pathlib.PureWindowsPath("c:/a"), "class": Config, "int": int,
    "enum": Colour.RED, "flag": Access.READ | Access.WRITE, "dataclass": Config(0.5, frozenset(words)),
    "struct": Packed(1, 2), "namedtuple": Named(1, 2), "foreign": Foreign(),
    "nodes": {Leaf(value=word) for word in words},
}

def hashes():
    found = {name: Leaf(value=value).furu_hash for name, value in VALUES.items()}
    found["(versioned)"] = Raised(b=1, note=object()).furu_hash
    found["(local)"] = function().furu_hash
    found["(ladder)"] = ladder(50).furu_hash
    return found
"""

# A change here is a change of every artifact's name: it needs another _ENCODING_VERSION, and a line in
# the changelog.
GOLDEN: dict[str, str] = {
    "none": "7cad3aaa192dfb21d482766db4285157",
    "ellipsis": "a4403b728cd713e7a988577a4948cbb6",
    "true": "1323b72b7d876352982f8f1a91298fb7",
    "one": "7a88db423ebbfea9dde8e3b2b1e9e4c1",
    "minus": "0ed1b236da0fd50b5d1955fc2b82bb22",
    "huge": "7f74c5680c27bd8562d6632d119e4971",
    "float": "2717348bb47d6f78e90c5cdfcf871c4c",
    "minus zero": "907323f14c810f8469afe5957fd0b215",
    "nan": "eb420654b245c878060f2e7a2c7d37aa",
    "inf": "0a6021e4e1be54bcbbff17e3dd172581",
    "complex": "566782fed3051e114c47f5d795e167f6",
    "str": "beb69dbd9d50c00034e93b17bc0bc2bb",
    "surrogate": "41d790238d5bf1fb1ada828e72c1ff45",
    "bytes": "57eba9e3d2abfa64d98769a8f5a75bf8",
    "bytearray": "389e11a69a5a01b0deb377ed3d2f0b34",
    "tuple": "1cc3a224eac4aa5b0e2e79a14183c01c",
    "list": "53757deb1f6492e86eebd1670a3f7c81",
    "set": "e03400b18897ea57a45a6286c8a71dbf",
    "frozenset": "00e2488e95666abde2d7d6f1545e2d84",
    "set of tuples": "cd26b205a3e1b40f10f7ec23f26e384a",
    "range": "bb13ec9213bfbaedca489e146ce3a3ea",
    "dict": "6011b2829fd19cbba983449ebfa702a5",
    "mixed keys": "a13888104f4057ee3f34958d426827ea",
    "date": "589dba25631d47e31b3565cb2ff8b44b",
    "datetime": "5540589bcb58a2e5b8b3e37198935139",
    "aware": "2501d63ca2a5bc4182867d099df18024",
    "time": "37cad8a1d6210943c83178e1b3397abc",
    "timedelta": "0af190ffe99a3652b5c46b8a3794623e",
    "utc": "9af64c05cdd013191fc37f1f99307a20",
    "decimal": "9989dc07f3e4ecc3d04e59ff68ccc6d8",
    "fraction": "6fd32ed66c0bee20062d9d469dc135b2",
    "uuid": "0bb1a7020664bf8073a0827fcea6b0a7",
    "path": "019f74476a07af81b1a3b06e3bbb06a7",
    "windows": "a4f4b96a5a9f0c9334e3790ad76d82a0",
    "class": "b661328ad2a868f4a39a7d1f7104e918",
    "int": "8a1d380e161f6e3065a75d3b47f5f47d",
    "enum": "6664d22fb2750955dcf0711e41766dd6",
    "flag": "e45704d543d50d618164fa3426a89318",
    "dataclass": "2d940a3ac9c14d9fca0141baa4c7ebaf",
    "struct": "37a3a75319f77d05b4a51975b17ffbf0",
    "namedtuple": "1999af6c05be1380aaae54026ca07fd9",
    "foreign": "997fa847c9ab6486db902cb8d6d39eef",
    "nodes": "627c214ef596ba1b7e1b5048bdb08f31",
    "(versioned)": "aec1bc7dd19e9ba80ad8350de97fda90",
    "(local)": "5999b80bbf3a9adfaf71b9619ba5b824",
    "(ladder)": "d868a99ba3303b351eae0cc8ac122a0a",
}


def golden_hashes(seed: str, folder: Path) -> dict[str, str]:
    """Return the hashes that a new process makes."""
    (folder / "golden.py").write_text(GOLDEN_SOURCE)
    code = "import golden, json; print(json.dumps(golden.hashes()))"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path(furu.__file__).parent.parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "" == done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_hashes_are_the_same_in_every_process_under_any_hash_seed(seed: str, tmp_path: Path) -> None:
    """And on every Python: the tests run on each, against this one table."""
    assert golden_hashes(seed, tmp_path) == GOLDEN


def test_golden_values_are_all_different() -> None:
    """A table in which two are alike would prove less than it seems to."""
    assert len(GOLDEN) == len(set(GOLDEN.values())) >= 40


# ---- what has no form ----


class TrainModel(Furu[int]):
    optimizer: Any
    steps: Any = 0


@dataclasses.dataclass
class Optimizer:
    schedule: Any


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"optimizer": object()}, "TrainModel.optimizer"),
        ({"optimizer": 1, "steps": object()}, "TrainModel.steps"),
        ({"optimizer": Optimizer(object())}, "TrainModel.optimizer.schedule"),
        ({"optimizer": Optimizer([1, 2, object()])}, "TrainModel.optimizer.schedule[2]"),
        ({"optimizer": Optimizer([1, (2, object())])}, "TrainModel.optimizer.schedule[1][1]"),
        ({"optimizer": {"adam": Optimizer([object()])}}, "TrainModel.optimizer['adam'].schedule[0]"),
        ({"optimizer": {3: object()}}, "TrainModel.optimizer[3]"),
        ({"optimizer": [{"a": [object()]}]}, "TrainModel.optimizer[0]['a'][0]"),
        ({"optimizer": PointStruct(1, object())}, "TrainModel.optimizer.y"),
        ({"optimizer": PointTuple(1, [object()])}, "TrainModel.optimizer.y[0]"),
    ],
)
def test_error_names_the_path_of_the_value_without_a_form(fields: dict[str, Any], path: str) -> None:
    """At construction, in the message and as data."""
    with pytest.raises(FuruIdentityError) as caught:
        TrainModel(**fields)
    assert path == caught.value.field_path
    assert str(caught.value).startswith(f"{path}: a value of type builtins.object has no canonical form")
    assert "compare=False" in str(caught.value)
    assert "furu.register_canonical_form" in str(caught.value)


def test_key_or_item_without_a_form_is_named_too() -> None:
    """They have no index, so they stand in the path themselves."""
    with pytest.raises(FuruIdentityError, match=r"^TrainModel\.optimizer\[<function generator") as key:
        TrainModel(optimizer={generator: 1})
    assert key.value.field_path.startswith("TrainModel.optimizer[<function generator")
    with pytest.raises(FuruIdentityError, match=r"^TrainModel\.optimizer\{<function generator"):
        TrainModel(optimizer={generator})


class StrangeStr(str):
    __slots__ = ()


class StrangeInt(int):
    pass


class StrangeDict(dict[Any, Any]):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 0,
        len,
        generator(),
        iter([]),
        sys,
        memoryview(b"a"),
        StrangeStr("a"),
        StrangeInt(1),
        StrangeDict(),
        collections.OrderedDict(a=1),
        collections.defaultdict(int),
        collections.Counter("a"),
        collections.deque([1]),
        types.SimpleNamespace(a=1),
        types.MappingProxyType({}),
        dt.datetime(2024, 1, 1, tzinfo=type("Odd", (dt.tzinfo,), {"utcoffset": lambda self, when: None})()),
        ValueError("a"),
        io.BytesIO(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_without_a_canonical_form_is_an_error(value: Any) -> None:
    """Subclasses of plain types too: furu cannot know what they add."""
    with pytest.raises(FuruIdentityError) as caught:
        hash_of(value)
    assert "Holder.value" == caught.value.field_path
    assert isinstance(caught.value, TypeError)


def test_version_without_a_form_is_an_error_that_names_it() -> None:
    """`_version` counts as a field does."""
    cls = made("C", _version=object())
    with pytest.raises(FuruIdentityError, match=r"^C\._version: "):
        cls()


def test_field_that_was_never_set_is_an_error_that_names_it() -> None:
    """`field(init=False)` promises that `__post_init__` sets it."""

    class Unset(Furu[int]):
        x: int = dataclasses.field(init=False)

    with pytest.raises(FuruIdentityError, match=r"Unset\.x"):
        Unset()
    unset = dataclasses.make_dataclass("D", [("y", int, dataclasses.field(init=False))])
    with pytest.raises(FuruIdentityError, match=r"Holder\.value\.y"):
        Holder(value=unset())


@pytest.mark.parametrize("container", [list, dict])
def test_container_that_holds_itself_is_an_error(container: type) -> None:
    """It has no end, and the message asks."""
    value = container()
    if isinstance(value, list):
        value.append(value)
    else:
        value["self"] = value
    with pytest.raises(FuruIdentityError, match=r"^Holder\.value.*does a container hold itself\?"):
        Holder(value=value)


def test_values_nest_up_to_the_limit_and_no_deeper() -> None:
    """The recursion limit is far away either way."""

    def nested(depth: int) -> Any:
        value: Any = 0
        for _ in range(depth):
            value = [value]
        return value

    assert hash_of(nested(MAX_DEPTH)) != hash_of(nested(MAX_DEPTH - 1))
    with pytest.raises(FuruIdentityError, match=f"nested deeper than {MAX_DEPTH} levels"):
        hash_of(nested(MAX_DEPTH + 1))


# ---- foreign types ----


def test_registered_form_gives_a_foreign_type_a_place_in_the_hash() -> None:
    """Equal forms are equal, different ones are not, and the type's name counts."""

    class Matrix:
        def __init__(self, *rows: Any) -> None:
            self.rows = rows

    class Table(Matrix):
        pass

    with pytest.raises(FuruIdentityError):
        hash_of(Matrix(1))
    register_canonical_form(Matrix, lambda matrix: matrix.rows)
    assert hash_of(Matrix(1, 2)) == hash_of(Matrix(1, 2))
    assert hash_of(Matrix(1, 2)) != hash_of(Matrix(2, 1))
    assert hash_of(Matrix(1, 2)) != hash_of((1, 2))
    with pytest.raises(FuruIdentityError):  # of exactly this type: what a subclass adds is not known
        hash_of(Table(1, 2))
    register_canonical_form(Table, lambda table: table.rows)
    assert hash_of(Matrix(1, 2)) != hash_of(Table(1, 2))


def test_registered_form_that_has_none_itself_is_an_error_with_the_path() -> None:
    """The path goes on inside the form."""

    class Odd:
        pass

    register_canonical_form(Odd, lambda odd: [0, object()])
    with pytest.raises(FuruIdentityError) as caught:
        Holder(value=(Odd(),))
    assert "Holder.value[0][1]" == caught.value.field_path


def test_registered_form_that_is_the_value_itself_is_an_error() -> None:
    """It would never end."""

    class Same:
        pass

    register_canonical_form(Same, lambda same: same)
    with pytest.raises(FuruIdentityError, match="nested deeper"):
        hash_of(Same())


@pytest.mark.parametrize("wrong", [int, str, list, dict, type(None), zoneinfo.ZoneInfo, Furu, Holder])
def test_type_that_has_a_form_already_cannot_be_given_another(wrong: Any) -> None:
    """That would change hashes that stand for artifacts on disk."""
    with pytest.raises(FuruUsageError, match="has a canonical form already"):
        register_canonical_form(wrong, str)


def test_form_is_registered_once_and_for_a_type() -> None:
    """A second form, or one for a value, is misuse."""

    class Once:
        pass

    register_canonical_form(Once, lambda once: 1)
    with pytest.raises(FuruUsageError, match="Once has a canonical form already"):
        register_canonical_form(Once, lambda once: 2)
    with pytest.raises(FuruUsageError, match="takes a type first"):
        register_canonical_form(Once(), lambda once: 2)  # type: ignore[arg-type]


# ---- cost ----


@pytest.fixture
def hashed_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes went into each hash, at Python's own recursion limit."""
    sizes: list[int] = []

    def blake2b(content: bytes, **options: Any) -> Any:
        sizes.append(len(content))
        return hashlib.blake2b(content, **options)

    monkeypatch.setattr("furu.node.identity.hashlib", types.SimpleNamespace(blake2b=blake2b))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield sizes
    sys.setrecursionlimit(limit)


def test_chain_of_100_000_nodes_is_hashed_once_a_node(hashed_bytes: list[int]) -> None:
    """n0 <- n1 <- n2 ... : no recursion, and each node costs what the first one with one below costs."""
    started = time.perf_counter()
    node = Holder()
    for _ in range(100_000):
        node = Holder(value=node)
    elapsed = time.perf_counter() - started
    assert 100_001 == len(hashed_bytes)
    assert 1 == len(set(hashed_bytes[1:]))
    assert elapsed < 15  # about one second; quadratic would be hours
    while node is not None:  # taken apart from the top, so that freeing it needs no recursion either
        node = node.value


def test_ladder_of_1_000_diamonds_is_hashed_once_a_node(hashed_bytes: list[int]) -> None:
    r"""
     top
    /   \
    left right
    \   /
     base, the top of the next: 2**1000 paths
    """
    top: Any = Holder()
    for _ in range(1000):
        top = Pair(a=Holder(value=("left", top)), b=Holder(value=("right", top)))
    assert 3001 == len(hashed_bytes)
    assert 4 == len(set(hashed_bytes))
    copied = dataclasses.replace(top)
    assert top.furu_hash == copied.furu_hash
    assert 3002 == len(hashed_bytes)


# ---- random values ----

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, False, NAN, "", b"", "1", "i1;", "s1:a", 2**64]),
    st.text(st.characters(codec=None), max_size=4),
    st.binary(max_size=4),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.complex_numbers(),
    st.sampled_from([Colour.RED, Colour.BLUE, Shade.RED, Level.RED, Word.RED, Access.READ, Path("1"), int]),
)
keys = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Everything that holds other values."""
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(PointStruct, inner, inner),
        st.builds(PointTuple, inner, inner),
        st.builds(lambda value: Holder(value=value), inner),
    )


values = st.recursive(scalars | keys, containers, max_leaves=12)


def model(value: Any) -> Any:
    """What a value is as a configuration, in a way that has nothing to do with bytes."""
    kind = type(value)
    if kind is float:
        return kind, "nan" if value != value else struct.pack(">d", value)
    if kind is complex:
        return kind, model(value.real), model(value.imag)
    if kind in (list, tuple, PointTuple):
        return kind, tuple(model(item) for item in value)
    if kind in (set, frozenset):
        return kind, frozenset(collections.Counter(model(item) for item in value).items())
    if kind is dict:
        items = collections.Counter((model(key), model(item)) for key, item in value.items())
        return kind, frozenset(items.items())
    if kind in (Point, PointStruct):
        return kind, model(value.x), model(value.y)
    if kind is Holder:
        return kind, model(value.value)
    if kind is decimal.Decimal:
        return kind, value.as_tuple()
    if kind is dt.datetime:
        return kind, value, value.fold
    return kind, value


def rebuilt(value: Any) -> Any:
    """An equal value put together the other way round."""
    kind = type(value)
    if kind in (list, tuple):
        return kind(rebuilt(item) for item in value)
    if kind is PointTuple:
        return PointTuple(*map(rebuilt, value))
    if kind in (set, frozenset):
        return kind(rebuilt(item) for item in reversed(list(value)))
    if kind is dict:
        return {rebuilt(key): rebuilt(item) for key, item in reversed(list(value.items()))}
    if kind in (Point, PointStruct):
        return kind(y=rebuilt(value.y), x=rebuilt(value.x))
    if kind is Holder:
        return Holder(value=rebuilt(value.value))
    return copy.deepcopy(value)


def mutants(value: Any) -> Iterator[Any]:
    """Values that differ from this one in one place."""
    kind = type(value)
    yield [value]
    yield (value,)
    yield 17 if value is None else None
    if kind is int:
        yield from (value + 1, -value - 1, str(value), float(value % 2**20))
    elif kind is str:
        yield from (value + "\0", "\0" + value, value + value + "x", value.encode("utf-8", "surrogatepass"))
    elif kind is bytes:
        yield from (value + b"\0", bytearray(value), value.decode("latin-1"))
    elif kind in (list, tuple):
        yield from (
            kind([*value, None]),
            kind([None, *value]),
            tuple(value) if kind is list else list(value),
        )
        for index, item in enumerate(value):
            yield kind([*value[:index], *value[index + 1 :]])
            for mutant in itertools.islice(mutants(item), 4):
                yield kind([*value[:index], mutant, *value[index + 1 :]])
    elif kind in (set, frozenset):
        yield from (kind([*value, "another"]), frozenset(value) if kind is set else set(value), list(value))
    elif kind is dict:
        yield from ({**value, "another": 1}, list(value.items()))
        for key, item in value.items():
            for mutant in itertools.islice(mutants(item), 4):
                yield {**value, key: mutant}
    elif kind in (Point, PointStruct):
        yield from ({"x": value.x, "y": value.y}, OtherPoint(value.x, value.y), (value.x, value.y))
        yield from (kind(mutant, value.y) for mutant in itertools.islice(mutants(value.x), 4))
    elif kind is Holder:
        yield from (OtherHolder(value=value.value), value.furu_hash)
        yield from (Holder(value=mutant) for mutant in itertools.islice(mutants(value.value), 4))


examples = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@examples
@given(values)
def test_random_value_put_together_the_other_way_round_has_the_same_hash(value: Any) -> None:
    """And so has a deep copy."""
    assert hash_of(value) == hash_of(rebuilt(value)) == hash_of(copy.deepcopy(value))


@examples
@given(values)
def test_random_value_changed_in_one_place_has_another_hash(value: Any) -> None:
    """Wherever the place is."""
    own = hash_of(value)
    for mutant in mutants(value):
        if model(value) != model(mutant):
            assert own != hash_of(mutant), f"{mutant!r} has the hash of {value!r}"


@examples
@given(values, values)
def test_random_values_have_one_hash_exactly_if_they_are_one_configuration(one: Any, other: Any) -> None:
    """By a description of configurations that has nothing to do with the encoding."""
    assert (model(one) == model(other)) == (hash_of(one) == hash_of(other))


@examples
@given(st.lists(st.sampled_from(list("si:;1[({<.")), max_size=12), st.data())
def test_text_that_looks_like_the_encoding_is_only_text(characters: list[str], data: Any) -> None:
    """Cut in two at two places: two pairs, two hashes."""
    text = "".join(characters)
    one = data.draw(st.integers(0, len(text)))
    other = data.draw(st.integers(0, len(text)))
    assume(one != other)
    assert hash_of([text[:one], text[one:]]) != hash_of([text[:other], text[other:]])
    assert Pair(a=text[:one], b=text[one:]) != Pair(a=text[:other], b=text[other:])
