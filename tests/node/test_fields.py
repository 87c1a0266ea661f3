"""Values are checked against the declared types of fields, and normalised, when a node is created."""

from __future__ import annotations

import dataclasses
import pickle
import types
import typing
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytest

import furu
from furu import Furu, FuruFieldError, FuruIdentityError, FuruUsageError
from tests.declared_types import EXAMPLES, Colour, Example, Number, Optimizer

T = TypeVar("T")


def class_with(declared: Any) -> type[Furu[Any]]:
    """Return a class whose only field, `value`, has a declared type."""
    body = {"__annotations__": {"value": declared}, "__module__": __name__}
    return types.new_class("Holder", (Furu[Any],), {}, lambda names: names.update(body))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left is right
    return type(left) is type(right) and bool(left == right)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_value_of_the_declared_type_is_kept(example: Example) -> None:
    node: Any = class_with(example.declared)(value=example.value)
    assert same(example.value, node.value)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_equal_value_of_another_type_is_the_same_node(example: Example) -> None:
    cls = class_with(example.declared)
    for given, expected in example.converted:
        node: Any = cls(value=given)
        assert same(expected, node.value)
        assert cls(value=expected).furu_hash == node.furu_hash


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_other_value_is_refused_when_the_node_is_created(example: Example) -> None:
    """The error names class, field, declared type and value. For Any it is the error of identity."""
    with pytest.raises(TypeError) as caught:
        class_with(example.declared)(value=example.wrong)
    if example.declared is Any:
        assert isinstance(caught.value, FuruIdentityError)
        return
    assert isinstance(caught.value, FuruFieldError)
    assert caught.value.field_path.startswith("Holder.value")
    assert str(caught.value).startswith(f"{caught.value.field_path} is declared as ")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(caught.value), caught.value.declared) == (str(again), again.declared)


class Train(Furu[float]):
    """A node with many fields."""

    lr: float
    sizes: tuple[int, ...] = ()
    optimizer: Optimizer = Optimizer(1)
    layers: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    colour: Colour | None = None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": "0.1"}, "Train.lr is declared as float, and was given '0.1' (a str)"),
        (
            {"lr": 1, "sizes": [1, "2"]},
            "Train.sizes[1] is declared as int, and was given '2' (a str). The whole field is declared as "
            "tuple[int, ...]",
        ),
        (
            {"lr": 1, "optimizer": Optimizer("fast")},  # type: ignore[arg-type]
            "Train.optimizer.rate is declared as float, and was given 'fast' (a str). The whole field is "
            "declared as Optimizer",
        ),
        (
            {"lr": 1, "layers": {"a": [1, None]}},
            "Train.layers['a'][1] is declared as float, and was given None (a NoneType). "
            "The whole field is declared as dict[str, list[float]]",
        ),
        ({"lr": 2**60 + 1}, f"Train.lr is declared as float, and was given {2**60 + 1} (an int)"),
    ],
)
def test_error_names_class_path_type_and_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FuruFieldError) as caught:
        Train(**fields)
    assert message == str(caught.value).partition(" (no float")[0]


def test_defaults_are_normalised_too() -> None:
    assert Train(lr=1.0) == Train(lr=1, optimizer=Optimizer(1.0), sizes=[])  # type: ignore[arg-type]
    assert float is type(Train(lr=1).optimizer.rate)


def test_default_that_does_not_fit_is_refused() -> None:
    class Wrong(Furu[int]):
        size: int = "1"  # type: ignore[assignment]

    with pytest.raises(FuruFieldError, match=r"Wrong\.size is declared as int, and was given '1'"):
        Wrong()


def test_given_object_is_not_modified() -> None:
    optimizer = Optimizer(1, [2])  # type: ignore[arg-type]
    layers = {"a": [1]}
    node = Train(lr=1, optimizer=optimizer, layers=layers)  # type: ignore[dict-item]
    assert (1, [2], {"a": [1]}) == (optimizer.rate, optimizer.steps, layers)
    assert (Optimizer(1.0, (2,)), {"a": [1.0]}) == (node.optimizer, node.layers)


def test_post_init_sees_normalised_values_and_what_it_sets_is_normalised() -> None:
    seen: list[Any] = []

    class Doubled(Furu[int]):
        lr: float
        twice: float = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            seen.append(self.lr)
            vars(self)["twice"] = int(2 * self.lr)

    node = Doubled(lr=np.float32(0.5))  # type: ignore[arg-type]
    assert ([0.5], float, 1.0, float) == (seen, type(seen[0]), node.twice, type(node.twice))


