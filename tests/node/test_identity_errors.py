"""Values without a canonical form, and registered types."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import io
import sys
import types
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pytest

from furu import Furu, FuruIdentityError, FuruUsageError, register_canonical_form
from furu.node.identity import MAX_DEPTH
from tests.node.values import Holder, PointStruct, PointTuple, hash_of, made

# ---- values without a form ----


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
    """The error is raised when the node is made. The message and `field_path` contain the path."""
    with pytest.raises(FuruIdentityError) as caught:
        TrainModel(**fields)
    assert path == caught.value.field_path
    assert str(caught.value).startswith(f"{path}: a value of type builtins.object has no canonical form")
    assert "furu.field(counts=False)" in str(caught.value)
    assert "furu.register_canonical_form" in str(caught.value)


def test_key_or_item_without_a_form_is_named_too() -> None:
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
    """This includes subclasses of plain types, because they may have other state."""
    with pytest.raises(FuruIdentityError) as caught:
        hash_of(value)
    assert "Holder.value" == caught.value.field_path
    assert isinstance(caught.value, TypeError)


def test_version_without_a_form_is_an_error_that_names_it() -> None:
    cls = made("C", _version=object())
    with pytest.raises(FuruIdentityError, match=r"^C\._version: "):
        cls()


def test_field_that_was_never_set_is_an_error_that_names_it() -> None:
    """A field with `init=False` must be set by `__post_init__`."""

    class Unset(Furu[int]):
        x: int = dataclasses.field(init=False)

    with pytest.raises(FuruIdentityError, match=r"Unset\.x"):
        Unset()
    unset = dataclasses.make_dataclass("D", [("y", int, dataclasses.field(init=False))])
    with pytest.raises(FuruIdentityError, match=r"Holder\.value\.y"):
        Holder(value=unset())


@pytest.mark.parametrize("container", [list, dict])
def test_container_that_holds_itself_is_an_error(container: type) -> None:
    value = container()
    if isinstance(value, list):
        value.append(value)
    else:
        value["self"] = value
    with pytest.raises(FuruIdentityError, match=r"^Holder\.value.*does a container hold itself\?"):
        Holder(value=value)


def test_values_nest_up_to_the_limit_and_no_deeper() -> None:

    def nested(depth: int) -> Any:
        value: Any = 0
        for _ in range(depth):
            value = [value]
        return value

    assert hash_of(nested(MAX_DEPTH)) != hash_of(nested(MAX_DEPTH - 1))
    with pytest.raises(FuruIdentityError, match=f"nested deeper than {MAX_DEPTH} levels"):
        hash_of(nested(MAX_DEPTH + 1))


# ---- foreign types ----


def test_registered_form_makes_a_type_count() -> None:
    """Two values have the same hash only if they have equal forms and the same type."""

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
    with pytest.raises(FuruIdentityError):  # the form is for exactly this type: a subclass may add state
        hash_of(Table(1, 2))
    register_canonical_form(Table, lambda table: table.rows)
    assert hash_of(Matrix(1, 2)) != hash_of(Table(1, 2))


def test_registered_form_without_a_form_is_an_error_with_the_path() -> None:

    class Odd:
        pass

    register_canonical_form(Odd, lambda odd: [0, object()])
    with pytest.raises(FuruIdentityError) as caught:
        Holder(value=(Odd(),))
    assert "Holder.value[0][1]" == caught.value.field_path


def test_registered_form_that_is_the_value_itself_is_an_error() -> None:

    class Same:
        pass

    register_canonical_form(Same, lambda same: same)
    with pytest.raises(FuruIdentityError, match="nested deeper"):
        hash_of(Same())


@pytest.mark.parametrize("wrong", [int, str, list, dict, type(None), zoneinfo.ZoneInfo, Furu, Holder])
def test_type_that_has_a_form_already_cannot_be_given_another(wrong: Any) -> None:
    """Another form would change the hashes of existing artifacts."""
    with pytest.raises(FuruUsageError, match="has a canonical form already"):
        register_canonical_form(wrong, str)


def test_form_is_registered_once_and_for_a_type() -> None:

    class Once:
        pass

    register_canonical_form(Once, lambda once: 1)
    with pytest.raises(FuruUsageError, match="Once has a canonical form already"):
        register_canonical_form(Once, lambda once: 2)
    with pytest.raises(FuruUsageError, match="takes a type first"):
        register_canonical_form(Once(), lambda once: 2)  # type: ignore[arg-type]
