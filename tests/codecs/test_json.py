"""Results as typed JSON: values that are read back equal, values that are rejected, `_load` and pickle."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pickle
import threading
import types
import typing
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from furu import (
    Furu,
    FuruComputeError,
    FuruLoadError,
    FuruResultError,
    FuruUsageError,
    Status,
    run_local,
    use_settings,
)
from furu.codecs.json import decode_json, encode_json
from furu.codecs.pickle import encode_pickle
from furu.node.base import artifact_of
from tests.graphs import Node


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Shape:
    points: tuple[Point, ...]
    colour: Colour
    tags: set[str] = dataclasses.field(default_factory=set)
    made: dt.datetime | None = None
    parent: Shape | None = None


class Packed(msgspec.Struct, frozen=True):
    point: Point
    names: dict[int, list[str]] = {}


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Named(typing.NamedTuple):
    a: int
    b: str


class Typed(typing.TypedDict):
    a: int
    b: tuple[int, ...]


class NoEquality:
    pass


def node_of(declared: Any, value: Any, **namespace: Any) -> Furu[Any]:
    """Return a node of a new class that declares this result type and returns this value."""
    names = {"_create": lambda self: value, **namespace}
    return types.new_class("Result", (Furu[declared],), exec_body=lambda body: body.update(names))()


BERLIN = dt.timezone(dt.timedelta(hours=1))
NOON = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (int, 5),
        (int, 2**70),
        (float, 0.1),
        (float, -0.0),
        (bool, True),
        (str, "h\u00e9llo\0\n\u2028"),
        (bytes, b"\0\xff"),
        (bytearray, bytearray(b"\0")),
        (None, None),
        (int | None, None),
        (list[int], []),
        (list[Any], [1, 1.5, "a", None, True, {"b": []}]),
        (tuple[int, ...], (1, 2)),
        (tuple[int, str, tuple[()]], (1, "a", ())),
        (set[int], {1, 2, 3}),
        (frozenset[str], frozenset({"a", "b"})),
        (set[tuple[int, str]], {(1, "a"), (2, "b")}),
        (dict[str, int], {"a": 1}),
        (dict[int, str], {1: "a", -5: "b"}),
        (dict[float, str], {1.5: "a"}),
        (dict[Colour, int], {Colour.RED: 1}),
        (dict[dt.date, list[tuple[int, ...]]], {NOON.date(): [(1,), ()]}),
        (dict[uuid.UUID, int], {uuid.UUID(int=7): 1}),
        (dict[str, dict[int, set[str]]], {"a": {1: {"x"}}, "b": {}}),
        (dt.datetime, NOON),
        (dt.datetime, NOON.replace(tzinfo=dt.UTC)),
        (dt.datetime, NOON.replace(tzinfo=BERLIN)),
        (dt.date, NOON.date()),
        (dt.time, NOON.time()),
        (dt.timedelta, dt.timedelta(-1, 2, 3)),
        (decimal.Decimal, decimal.Decimal("1.50")),
        (uuid.UUID, uuid.UUID(int=7)),
        (Colour, Colour.BLUE),
        (Level, Level.LOW),
        (list[Colour | None], [Colour.RED, None]),
        (Point, Point(1, 0.5)),
        (list[Point], [Point(1), Point(2, 2.5)]),
        (Shape, Shape((Point(1),), Colour.RED, {"a"}, NOON, Shape((), Colour.BLUE))),
        (dict[str, Shape], {"a": Shape((), Colour.RED)}),
        (Packed, Packed(Point(1), {3: ["a"]})),
        (list[Cat | Dog], [Cat(9), Dog("rex"), Cat(1)]),
        (Named, Named(1, "a")),
        (list[Named], [Named(1, "a")]),
        (Typed, {"a": 1, "b": (1, 2)}),
        (typing.Literal["a", 1], 1),
        (typing.Annotated[int, msgspec.Meta(ge=0)], 3),
        (Any, {"a": [1, 2.5, None, "x"]}),
        (object, [1]),
    ],
)
def test_value_is_read_back_equal_and_of_the_same_type(declared: Any, value: Any) -> None:
    """The first `get` and later ones return equal values."""
    node = node_of(declared, value)
    for got in (node.get(), node.get()):
        assert value == got
        assert type(value) is type(got)
        assert repr(value) == repr(got) or isinstance(value, (set, frozenset, dict, Shape))


def test_int_in_a_float_field_is_read_back_as_a_float() -> None:
    """The first `get` and later ones return a float."""
    node = node_of(float, 1)
    assert [float, float] == [type(node.get()), type(node.get())]


class Aliasing(Furu[dict[str, list[int]]]):
    def _create(self) -> dict[str, list[int]]:
        KEPT["a"] = [1]
        return KEPT


KEPT: dict[str, list[int]] = {}


def test_value_of_the_first_get_is_not_the_object_that_create_keeps() -> None:
    """Therefore callers cannot change each other's values."""
    first = Aliasing().get()
    first["a"].append(2)
    assert {"a": [1]} == KEPT == Aliasing().get()


