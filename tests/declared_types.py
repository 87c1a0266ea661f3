"""Forty declared types with example values, for the tests of fields and of results."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import attrs
import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pydantic

from furu import Furu

Metres = NewType("Metres", float)


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A dataclass."""

    rate: float
    steps: tuple[int, ...] = ()


class Point(msgspec.Struct, frozen=True):
    """A struct."""

    x: float
    y: float


@attrs.frozen
class Range:
    """An attrs class."""

    low: float
    high: float


class Pair(NamedTuple):
    """A named tuple."""

    left: int
    right: float


class Limits(TypedDict, total=False):
    """A dict with known keys."""

    cpu: int
    memory: float


class Model(pydantic.BaseModel):
    """A pydantic model."""

    name: str
    size: int = 1


class Number(Furu[int]):
    """A node."""

    value: int = 1

    def _create(self) -> int:
        return self.value


class Example(NamedTuple):
    """A declared type, a value of it, values that are converted to it, and a value that does not fit."""

    name: str
    declared: Any
    value: Any
    converted: tuple[tuple[Any, Any], ...]
    wrong: Any


_NOON = dt.datetime(2031, 5, 17, 12)

EXAMPLES = [
    Example("int", int, 3, ((np.int64(3), 3), (np.uint8(3), 3)), 3.0),
    Example("float", float, 0.1, ((1, 1.0), (np.float64(0.1), 0.1), (np.int32(2), 2.0)), "0.1"),
    Example("bool", bool, True, ((np.bool_(True), True),), 1),
    Example("complex", complex, 1j, ((2, 2 + 0j), (np.complex128(1j), 1j)), "1j"),
    Example("str", str, "adam", ((np.str_("adam"), "adam"),), 3),
    Example("bytes", bytes, b"x", ((bytearray(b"x"), b"x"),), "x"),
    Example("None", None, None, (), 0),
    Example("Path", Path, Path("a"), (("a", Path("a")),), 3),
    Example("Decimal", decimal.Decimal, decimal.Decimal("0.1"), ((2, decimal.Decimal(2)),), 0.1),
    Example("UUID", uuid.UUID, uuid.UUID(int=5), (), "5"),
    Example(
        "datetime",
        dt.datetime,
        _NOON,
        ((pd.Timestamp(_NOON), _NOON), (np.datetime64(_NOON), _NOON)),
        "noon",
    ),
    Example("date", dt.date, _NOON.date(), ((np.datetime64("2031-05-17"), _NOON.date()),), _NOON),
    Example(
        "timedelta",
        dt.timedelta,
        dt.timedelta(days=1),
        ((np.timedelta64(1, "D"), dt.timedelta(days=1)),),
        1,
    ),
    Example("time", dt.time, dt.time(12), (), "12:00"),
    Example("Literal['a', 'b']", Literal["a", "b"], "a", ((np.str_("a"), "a"),), "c"),
    Example("Enum", Colour, Colour.RED, (), "red"),
    Example("float | None", float | None, None, ((1, 1.0), (0.5, 0.5)), "x"),
    Example("int | str", int | str, "x", ((np.int64(3), 3),), 0.5),
    Example("Path | None", Path | None, Path("a"), (("a", Path("a")),), 1),
    Example(
        "list[int]", list[int], [1, 2], (((1, 2), [1, 2]), (np.arange(2), [0, 1]), (range(2), [0, 1])), "12"
    ),
    Example("tuple[int, ...]", tuple[int, ...], (1, 2), (([1, 2], (1, 2)), (np.arange(2), (0, 1))), {1, 2}),
    Example("tuple[int, str]", tuple[int, str], (1, "a"), (([1, "a"], (1, "a")),), (1, "a", 2)),
    Example("Sequence[float]", Sequence[float], (0.5,), (([1, 2], (1.0, 2.0)),), "ab"),
    Example("list[list[float]]", list[list[float]], [[0.5]], ((((1,),), [[1.0]]),), [0.5]),
    Example("set[int]", set[int], {1}, ((frozenset({1}), {1}),), [1]),
    Example("frozenset[str]", frozenset[str], frozenset({"a"}), (({"a"}, frozenset({"a"})),), ("a",)),
    Example("dict[str, float]", dict[str, float], {"a": 0.5}, (({"a": 1}, {"a": 1.0}),), {1: 0.5}),
    Example("Mapping[int, str]", Mapping[int, str], {1: "a"}, (({np.int8(1): "a"}, {1: "a"}),), {"1": "a"}),
    Example("TypedDict", Limits, {"cpu": 1}, (({"memory": 1}, {"memory": 1.0}),), {"disk": 1}),
    Example(
        "dataclass", Optimizer, Optimizer(0.1), ((Optimizer(1, [2]), Optimizer(1.0, (2,))),), {"rate": 0.1}
    ),  # type: ignore[arg-type]
    Example("Struct", Point, Point(0.5, 1.0), ((Point(1, 2), Point(1.0, 2.0)),), (0.5, 1.0)),
    Example("attrs", Range, Range(0.5, 1.0), ((Range(1, 2), Range(1.0, 2.0)),), (0.5, 1.0)),
    Example("NamedTuple", Pair, Pair(1, 0.5), ((Pair(1, 2), Pair(1, 2.0)),), (1, 0.5)),
    Example("pydantic", Model, Model(name="a"), (), {"name": "a"}),
    Example("NewType", Metres, Metres(0.5), ((1, 1.0),), "1 m"),
    Example("Annotated", Annotated[int, "unit"], 3, ((np.int64(3), 3),), "3"),
    Example("type", type[dict], dict, (), list),  # type: ignore[type-arg]
    Example("NDArray[float64]", npt.NDArray[np.float64], np.zeros(3), (), [0.0]),
    Example("Furu[float]", Furu[float], Number(value=2), (), 2.0),
    Example("Any", Any, [1, "a"], (), object()),
]

# Types of fields that are no types of results: nothing stores a class or a node.
NOT_STORED = {"type", "Furu[float]"}


def table() -> str:
    """Return the examples as the table of docs/reference/declared-types.md."""
    lines = ["| declared | kept | converted | refused | as a result |", "|---|---|---|---|---|"]
    for example in EXAMPLES:
        converted = ", ".join(_text(given) for given, _ in example.converted) or "nothing"
        result = "refused before it is computed" if example.name in NOT_STORED else "stored and read back"
        cells = [example.name, _text(example.value), converted, _text(example.wrong), result]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if type(value) is object:
        return "`object()`"
    return f"`{' '.join(repr(value).split())}`"


if __name__ == "__main__":
    print(table(), end="")
