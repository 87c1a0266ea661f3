"""`stored()` and `table()` after a class was edited, and beside damaged records."""

from __future__ import annotations

import json
import math
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

import furu
from furu import Furu, FuruUsageError
from furu.node.base import artifact_of


def made(name: str, fields: dict[str, tuple[Any, Any]], **body: Any) -> type[Furu[Any]]:
    """Return a class with fields, each given by its type and its default."""
    names = {
        "__annotations__": {key: declared for key, (declared, _) in fields.items()},
        "__module__": __name__,
        "_create": lambda self: 1,
        **{key: default for key, (_, default) in fields.items() if default is not None},
        **body,
    }
    return types.new_class(name, (Furu[Any],), {}, lambda space: space.update(names))


def rows_of(cls: Any, *columns: str, **where: Any) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in furu.table(cls, **where)]


def test_artifacts_of_another_version_are_left_out() -> None:
    """Their values were declared invalid."""
    first = made("Versioned", {"lr": (float, None)})
    for lr in (0.1, 0.2):
        first(lr=lr).get()
    second = made("Versioned", {"lr": (float, None)}, _version=2, _create=lambda self: 2)
    second(lr=0.1).get()
    assert [(second(lr=0.1), 2)] == list(second.stored())
    assert [(0.1, 2)] == rows_of(second, "lr", "result")
    by_name = furu.table(f"{__name__}:Versioned")
    assert [(0, 0.1), (2, 0.1), (0, 0.2)] == sorted(
        ((row["_version"], row["lr"]) for row in by_name), key=lambda pair: (pair[1], pair[0])
    )


def test_renamed_field_is_one_column() -> None:
    before = made("Renamed", {"lr": (float, None)})
    for lr in (0.1, 0.2):
        before(lr=lr).get()
    after = made("Renamed", {"rate": (float, furu.field(known_as="lr"))})
    after(rate=0.3).get()
    assert [(0.1,), (0.2,), (0.3,)] == rows_of(after, "rate")
    assert [(0.1,)] == rows_of(after, "rate", rate=0.1)


def test_added_field_has_its_default_in_older_rows() -> None:
    made("Grown", {"a": (int, None)})(a=1).get()
    after = made("Grown", {"a": (int, None), "s": (bool, furu.field(default=False, added=True))})
    after(a=2).get()
    after(a=3, s=True).get()
    assert [(1, False), (2, False), (3, True)] == rows_of(after, "a", "s")
    assert [(1,), (2,)] == rows_of(after, "a", s=False)


def test_fields_that_exchange_their_names_are_read_by_the_hash() -> None:
    made("Swapped", {"a": (int, None), "b": (int, None)})(a=1, b=2).get()
    after = made("Swapped", {"a": (int, furu.field(known_as="b")), "b": (int, furu.field(known_as="a"))})
    assert after(a=2, b=1).exists()
    assert [(after(a=2, b=1), 1)] == list(after.stored())


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        (int | float, [1, 1.0]),
        (Any, [(1, 2), [1, 2]]),
        (Any, [b"ab", "b'ab'"]),
        (Any, [math.nan, "nan"]),
        (Any, [{1: 2}, {"1": 2}]),
    ],
)
def test_stored_nodes_are_chosen_by_the_exact_value(declared: Any, values: list[Any]) -> None:
    cls = made("Exact", {"a": (declared, None)})
    nodes = [cls(a=value) for value in values]
    for node in nodes:
        node.get()
    for node, value in zip(nodes, values, strict=True):
        found = [other for other, _ in cls.stored(a=value) if isinstance(other, Furu)]
        assert [other.furu_hash for other in found] in ([node.furu_hash], [])
        assert all(other == node for other in found)


# ---- damaged records, colliding names ----


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(codec="parts", result=5),
        lambda record: record.update(codec="parts", result={"value": 1}),
        lambda record: record.update(codec="parts", result={"key": "k", "value": {"k": {"float": "abc"}}}),
    ],
)
def test_damaged_artifact_is_left_out_of_the_table_and_named(change: Any) -> None:
    cls = made("Damaged", {"n": (int, None)})
    nodes = [cls(n=n) for n in range(3)]
    for node in nodes:
        node.get()
    done = Path(artifact_of(nodes[1]).files.done)
    record = json.loads(done.read_bytes())
    change(record)
    done.chmod(0o644)
    done.write_text(json.dumps(record))
    with pytest.warns(UserWarning, match=f"{nodes[1].furu_hash[:12]}"):
        assert [(0,), (2,)] == rows_of(cls, "n")


def test_no_cell_is_lost_to_another_column_of_the_same_name() -> None:
    cls = made("Taken", {"result": (int, None), "result_": (int, None)}, _create=lambda self: 9)
    cls(result=1, result_=2).get()
    [row] = furu.table(cls)
    assert {1, 2, 9} == {value for name, value in row.items() if name != "hash"}
    nested = made("Dotted", {"a": (dict[str, Any], None)}, _create=lambda self: {"x": {"y": 3}, "x.y": 4})
    nested(a={"b": {"c": 1}, "b.c": 2}).get()
    [row] = furu.table(nested)
    assert {1, 2, 3, 4} == {value for name, value in row.items() if name != "hash"}


def test_rows_with_nan_are_sorted_last() -> None:
    results = [3.0, math.nan, 1.0, 2.0, math.nan, 0.0]
    cls = made("Sorted", {"n": (int, None)}, _create=lambda self: results[self.n])
    for n in range(len(results)):
        cls(n=n).get()
    found = [row["result"] for row in furu.table(cls).sorted_by("result")]
    assert [0.0, 1.0, 2.0, 3.0] == found[:4]
    assert all(map(math.isnan, found[4:]))


def test_hidden_field_cannot_be_asked_for() -> None:
    """An empty table would say that there is no such node."""
    cls = made("Secret", {"k": (int, None), "token": (str, furu.field(default="", secret=True))})
    cls(k=1, token="a1b2").get()
    with pytest.raises(FuruUsageError, match="nodes cannot be chosen by it"):
        furu.table(cls, token="a1b2")


def test_class_that_was_defined_last_loads_a_value() -> None:
    """Although the other one has another base, which comes later among the classes of the program."""

    class Second(Furu[list[int]]):
        def _create(self) -> list[int]:
            return [1, 2]

    class First(Furu[tuple[int, ...]]):
        def _create(self) -> tuple[int, ...]:
            return (1, 2)

    def defined(base: Any) -> Any:
        names = {"__module__": __name__, "__qualname__": "Redefined", "__annotations__": {"k": int}}
        return types.new_class("Redefined", (base,), {}, lambda space: space.update(names))

    old = defined(First)
    node_hash = old(k=1).furu_hash
    old(k=1).get()
    new = defined(Second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [1, 2] == furu.load(node_hash) == new(k=1).get()