class Sum(Furu[Point]):
    inputs: tuple[Furu[Point], ...] = ()

    def _create(self) -> Point:
        return Point(1 + sum(node.get().x for node in self.inputs))


def test_dependent_in_a_run_gets_a_value_of_the_declared_type() -> None:
    """The worker thread loads the value of the dependency from disk."""
    top = Sum(inputs=(Sum(), Sum(inputs=(Sum(),))))
    run_local([top])
    assert Point(4) == top.get()


def test_result_on_disk_is_plain_json() -> None:
    node = node_of(dict[int, Point], {1: Point(2, 0.5)})
    node.get()
    done = Path(artifact_of(node).files.done)
    assert {"1": {"x": 2, "y": 0.5}} == json.loads(done.read_bytes())["result"]


# ---- rejected values ----

NAN = float("nan")


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        (Any, (1, 2), "value is (1, 2) (tuple) and would come back as [1, 2] (list)"),
        (Any, {"a": [1, (2,)]}, "value['a'][1] is (2,) (tuple) and would come back as [2] (list)"),
        (dict[str, Any], {"a": 1, "b": (1,)}, "value['b'] is (1,) (tuple)"),
        (object, (1,), "(tuple)"),
        (list, [(1,)], "value[0] is (1,) (tuple)"),
        (Any, {1, 2}, "(set)"),
        (Any, {1: 2}, "(dict)"),
        (Any, b"a", "(bytes)"),
        (Any, NOON, "(datetime)"),
        (Any, decimal.Decimal("1.5"), "(Decimal)"),
        (Any, uuid.UUID(int=1), "(UUID)"),
        (Any, Point(1), "value is Point(x=1, y=0.0) (Point)"),
        (Any, Colour.RED, "(Colour)"),
        (int, "5", "does not fit its declared int"),
        (int, True, "does not fit its declared int"),
        (int, 1.5, "does not fit its declared int"),
        (str, 5, "does not fit its declared str"),
        (float, 2**53 + 1, "would come back as 9007199254740992.0"),
        (list[int], [1, "a"], "does not fit its declared list[int]"),
        (list[int], (1, 2), "(tuple)"),
        (tuple[int, int], (1, 2, 3), "does not fit"),
        (Point, {"x": 1}, "would come back as Point(x=1, y=0.0)"),
        (typing.Annotated[int, msgspec.Meta(ge=0)], -1, "does not fit"),
        (typing.Literal["a"], "b", "does not fit"),
        (Any, object(), "returned a object that JSON cannot hold"),
        (Any, lambda: 0, "returned a function that JSON cannot hold"),
        (Any, NoEquality(), "returned a NoEquality that JSON cannot hold"),
        (str, "\ud800", "JSON cannot hold"),
        (Any, Node(name="a"), "Node"),
        (Any, threading.Lock(), "JSON cannot hold"),
    ],
)
def test_value_that_would_not_be_read_back_equal_is_rejected(declared: Any, value: Any, words: str) -> None:
    """The error says how the value would change, and what to do."""
    node = node_of(declared, value)
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    cause = caught.value.__cause__
    assert isinstance(cause, FuruResultError)
    assert words in str(cause)
    assert "Result._create() returned" in str(cause)
    assert "define _load()" in str(cause)
    assert "_codec = 'pickle'" in str(cause)
    assert node is caught.value.node
    assert Status.FAILED is node.status()