def test_own_constructor_is_checked_after_it() -> None:
    class Own(Furu[int]):
        lr: float

        def __init__(self, text: str) -> None:
            vars(self)["lr"] = int(text)

    assert (1.0, float) == (Own("1").lr, type(Own("1").lr))


# ---- names in annotations ----


class Later(Furu[int]):
    """Names a class that is defined below, and itself."""

    optimizer: Below
    other: Later | None = None


@dataclasses.dataclass(frozen=True)
class Below:
    """Is defined after the class that names it."""

    rate: float


def test_annotation_may_name_a_class_that_is_defined_later() -> None:
    node = Later(optimizer=Below(1), other=Later(optimizer=Below(2)))
    assert float is type(node.optimizer.rate)
    with pytest.raises(FuruFieldError, match=r"Later\.other is declared as "):
        Later(optimizer=Below(1), other=3)  # type: ignore[arg-type]


def test_annotation_may_name_a_class_of_a_function() -> None:
    """Also after the function has returned, and a class that the function defines later."""

    def make() -> tuple[type[Furu[Any]], Any]:
        @dataclasses.dataclass(frozen=True)
        class Inner:
            rate: float

        class Outer(Furu[int]):
            inner: Inner

        return Outer, Inner(rate=1)

    outer, inner = make()
    assert outer(inner=inner).inner == inner  # type: ignore[attr-defined]
    with pytest.raises(FuruFieldError):
        outer(inner=3)

    class First(Furu[int]):
        second: Second | None = None

    class Second(Furu[int]):
        pass

    assert First(second=Second()).second == Second()


def test_name_that_is_not_imported_at_run_time_is_an_error_with_advice() -> None:
    class Typed(Furu[int]):
        value: Missing  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(FuruUsageError, match=r"Typed\.value is declared as Missing.*at run time"):
        Typed(value=1)


# ---- generics and nodes ----


class Boxed(Furu[T], Generic[T]):
    """A generic node with a field of its type variable."""

    value: T
    values: tuple[T, ...] = ()


class BoxedFloat(Boxed[float]):
    """Passes a type for the type variable."""


def test_type_variable_takes_the_type_that_a_subclass_passes() -> None:
    assert float is type(BoxedFloat(value=1).value)
    assert (1.0, 2.0) == BoxedFloat(value=1, values=[1, 2]).values  # type: ignore[arg-type]
    with pytest.raises(FuruFieldError, match=r"BoxedFloat\.value is declared as float"):
        BoxedFloat(value="x")  # type: ignore[arg-type]
    assert "x" == Boxed(value="x").value


class Text(Furu[str]):
    """A node with another result."""


class Flag(Furu[bool]):
    """A node whose result is a kind of int."""


class Texts(Furu[list[str]]):
    """A node with a list as its result."""


@pytest.mark.parametrize(
    ("declared", "node", "fits"),
    [
        (Furu[float], Number(), True),
        (Furu[float], Flag(), True),
        (Furu[float], Text(), False),
        (Furu[str], Text(), True),
        (Furu[int | str], Text(), True),
        (Furu[int | None], Text(), False),
        (Furu, Text(), True),
        (Furu[Any], Text(), True),
        (Furu[typing.Sequence[str]], Texts(), True),
        (Furu[typing.Sequence[int]], Texts(), False),
        (Boxed[int], Boxed(value=1), True),
        (Boxed[str], BoxedFloat(value=1), False),
        (list[Furu[float]], [Number(), Number(value=2)], True),
        (list[Furu[float]], [Number(), Text()], False),
        (Number, Text(), False),
    ],
)
def test_node_fits_if_its_result_fits(declared: Any, node: Any, fits: bool) -> None:
    """A `Furu[int]` is accepted for a declared `Furu[float]`: nodes are covariant."""
    cls = class_with(declared)
    if fits:
        assert node == cls(value=node).value  # type: ignore[attr-defined]
    else:
        with pytest.raises(FuruFieldError):
            cls(value=node)


def test_error_of_a_method_of_the_value_is_the_cause() -> None:
    class Odd(type):
        def __instancecheck__(cls, value: object) -> bool:
            raise ZeroDivisionError

    class Judged(metaclass=Odd):
        pass

    with pytest.raises(FuruFieldError, match=r"could not be checked .* ZeroDivisionError") as caught:
        class_with(Judged)(value=3)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# ---- field() ----


def test_numpy_sweep_gives_the_nodes_of_the_same_floats() -> None:
    assert [Train(lr=float(lr)) for lr in np.logspace(-3, 0, 4)] == [
        Train(lr=lr) for lr in np.logspace(-3, 0, 4)
    ]


