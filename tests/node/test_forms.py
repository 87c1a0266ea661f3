"""Identity of values of numpy, pandas, pydantic and attrs in fields that accept any value."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pydantic
import pytest

from furu import Furu, FuruIdentityError
from furu.node.readable import readable
from tests.declared_types import Number


class Holder(Furu[int]):
    """A node with any value."""

    value: Any = None


def hash_of(value: Any) -> str:
    return Holder(value=value).furu_hash


def test_equal_arrays_have_one_hash() -> None:
    """Neither byte order nor memory layout counts."""
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    same = [
        array.copy(),
        np.asfortranarray(array),
        array.astype(">i4"),
        np.repeat(array, 2, axis=1)[:, ::2],
    ]
    assert {hash_of(array)} == {hash_of(other) for other in same}


def test_different_arrays_have_different_hashes() -> None:
    array = np.arange(6, dtype=np.int32)
    others: list[Any] = [
        array.astype(np.int64),
        array.reshape(2, 3),
        array[::-1],
        array.tolist(),
        array[:5],
    ]
    others += [array.view("M8[s]") if array.itemsize == 8 else array.astype("M8[s]"), array.astype("M8[D]")]
    others += [np.zeros(2, dtype=[("a", "i4"), ("b", "f4")]), np.zeros(2, dtype=[("a", "i4"), ("c", "f4")])]
    hashes = [hash_of(value) for value in [array, *others]]
    assert len(hashes) == len(set(hashes))


def test_array_that_is_modified_later_is_noticed() -> None:
    array = np.zeros(3)
    node = Holder(value=array)
    array[0] = 1
    with pytest.raises(Exception, match="was changed after it was made"):
        node.get()


def test_numpy_scalars_differ_by_their_type() -> None:
    """In a field for any value the type counts. A declared float is normalised instead."""
    values: list[Any] = [
        1.0,
        np.float64(1),
        np.float32(1),
        np.int64(1),
        1,
        np.array(1.0),
        np.datetime64(1, "s"),
    ]
    assert len(values) == len({hash_of(value) for value in values})
    assert hash_of(np.float32(0.1)) == hash_of(np.float32(0.1))


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.ma.masked_array([1]), pd.Series([1]), pd.DataFrame({"a": [1]})]
)
def test_values_that_belong_to_results_are_refused_with_advice(value: Any) -> None:
    with pytest.raises(
        FuruIdentityError, match=r"^Holder\.value is an? (array of object|\w+\.).*: (pass|conv)"
    ):
        hash_of(value)


def test_times_of_pandas_count_by_instant_and_zone() -> None:
    time = pd.Timestamp("2031-05-17 12:00:00.000000001")
    assert hash_of(time) == hash_of(pd.Timestamp("2031-05-17 12:00:00.000000001"))
    others: list[Any] = [
        time,
        pd.Timestamp("2031-05-17 12:00"),
        time.tz_localize("UTC"),
        time.tz_localize("Europe/Berlin"),
        pd.Timedelta(1, "s"),
        pd.Timedelta(1, "ns"),
        pd.NaT,
        None,
    ]
    assert len(others) == len({hash_of(value) for value in others})


def test_unit_of_a_time_of_pandas_does_not_count() -> None:
    assert hash_of(pd.Timestamp("2031-05-17").as_unit("s")) == hash_of(
        pd.Timestamp("2031-05-17").as_unit("ns")
    )


class Config(pydantic.BaseModel):
    """A model that allows other fields."""

    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    rate: float
    node: Number | None = None


class Cached(pydantic.BaseModel):
    """A model with a private attribute."""

    rate: float = 1.0
    _cache: int = pydantic.PrivateAttr(default=1)


@attrs.define
class Options:
    """An attrs class with a field that does not count."""

    rate: float
    note: str = attrs.field(default="", eq=False)
    node: Any = None


def test_models_count_by_their_fields() -> None:
    assert hash_of(Config(rate=1)) == hash_of(Config.model_validate({"rate": 1.0}))
    assert hash_of(Config(rate=1)) != hash_of(Config.model_validate({"rate": 1.0, "more": 1}))
    assert hash_of(Options(1.0, "a")) == hash_of(Options(1.0, "b")) != hash_of(Options(2.0))
    with pytest.raises(FuruIdentityError, match=r"Cached with private attributes.*: _cache"):
        hash_of(Cached())


def test_nodes_inside_models_are_dependencies() -> None:
    node = Number()
    for value in (Config(rate=1, node=node), Options(1.0, node=node)):
        assert {"node": f"{Number.__module__}:Number", "hash": node.furu_hash} in readable(value).values()
        assert hash_of(value) != hash_of(type(value)(rate=1.0))


def test_arrays_are_recorded_by_their_first_items() -> None:
    assert "array 100 of int64: 0, 1, 2, 3, 4, 5, 6, 7, ..." == readable(np.arange(100))
    assert [1.5, 2] == readable([np.float32(1.5), np.int8(2)])


def test_furu_imports_no_library_to_recognise_its_values() -> None:
    code = (
        "import sys, furu, furu.node.file\n"
        "class Holder(furu.Furu[int]):\n    value: float | None = None\n"
        "Holder(value=1)\n"
        "print([name for name in ('numpy', 'pandas', 'pydantic', 'attrs') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