@pytest.mark.parametrize(
    ("declared", "shown"), [(int, "int"), (Point, "Point"), (list[int], "list[int]"), (str, "str")]
)
def test_none_that_does_not_fit_suggests_a_missing_return(declared: Any, shown: str) -> None:
    with pytest.raises(FuruComputeError) as caught:
        node_of(declared, None).get()
    text = f"Result._create() returned None, but declares {shown}: is a `return` missing?"
    assert text == str(caught.value.__cause__)


class LikeAFuture:
    def __await__(self) -> typing.Generator[None, None, int]:
        yield
        return 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("codec", ["json", "pickle"])
def test_coroutine_as_a_result_is_rejected_and_closed(codec: str) -> None:
    """The coroutine is closed, so Python does not also warn that it was never awaited."""

    async def create() -> int:
        return 1

    coroutine = create()
    with pytest.raises(FuruResultError, match="must be `async def` itself"):
        encode_json(Furu, Any, coroutine, 100) if codec == "json" else encode_pickle(Furu, coroutine)
    assert coroutine.cr_frame is None


def test_other_awaitable_as_a_result_is_rejected_with_the_same_words() -> None:
    with pytest.raises(FuruResultError, match="must be `async def` itself"):
        encode_json(Furu, Any, LikeAFuture(), 100)


def test_result_error_has_its_node() -> None:
    node = node_of(Any, (1, 2))
    with pytest.raises(FuruComputeError) as caught:
        node.get()
    assert isinstance(caught.value.__cause__, FuruResultError)
    assert node == caught.value.__cause__.node


def test_value_within_max_result_bytes_is_stored_and_a_larger_one_rejected() -> None:
    """The limit applies to the size of the JSON. The error names the setting."""
    with use_settings(max_result_bytes=100):
        assert "x" * 98 == node_of(str, "x" * 98).get()
        with pytest.raises(
            FuruComputeError, match=r"101 bytes as JSON, more than the 100 of the setting"
        ) as caught:
            node_of(str, "x" * 99, _version=2).get()
    assert isinstance(caught.value.__cause__, FuruResultError)
    assert "max_result_bytes" in str(caught.value.__cause__)
    assert "define _load()" in str(caught.value.__cause__)


def test_difference_deep_inside_a_large_value_is_shown_briefly() -> None:
    """The error does not show the whole value."""
    value = {"rows": [[index] for index in range(1000)], "last": {"cell": ("x" * 500,)}}
    with pytest.raises(FuruComputeError) as caught:
        node_of(Any, value).get()
    text = str(caught.value.__cause__)
    assert "value['last']['cell'] is ('xxx" in text
    assert 600 > len(text)


# ---- _load and pickle ----


class Loaded(Furu[Any]):
    def _create(self) -> Any:
        (self.furu_dir / "value.txt").write_text("from the file")
        return object

    def _load(self) -> Any:
        return (self.furu_dir / "value.txt").read_text()


def test_class_with_load_reads_its_own_files() -> None:
    """The value of `_create` is not stored."""
    Loaded().get()
    assert "from the file" == Loaded().get()


def test_load_that_raises_is_an_error_that_names_the_artifact_and_computes_nothing() -> None:
    node = Loaded()
    node.get()
    (node.furu_dir / "value.txt").unlink()
    with pytest.raises(
        FuruLoadError, match=r"Loaded\(\) is stored but could not be read back: FileNotFound"
    ) as caught:
        node.get()
    assert artifact_of(node).path == caught.value.path
    assert node == caught.value.node
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert Status.DONE is node.status()


