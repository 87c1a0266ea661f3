"""Tables of stored nodes: columns, cells, rows, and the formats that they are written in."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import furu
from furu import File, Furu, FuruStoreError, FuruUsageError, run_local
from furu.store.table import Table


@dataclasses.dataclass(frozen=True)
class Scores:
    accuracy: float
    loss: float
    by_class: dict[str, int]
    curve: list[float]


@dataclasses.dataclass(frozen=True)
class Options:
    depth: int
    names: tuple[str, ...] = ()


class Data(Furu[list[int]]):
    seed: int
    source: File | None = None

    def _create(self) -> list[int]:
        return [self.seed]


class Train(Furu[Scores]):
    data: Data
    rate: float
    options: Options = Options(1)
    result: str = "a"
    before: Train | None = None

    def _create(self) -> Scores:
        return Scores(self.rate, 1.0, {"a": 1}, [1.0])


class Number(Furu[int | None]):
    n: int | str | None

    def _create(self) -> int | None:
        return self.n if isinstance(self.n, int) else None


def test_table_has_a_row_for_each_stored_node_and_flat_columns(tmp_path: Path) -> None:
    """Fields of nested nodes and dataclasses have columns. Lists in a result have none."""
    (tmp_path / "file").write_text("x")
    data = Data(seed=1, source=File(path=tmp_path / "file"))
    first = Train(data=data, rate=0.5)
    second = Train(data=data, rate=0.25, before=first, options=Options(2, ("a",)))
    run_local([second])
    rows = furu.table(Train)
    assert {
        "hash": second.furu_hash,
        "data": "Data",
        "data.seed": 1,
        "data.source": str(tmp_path / "file"),
        "rate": 0.25,
        "options.depth": 2,
        "options.names": ["a"],
        "result_": "a",
        "before": f"Train {first.furu_hash[:12]}",
        "result.accuracy": 0.25,
        "result.loss": 1.0,
        "result.by_class.a": 1,
    } == rows[0]
    assert first.furu_hash == rows[1]["hash"]
    assert rows[1]["before"] is None
    assert rows.columns == tuple(rows[0]) == tuple(rows[1])


def numbers() -> None:
    run_local([Number(n=n) for n in (10, 9, None, "x", 1)])


class Fit(Furu[dict[str, Any]]):
    """A result with NaN and with an array."""

    def _create(self) -> dict[str, Any]:
        return {"loss": float("nan"), "rate": 0.5, "weights": np.zeros(3)}


def test_numbers_beside_parts_in_files_have_columns() -> None:
    Fit().get()
    [row] = furu.table(Fit)
    assert ["hash", "result.loss", "result.rate"] == list(row)
    assert (True, 0.5) == (math.isnan(row["result.loss"]), row["result.rate"])


def test_rows_are_sorted_by_fields() -> None:
    numbers()
    assert [1, 9, 10, "x", None] == [row["n"] for row in furu.table(Number)]


def test_rows_can_be_sorted_by_a_column() -> None:
    """Rows without a value are last in both directions."""
    numbers()
    ordered = furu.table(Number).sorted_by("result", descending=True)
    assert [10, 9, 1, None, None] == [row["result"] for row in ordered]
    with pytest.raises(FuruUsageError, match="no column 'no'; it has hash, n, result"):
        ordered.sorted_by("no")


def test_table_has_only_rows_with_the_wanted_values() -> None:
    """A value is one of a field or of a column. True is not 1."""
    numbers()
    run_local([Train(data=Data(seed=seed), rate=0.5) for seed in (1, 2)])
    assert [1] == [row["n"] for row in furu.table(Number, n=1)]
    assert 0 == len(furu.table(Number, n=True))
    assert [1] == [row["data.seed"] for row in furu.table(Train, data=Data(seed=1))]
    assert [2] == [row["data.seed"] for row in furu.table(Train, **{"data.seed": 2})]
    assert 2 == len(furu.table(Train, options=Options(1)))
    with pytest.raises(FuruUsageError, match="no column 'speed'"):
        furu.table(Train, speed=1)


def test_class_may_be_named_and_need_not_be_imported(store: Path) -> None:
    numbers()
    (store / __name__).rename(store / "elsewhere")
    for path in (store / "elsewhere" / "Number").iterdir():
        path.write_text(path.read_text().replace(f"{__name__}:Number", "elsewhere:Number"))
    assert 5 == len(furu.table("Number")) == len(furu.table("elsewhere:Number"))
    assert 0 == len(furu.table(Number))
    with pytest.raises(FuruStoreError, match="no nodes of a class 'Numbre'; it has elsewhere:Number"):
        furu.table("Numbre")


def test_name_of_two_classes_is_an_error(store: Path) -> None:
    numbers()
    (store / "other" / "Number").mkdir(parents=True)
    with pytest.raises(FuruStoreError, match=f"several classes .*: other:Number, {__name__}:Number"):
        furu.table("Number")


def test_table_of_a_class_without_nodes_is_empty(store: Path) -> None:
    empty = furu.table(Number)
    assert (0, ("hash",), "hash\n") == (len(empty), empty.columns, empty.to_csv())
    assert not store.exists()


def test_csv_holds_every_row(tmp_path: Path) -> None:
    run_local([Train(data=Data(seed=1), rate=0.5, options=Options(1, ("a,b", "c")))])
    found = furu.table(Train)
    content = found.to_csv(tmp_path / "table.csv")
    assert content == (tmp_path / "table.csv").read_text()
    (row,) = csv.DictReader(io.StringIO(content))
    assert list(found.columns) == list(row)
    assert ('["a,b", "c"]', "0.5", "") == (row["options.names"], row["rate"], row["before"])


def test_table_becomes_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    numbers()
    found = furu.table(Number)
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(found.columns) == list(frame.columns)
    assert [row["hash"] for row in found] == list(frame["hash"])


def test_table_is_a_sequence() -> None:
    found = Table("m:C", ["a"], [{"a": 1}, {"a": 2}])
    assert ({"a": 2}, [{"a": 1}], 2) == (found[-1], found[:1], len(found))
    assert "<Table of 2 nodes of m:C: a>" == repr(found)


def test_chain_of_diamonds_makes_few_columns() -> None:
    """A node inside a node of its own class is not opened, so the columns do not double at each level."""
    node: Any = Diamond(left=None, right=None)
    for _ in range(30):
        node = Diamond(left=node, right=node)
    run_local([node])
    assert ("hash", "left", "right", "result") == furu.table(Diamond).columns


class Diamond(Furu[int]):
    left: Diamond | None
    right: Diamond | None

    def _create(self) -> int:
        return 1
