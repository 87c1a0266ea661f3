"""Rules for node classes, which are checked at their definition, and for class names within a graph."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import furu
from furu import Furu, FuruError, FuruUsageError, Retry, Status, run_local
from furu.node.dependencies import postorder


def made(**names: Any) -> type[Furu[Any]]:
    return type("Model", (Furu,), {"__module__": __name__, "__qualname__": "Model", **names})


def method(self: object) -> int:
    return 1


RETRY = Retry(attempts=2, on=OSError)


# ---- misspelled settings ----


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("_versoin", 2, "_version"),
        ("_Version", "a", "_version"),
        ("_timeout_secs", 5, "_timeout_sec"),
        ("_timeout", 5, "_timeout_sec"),
        ("_timeout_seconds", 0.5, "_timeout_sec"),
        ("_codec_", "pickle", "_codec"),
        ("_codex", "json", "_codec"),
        ("_rerty", RETRY, "_retry"),
        ("_retrys", RETRY, "_retry"),
        ("_creat", method, "_create"),
        ("_craete", method, "_create"),
        ("_laod", method, "_load"),
        ("_vaildate", method, "_validate"),
        ("_dependancies", method, "_dependencies"),
        ("_dependencys", method, "_dependencies"),
        ("_executor_spec", method, "_executor_spec_key"),
        ("_vaildate", staticmethod(method), "_validate"),
        ("_vaildate", property(method), "_validate"),
    ],
)
def test_misspelled_setting_is_rejected_with_the_nearest_name(name: str, value: object, meant: str) -> None:
    with pytest.raises(
        FuruUsageError, match=rf"Model\.{name} has no meaning for furu\. Did you mean {meant}\?"
    ):
        made(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_helper", method),
        ("_loader", method),
        ("_load_table", method),
        ("_loaded", method),
        ("_create_parts", method),
        ("_created", method),
        ("_creator", method),
        ("_validated", method),
        ("_validator", method),
        ("_dependents", method),
        ("_executor", method),
        ("_code", "DE"),
        ("_codecs", {"a": 1}),
        ("_versions", [1, 2]),
        ("_vision", "clip"),
        ("_revision", 3),
        ("_conversion", "x"),
        ("_retry_on", (OSError,)),
        ("_time", 5),
        ("_cache", {}),
        ("_verbose", True),
        ("__secret", 1),
    ],
)
def test_private_names_of_the_user_are_allowed(name: str, value: object) -> None:
    """Each name is another word than a setting, or has a value that a setting cannot have."""
    assert made(**{name: value})()


# ---- other rules for classes ----


def test_needless_dataclass_decorator_is_rejected_when_a_node_is_made() -> None:
    """The decorator would ignore the `field(...)` of the fields, and replace `==` and `repr`."""
    for options in ({}, {"frozen": True}, {"frozen": True, "kw_only": True, "eq": False}):
        cls = made(__annotations__={"x": int})
        decorated = dataclasses.dataclass(**options)(cls)  # type: ignore[call-overload]
        with pytest.raises(FuruUsageError, match="Model is decorated with @dataclass, which is"):
            decorated(x=1)


def test_subclass_of_a_class_with_a_needless_decorator_is_rejected() -> None:
    """The subclass would inherit fields that the decorator has processed wrongly."""
    base = dataclasses.dataclass(frozen=True)(made(__annotations__={"x": int}))
    with pytest.raises(FuruUsageError, match="is decorated with @dataclass"):
        type("Derived", (base,), {})


def test_class_with_slots_is_rejected() -> None:
    with pytest.raises(FuruUsageError, match="has slots"):
        made(__annotations__={"x": int}, __slots__=("x",))
    with pytest.raises(FuruUsageError, match="has slots"):
        dataclasses.dataclass(frozen=True, slots=True)(made(__annotations__={"x": int}))


@pytest.mark.parametrize("builtin", [dict, list, set, Exception])
def test_class_that_is_also_a_container_is_rejected(builtin: type) -> None:
    """The content of the container would not count in the hash."""
    with pytest.raises(FuruUsageError, match=f"is also a {builtin.__name__}"):
        type("Model", (Furu, builtin), {})


def test_node_stays_frozen_and_may_cache() -> None:
    """A cached property is not a field, and does not count in the hash."""

    class Model(Furu[int]):
        x: int

        @functools.cached_property
        def double(self) -> int:
            return self.x * 2

    node = Model(x=1)
    assert 2 == node.double
    assert node == Model(x=1)
    for name in ("x", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(node, name, 2)
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot delete field '{name}'"):
            delattr(node, name)


# ---- classes with the same name ----


def factory(value: int) -> type[Furu[int]]:
    class Made(Furu[int]):
        n: int = 0

        def _create(self) -> int:
            return value

    return Made


class Above(Furu[int]):
    below: Any

    def _create(self) -> int:
        return 0


MESSAGE = r"two classes in one graph are called .*factory\.<locals>\.Made"

SHAPES: dict[str, Callable[[Any, Any], list[Any]]] = {
    "roots": lambda one, other: [one, other],
    "a root and a dependency": lambda one, other: [Above(below=one), other],
    "one field": lambda one, other: [Above(below=[one, other])],
    "under two roots": lambda one, other: [Above(below=one), Above(below=[other])],
    "at two depths": lambda one, other: [Above(below=Above(below=one)), Above(below=[other])],
}


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_two_classes_with_the_same_name_are_rejected_in_a_run(shape: str, done: bool, n: int) -> None:
    """The hashes may be equal or not, and the nodes DONE or not. The message names both places.

    If one node depends on both directly, that node fails. Otherwise the run fails.
    """
    one, other = factory(3)(), factory(4)(n=n)
    if done:
        one.get()
        other.get()
    with pytest.raises(FuruError, match=MESSAGE) as caught:
        run_local(SHAPES[shape](one, other))
    assert 2 == str(caught.value).count(f"{Path(__file__).name}, line ")


@pytest.mark.parametrize("n", [0, 1])
def test_two_classes_with_the_same_name_are_rejected_by_get(n: int) -> None:
    """The two nodes may be in one field, or at different depths of the graph."""
    one, other = factory(3)(), factory(4)(n=n)
    with pytest.raises(FuruUsageError, match=MESSAGE):
        Above(below=[one, other]).get()
    with pytest.raises(FuruUsageError, match=MESSAGE):
        Above(below=[one, Above(below=other)]).get()


def test_redefined_class_can_be_used() -> None:
    """For example, a notebook cell may run twice. Only graphs with nodes of both classes are rejected."""
    old = factory(3)()
    assert 3 == old.get()
    new = factory(3)()
    assert 1 == run_local([new]).reused
    assert 3 == Above(below=new).below.get()
    assert Status.DONE is old.status()


def test_one_class_under_many_roots_is_one_class() -> None:
    cls = factory(3)
    assert 6 == run_local([Above(below=cls(n=n)) for n in range(3)]).computed


# ---- messages and walks ----


class Unshowable(Furu[int]):
    other: Any = None

    def _dependencies(self) -> list[Furu[Any]]:
        return [self]

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_cycle_of_nodes_whose_repr_raises_is_a_cycle() -> None:
    """The message names the class of the nodes."""
    node = Unshowable()
    with pytest.raises(furu.FuruCycleError, match="Unshowable"):
        list(postorder(node, lambda one: one._dependencies()))


class Endless:
    pass


furu.register_canonical_form(Endless, lambda value: value)


class Noted(Furu[int]):
    note: Any = dataclasses.field(default=None, compare=False)

    def _create(self) -> int:
        return 1


def test_endless_canonical_form_outside_identity_is_an_error() -> None:
    """Fields outside identity are searched for dependencies too."""
    with pytest.raises(FuruUsageError, match="canonical form of a Endless has no end"):
        Noted(note=Endless()).get()
