"""Values as text for records: sets have a fixed order, and no value raises an error."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest

import furu
from furu import Furu, Status
from furu._common.text import describe_error, printable, shown
from furu.node.readable import readable, readable_fields

SETS = """
import dataclasses, json
from furu import Furu
from furu.node.readable import readable

@dataclasses.dataclass(frozen=True)
class Group:
    names: frozenset

class Leaf(Furu[int]):
    name: str
    def _create(self): return 1

names = [f"name{number}" for number in range(20)]
print(json.dumps([
    readable(set(names)),
    readable(frozenset(frozenset(names[i:i + 4]) for i in range(9))),
    readable({frozenset(names[i:i + 4]): i for i in range(9)}),
    readable(frozenset({(1, frozenset(names)), (0, frozenset(names[:5])), "text", 3, 2.5, None})),
    readable(Group(frozenset(names))),
    readable({Group(frozenset(names[:3])): {"inner": set(names)}}),
    readable(dict.fromkeys(set(names))),
    readable(frozenset(Leaf(name=name) for name in names)),
]))
"""


def test_sets_are_recorded_in_one_order_under_every_hash_seed() -> None:
    """This includes nested sets, sets in keys and dataclasses, sets of nodes, and dicts made from sets."""
    path = os.pathsep.join([str(pathlib.Path(furu.__file__).parent.parent), *filter(None, sys.path)])
    seen = {
        subprocess.run(
            [sys.executable, "-c", SETS],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert 1 == len(seen)


def test_numbers_in_sets_are_sorted_as_numbers() -> None:
    """10 comes after 9, and strings come after numbers."""
    assert [1, 2.5, 9, 10, "a"] == readable({10, 9, 1, 2.5, "a"})
    assert ["9", "10"] == list(readable({10: "x", 9: "y"}))


class SpeechlessEnum(enum.Enum):
    LOW = 1

    def __str__(self) -> Any:
        return self.value

    __repr__ = __str__


class SpeechlessStr(str):
    def _fail(self, *_: object) -> Any:
        raise ValueError("no")

    __str__ = __repr__ = __format__ = __len__ = __iter__ = __getitem__ = _fail  # type: ignore[assignment]
    encode = split = isprintable = isascii = _fail  # type: ignore[assignment]


class SpeechlessPath(pathlib.PurePosixPath):
    def __fspath__(self) -> Any:
        raise OSError("no")

    __str__ = __repr__ = __fspath__


class SpeechlessDict(dict[Any, Any]):
    def items(self) -> Any:
        raise KeyError("no")


class Endless(list[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


@dataclasses.dataclass
class SpeechlessField:
    inner: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "inner":
            raise LookupError(name)
        return super().__getattribute__(name)


class Leaving(BaseException):
    """A `BaseException`, like the exceptions with which test frameworks end a test."""


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class Liar:
    @property
    def __class__(self) -> Any:
        return bool


class _Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__qualname__", "__module__", "__name__"):
            raise RuntimeError(f"no {name}")
        return super().__getattribute__(name)


class Nameless(metaclass=_Nameless):
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def holds_itself() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


def deep(length: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(length):
        value = [value]
    return value


def doubled(length: int) -> frozenset[Any]:
    value: frozenset[Any] = frozenset()
    for _ in range(length):
        value = frozenset({value, (value,)})
    return value


STRANGE = [
    SpeechlessEnum.LOW,
    SpeechlessStr("text"),
    SpeechlessPath("/x"),
    SpeechlessDict(x=1),
    SpeechlessField(),
    Raises(ValueError("no")),
    Raises(RecursionError()),
    Raises(MemoryError()),
    Raises(Leaving()),
    Liar(),
    MagicMock(spec=dict),
    Nameless(),
    Nameless,
    Endless(),
    10**5000,
    float("nan"),
    "\udc80\x00",
    b"\x00" * 10**6,
    holds_itself(),
    deep(5000),
    doubled(40),
    list(range(10**6)),
    {f"{number}" * 10: number for number in range(10**5)},
    "x" * 10**7,
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type.__repr__(type(value)))
@pytest.mark.parametrize("place", ["alone", "in a list", "in a dict", "as a field"])
def test_every_value_is_recorded_as_json_of_bounded_size(value: Any, place: str) -> None:
    """Only the bad value is replaced; values beside it are recorded."""
    written = {
        "alone": lambda: readable(value),
        "in a list": lambda: readable([1, value]),
        "in a dict": lambda: readable({"a": 1, "b": value}),
        "as a field": lambda: readable_fields(MagicMock(a=1, b=value), ["a", "b"]),
    }[place]()
    text = json.dumps(written, allow_nan=False)
    assert len(text) < 2**20
    if place != "alone":
        assert 1 == (written[0] if place == "in a list" else written["a"])


@pytest.mark.parametrize("value", STRANGE[:12], ids=lambda value: type.__repr__(type(value)))
def test_every_value_can_be_shown(value: Any) -> None:
    """The result is exactly a `str`, not a subclass."""
    assert type(shown(value)) is str
    assert type(printable(shown(value))) is str


def test_enum_is_recorded_by_its_name() -> None:
    """The members of an enum stay different in records, even if `str` of a member fails."""
    assert "SpeechlessEnum.LOW" == readable(SpeechlessEnum.LOW)


def test_set_item_that_cannot_be_shown_is_replaced_alone() -> None:
    """The other items keep their order."""
    assert ["a", "b", "<Raises, which cannot be shown: ValueError>"] == sorted(
        readable({"b", Raises(ValueError("no")), "a"}), key=lambda text: (text.startswith("<"), text)
    )


def test_error_whose_text_and_name_fail_is_described() -> None:
    """The description is one line."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise Leaving

    assert "ValueError: one two" == describe_error(ValueError("one\n two"))
    assert "Mute" in describe_error(Mute())


def test_field_whose_getter_raises_is_replaced_alone() -> None:
    assert {"inner": "<SpeechlessField, which cannot be shown: LookupError>"} == readable_fields(
        SpeechlessField(), ["inner", "not_set"]
    )


class Levelled(Furu[int]):
    level: SpeechlessEnum

    def _create(self) -> int:
        if self.level is SpeechlessEnum.LOW:
            raise ValueError("too low")
        return 1


def test_node_whose_field_has_no_text_fails_with_its_own_error() -> None:
    """The failure is recorded, and the node is released."""
    node = Levelled(level=SpeechlessEnum.LOW)
    with pytest.raises(furu.FuruComputeError, match="ValueError: too low"):
        node.get()
    assert Status.FAILED is node.status()


def test_interrupt_while_a_value_is_shown_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        readable([Raises(KeyboardInterrupt())])
