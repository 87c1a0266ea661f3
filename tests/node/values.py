"""Values and classes for the tests of identity."""

from __future__ import annotations

import dataclasses
import enum
import io
import struct
import types
import typing
import zoneinfo
from typing import Any

import msgspec

from furu import Furu

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
    """Return the hash of a node that holds this value."""
    return Holder(value=value).furu_hash


def made(cls_name: str, base: type = Furu, **namespace: Any) -> Any:
    """Make a class with this namespace, which may set `__module__` and `__qualname__`."""
    return types.new_class(cls_name, (base,), exec_body=lambda names: names.update(namespace))


def zone(key: str | None) -> zoneinfo.ZoneInfo:
    """Return a time zone with this name and a single offset. It needs no time zone data on the machine."""
    content = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0)
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(content + b"UTC\0"), key=key)