def named(name: str, **fields: tuple[Any, Any]) -> type[Furu[Any]]:
    """Return a class with fields, given as pairs of a type and a default."""
    body: dict[str, Any] = {"__annotations__": {key: declared for key, (declared, _) in fields.items()}}
    body |= {key: default for key, (_, default) in fields.items()}
    body |= {"__module__": __name__, "__qualname__": name}
    return types.new_class(name, (Furu[Any],), {}, lambda names: names.update(body))


def test_added_field_does_not_count_while_it_has_its_default() -> None:
    before = named("Fit", lr=(float, 0.1))
    after = named("Fit", lr=(float, 0.1), stratify=(bool, furu.field(default=False, added=True)))
    assert before().furu_hash == after().furu_hash == after(stratify=np.False_).furu_hash
    assert before().furu_hash != after(stratify=True).furu_hash
    listed = named(
        "Fit", lr=(float, 0.1), tags=(tuple[str, ...], furu.field(default_factory=list, added=True))
    )
    assert before().furu_hash == listed().furu_hash == listed(tags=()).furu_hash
    assert before().furu_hash != listed(tags=["a"]).furu_hash


def test_added_field_counts_after_unpickling_too() -> None:
    node = Added(stratify=True)
    assert node.furu_hash == pickle.loads(pickle.dumps(node)).furu_hash
    assert Added().furu_hash == pickle.loads(pickle.dumps(Added())).furu_hash


class Added(Furu[int]):
    """A node with an added field."""

    stratify: bool = furu.field(default=False, added=True)


def test_renamed_field_counts_under_its_former_name() -> None:
    before = named("Fit", lr=(float, 0.1), zeta=(int, 1))
    after = named("Fit", rate=(float, furu.field(default=0.1, known_as="lr")), zeta=(int, 1))
    assert before().furu_hash == after().furu_hash
    assert before(lr=1).furu_hash == after(rate=1).furu_hash


def test_field_that_does_not_count_is_no_part_of_identity() -> None:
    cls = named("Fit", lr=(float, 0.1), device=(str, furu.field(default="cpu", counts=False)))
    assert cls() == cls(device="gpu")


@pytest.mark.parametrize(
    "options",
    [
        {"added": True},
        {"default": 1, "added": True, "counts": False},
        {"known_as": "a", "secret": True},
        {"known_as": "not a name"},
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(FuruUsageError):
        furu.field(**options)


def test_two_fields_that_count_under_one_name_are_refused() -> None:
    with pytest.raises(FuruUsageError, match="the fields lr and rate of Fit both count in the hash as lr"):
        named("Fit", lr=(float, 0.1), rate=(float, furu.field(default=0.1, known_as="lr")))


def test_secret_appears_in_no_message_and_no_file(store: Path) -> None:
    class Query(Furu[int]):
        token: str = furu.field(secret=True)
        fails: bool = False

        def _create(self) -> int:
            if self.fails:
                raise ValueError("no answer")
            return 1

    node, failing = Query(token="xyzzy"), Query(token="xyzzy", fails=True)
    assert Query(token="other") == node
    with pytest.raises(furu.FuruComputeError) as failed:
        furu.run_local([node, failing], on_failure="continue")
    with pytest.raises(FuruFieldError) as refused:
        Query(token=b"xyzzy")  # type: ignore[arg-type]
    text = f"{node!r} {failed.value} {refused.value} {furu.plan_local([failing])}"
    files = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert "xyzzy" not in text
    assert b"no answer" in files
    assert b"xyzzy" not in files


# ---- _name ----


def test_class_with_a_name_keeps_its_artifacts_under_another_class_name(store: Path) -> None:
    before = named("Split", seed=(int, 1))
    body: dict[str, Any] = {"__annotations__": {"seed": int}, "seed": 1, "__module__": "elsewhere"}
    body["_name"] = f"{__name__}:Split"
    after = types.new_class("Halves", (Furu[Any],), {}, lambda names: names.update(body))
    assert before().furu_hash == after().furu_hash
    heir = types.new_class("Heir", (after,), {}, lambda names: names.update(__module__="elsewhere"))
    assert before().furu_hash != heir().furu_hash


@pytest.mark.parametrize("name", ["Split", "nodes.Split", "nodes:", ":Split", 3, "a b:C"])
def test_name_that_is_not_a_class_is_refused(name: object) -> None:
    with pytest.raises(FuruUsageError, match="_name must be the name of a class"):
        types.new_class("Halves", (Furu[Any],), {}, lambda names: names.update(_name=name))
