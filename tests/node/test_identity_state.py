"""Values with state outside their fields are rejected, because different values could share a hash."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import io
import pathlib
import struct
import typing
import zoneinfo
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from furu import Furu, FuruIdentityError, register_canonical_form

T = TypeVar("T")


class Holder(Furu[int]):
    value: Any


def hash_of(value: Any) -> str:
    return Holder(value=value).furu_hash


@dataclasses.dataclass
class Base:
    x: int = 0
    note: str = dataclasses.field(default="", compare=False)

    @functools.cached_property
    def double(self) -> int:
        return self.x * 2


class Undecorated(Base):
    def __init__(self, extra: int) -> None:
        super().__init__(1)
        self.extra = extra


class UndecoratedSlots(Base):
    __slots__ = ("extra",)

    def __init__(self, extra: int) -> None:
        super().__init__(1)
        self.extra = extra


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra", 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    x: int = 0


class SlotsWithMore(Slots):
    __slots__ = ("extra",)


@dataclasses.dataclass(slots=True)
class SlotsOverDict(Base):
    y: int = 0


@dataclasses.dataclass
class Options(dict[str, int]):
    a: int = 1


@dataclasses.dataclass
class Items(list[int]):
    a: int = 1


@dataclasses.dataclass(eq=False)
class Chars(str):
    a: int = 1


@dataclasses.dataclass
class Problem(Exception):
    a: int = 1


@dataclasses.dataclass
class Queue(collections.deque[int]):
    a: int = 1


class Open(msgspec.Struct, dict=True):
    x: int = 0


class Named(typing.NamedTuple):
    x: int = 0


class NamedWithMore(Named):
    extra: int


class Posing(tuple[int, ...]):
    _fields = ("count",)

    def count(self, value: object) -> int:
        return 0


class Bare(tuple[int, ...]):
    _fields = ()


class MyPath(type(pathlib.Path())):  # type: ignore[misc]
    pass


def with_attribute(value: Any, name: str = "extra") -> Any:
    setattr_of = msgspec.Struct if isinstance(value, msgspec.Struct) else object
    setattr_of.__setattr__(value, name, 1)
    return value


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "subclass with a constructor of its own": (lambda: Undecorated(2), "extra"),
    "subclass with slots": (lambda: UndecoratedSlots(2), "extra"),
    "attribute set later": (lambda: with_attribute(Base()), "extra"),
    "attribute of a frozen class": (Frozen, "extra"),
    "slots beside slots": (lambda: with_attribute(SlotsWithMore()), "extra"),
    "attribute beside slots": (lambda: with_attribute(SlotsOverDict()), "extra"),
    "dataclass that is a dict": (Options, "dict"),
    "dataclass that is a list": (Items, "list"),
    "dataclass that is a str": (Chars, "str"),
    "dataclass that is an exception": (Problem, "Exception"),
    "dataclass that is a deque": (Queue, "deque"),
    "struct with a __dict__": (lambda: with_attribute(Open()), "extra"),
    "tuple with more items than fields": (lambda: Bare((1, 2)), "items"),
    "named tuple with attributes": (lambda: with_attribute(NamedWithMore()), "extra"),
}


@pytest.mark.parametrize("name", CASES)
def test_state_outside_the_fields_is_rejected_by_name(name: str) -> None:
    """The message names the path, the class and the state, and says what to do."""
    make, state = CASES[name]
    value = make()
    with pytest.raises(FuruIdentityError) as caught:
        Holder(value=[value])
    message = str(caught.value)
    assert message.startswith(
        f"Holder.value[0]: a {type(value).__qualname__} keeps state outside its fields"
    )
    assert state in message
    assert "register_canonical_form" in message
    assert "Holder.value[0]" == caught.value.field_path


def test_subclass_of_a_path_and_a_tuple_with_false_fields_have_no_form() -> None:
    for value in (MyPath("a"), Posing((1, 2))):
        with pytest.raises(FuruIdentityError):
            hash_of(value)


class Box(Base, Generic[T]):
    pass


def test_values_without_other_state_keep_their_hashes() -> None:
    """This includes undecorated subclasses, parametrized classes and cached properties."""
    value = Base(3)
    before = hash_of(value)
    assert 6 == value.double
    assert before == hash_of(value)
    assert hash_of(Box(3)) == hash_of(Box[int](3))
    assert hash_of(SlotsOverDict(1)) != hash_of(SlotsOverDict(2))
    assert hash_of(Open(1)) != hash_of(Open(2))
    assert hash_of(NamedWithMore(1)) != hash_of(NamedWithMore(2))
    assert hash_of(Base(3, "note")) == before


class Registered(Base):
    def __init__(self, extra: int) -> None:
        self.extra = extra
        super().__init__(1)


def test_registered_form_can_count_other_state() -> None:
    """The error message advises to register such a form."""
    register_canonical_form(Registered, lambda value: (value.x, value.extra))
    assert hash_of(Registered(1)) != hash_of(Registered(2))


# ---- enums ----


class Loud(enum.StrEnum):
    """An enum whose methods must not be called."""

    A = "a"

    def __str__(self) -> str:
        raise RuntimeError("asked for text")

    __repr__ = __format__ = __str__  # type: ignore[assignment]

    @property
    def name(self) -> str:
        raise RuntimeError("asked for the name")


class LoudFlag(enum.IntFlag):
    R = 1
    W = 2

    def __str__(self) -> str:
        raise RuntimeError("asked for text")

    @property
    def value(self) -> int:
        raise RuntimeError("asked for the value")


class Openended(enum.Enum):
    A = 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        member = object.__new__(cls)
        member._name_, member._value_ = "UNKNOWN", value
        return member


def test_hash_of_an_enum_calls_none_of_its_methods() -> None:
    for wrap in (
        lambda value: value,
        lambda value: [value],
        lambda value: {value: 1},
        lambda value: {value},
    ):
        assert hash_of(wrap(Loud.A)) != hash_of(wrap(LoudFlag.R | LoudFlag.W))
    assert hash_of(LoudFlag.R | LoudFlag.W) != hash_of(LoudFlag.R)


def test_unnamed_value_of_an_enum_is_rejected() -> None:
    assert hash_of(Openended(1))
    with pytest.raises(FuruIdentityError, match="not among the members of the enum Openended"):
        hash_of(Openended(7))


# ---- messages ----


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_key_whose_repr_raises_does_not_hide_the_error() -> None:
    """The message names the key by its type."""
    with pytest.raises(FuruIdentityError, match=r"Holder\.value\[<Unshowable>\]: a value of type"):
        Holder(value={Unshowable(): 1})
    with pytest.raises(FuruIdentityError, match=r"Holder\.value\{<Unshowable>\}: a value of type"):
        Holder(value={Unshowable()})


# ---- time zones ----


def test_rules_of_a_time_zone_do_not_count() -> None:
    """Wall time, fold and the zone's name count. Offsets differ between machines, so they do not count."""
    summer, winter = dt.datetime(2031, 7, 1, 12), dt.datetime(2031, 1, 1, 12)
    hashes = []
    for offset in (0, 3600, 7200):
        zone = fixed_zone("Some/Zone", offset)
        hashes.append([hash_of(when.replace(tzinfo=zone)) for when in (summer, winter)])
        hashes[-1].append(hash_of(dt.time(12, tzinfo=zone)))
        assert offset == summer.replace(tzinfo=zone).utcoffset().total_seconds()  # type: ignore[union-attr]
    assert hashes[0] == hashes[1] == hashes[2]
    others = [summer, summer.replace(tzinfo=dt.UTC), summer.replace(tzinfo=fixed_zone("Other/Zone", 0))]
    others.append(summer.replace(tzinfo=fixed_zone("Some/Zone", 0), fold=1))
    assert not set(hashes[0]) & {hash_of(other) for other in others}


def fixed_zone(key: str, offset_sec: int) -> zoneinfo.ZoneInfo:
    """Return a time zone with a single offset."""
    header = b"TZif" + b"\0" * 16 + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    content = header + struct.pack(">lbb", offset_sec, 0, 0) + b"ABC\0"
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(content), key=key)