class Pickled(Furu[Any]):
    _codec = "pickle"
    kind: str

    def _create(self) -> Any:
        values = {
            "counter": collections.Counter("aab"),
            "complex": 1 + 2j,
            "tuple": (1, [2], {3: (4,)}),
            "path": Path("a"),
            "function": lambda: 0,
            "lock": threading.Lock(),
        }
        return values[self.kind]


@pytest.mark.parametrize("kind", ["counter", "complex", "tuple", "path"])
def test_class_that_opted_into_pickle_keeps_any_object(kind: str) -> None:
    node = Pickled(kind=kind)
    first = node.get()
    assert (first, type(first)) == (node.get(), type(node.get()))


@pytest.mark.parametrize("kind", ["function", "lock"])
def test_value_that_cannot_be_pickled_is_an_error_of_the_node(kind: str) -> None:
    """The error gives the same advice as for JSON."""
    with pytest.raises(FuruComputeError) as caught:
        Pickled(kind=kind).get()
    assert isinstance(caught.value.__cause__, FuruResultError)
    assert "cannot be pickled" in str(caught.value.__cause__)
    assert "define _load()" in str(caught.value.__cause__)


def test_nothing_is_unpickled_unless_the_class_opts_in() -> None:
    """If the class no longer opts in, an existing pickle is not loaded."""
    names = {"__module__": __name__, "__qualname__": "Once", "_create": lambda self: Armed()}
    once = types.new_class("Once", (Furu[Any],), exec_body=lambda body: body.update(names, _codec="pickle"))
    since = types.new_class("Once", (Furu[Any],), exec_body=lambda body: body.update(names))
    once().get()
    assert Status.DONE is since().status()
    with pytest.raises(FuruLoadError, match="the class does not set _codec = 'pickle'"):
        since().get()
    assert [1] == Armed.went_off
    with pytest.raises(FuruLoadError, match="boom"):
        once().get()


class Armed:
    went_off: typing.ClassVar[list[int]] = []

    def __reduce__(self) -> Any:
        return Armed.explode, ()

    @staticmethod
    def explode() -> None:
        Armed.went_off.append(1)
        if len(Armed.went_off) > 1:  # when the artifact is loaded, not when it is made
            raise ValueError("boom")


def test_damaged_pickle_is_a_load_error() -> None:
    node = Pickled(kind="complex")
    node.get()
    (file,) = node.furu_dir.glob("*.pickle")
    file.write_bytes(pickle.dumps(1)[:-1])
    with pytest.raises(FuruLoadError, match="could not be read back"):
        node.get()


def test_codec_that_does_not_exist_is_an_error_of_the_class() -> None:
    with pytest.raises(FuruUsageError, match=r"Odd\._codec must be 'json' or 'pickle'"):
        types.new_class("Odd", (Furu[int],), exec_body=lambda body: body.update(_codec="yaml"))


# ---- reading JSON back ----


def test_class_that_changed_its_result_type_gets_a_load_error_with_advice() -> None:
    """The advice is to raise `_version`, which would have made the artifact stale."""
    names = {"__module__": __name__, "__qualname__": "Changing", "_create": lambda self: "text"}
    before = types.new_class("Changing", (Furu[str],), exec_body=lambda body: body.update(names))
    after = types.new_class("Changing", (Furu[int],), exec_body=lambda body: body.update(names))
    before().get()
    with pytest.raises(FuruLoadError, match="raise its _version"):
        after().get()


@pytest.mark.parametrize("content", [b"", b"{", b"[1,", b'"a"', b"\xff"])
def test_damaged_json_raises_documented_exceptions(content: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        decode_json(Furu, list[int], content)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(json_values)
def test_random_value_is_read_back_equal_or_rejected(value: Any) -> None:
    try:
        content, first = encode_json(Furu, Any, value, 2**20)
    except FuruResultError:
        assert not is_plain(value)
        return
    assert is_plain(value)
    assert value == first == decode_json(Furu, Any, content)
    assert type(value) is type(first)


def is_plain(value: Any) -> bool:
    """Whether a value is read back from JSON unchanged."""
    if isinstance(value, str):
        return all(not 0xD800 <= ord(character) < 0xE000 for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(key) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, int)
