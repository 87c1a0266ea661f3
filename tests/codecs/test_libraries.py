"""Values of other libraries are read back as they were, here and in another process, or are refused."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import pickle
import shutil
import subprocess
import sys
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import furu
from furu import Furu, FuruComputeError, FuruLoadError, catalog, current_settings

QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES: dict[int, Any] = {}


class Held(Furu[Any]):
    """Returns a value of this process."""

    number: int

    def _create(self) -> Any:
        return VALUES[self.number]


def node_of(value: Any) -> Held:
    number = len(VALUES)
    VALUES[number] = value
    return Held(number=number)


def read_back(value: Any) -> list[Any]:
    """Return what the first and a later `get()` of a node return."""
    node = node_of(value)
    return [node.get(), node.get()]


def refused(value: Any, words: str) -> None:
    with pytest.raises(FuruComputeError, match=words):
        node_of(value).get()


# ---- arrays ----

DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.array_dtypes(st.one_of(hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.datetime64_dtypes())),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
)


def same_array(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays have the same data type, byte order, shape and bytes."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@QUICK
@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), st.booleans())
def test_array_keeps_its_type_order_and_bytes(array: np.ndarray, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    for loaded in read_back([array]):  # in a list: numpy's scalars are numbers
        assert same_array(array, loaded[0])
        assert np.ndarray is type(loaded[0])
        assert array.flags.f_contiguous <= loaded[0].flags.f_contiguous


def test_loaded_arrays_are_read_only_and_large_ones_are_mapped() -> None:
    for array in (np.zeros(3), np.zeros(2**18)):
        for loaded in read_back(array):
            with pytest.raises(ValueError, match="read-only"):
                loaded[0] = 1
            base = loaded
            while isinstance(base.base, np.ndarray):
                base = base.base
            assert isinstance(base, np.memmap) is (array.nbytes > 2**20)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([object()]), "an array of object holds Python objects"),
        (np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]), "holds Python objects"),
        (np.zeros(1, dtype=np.dtype("f8", metadata={"unit": "m"})), "whose dtype has metadata"),
        (np.ma.masked_array([1], [True]), "JSON cannot hold"),
    ],
)
def test_array_that_would_change_is_refused(array: Any, words: str) -> None:
    refused(array, words)


# ---- tables ----

COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**40), 2**40),
    "float64": st.floats(),
    "bool": st.booleans(),
    "str": st.text(st.characters(codec="utf-8"), max_size=5),
    "datetime64[ns]": st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2100, 1, 1)),
    "datetime64[us, Europe/Berlin]": st.datetimes(
        dt.datetime(1980, 1, 1),
        dt.datetime(2100, 1, 1),
        timezones=st.just(zoneinfo.ZoneInfo("Europe/Berlin")),
    ),
    "category": st.sampled_from(["a", "b"]),
    "Int64": st.one_of(st.none(), st.integers(0, 9)),
}


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 4))
    kinds = sorted(COLUMNS if rows else COLUMNS.keys() - {"category"})  # Parquet drops unused categories
    columns = {}
    for number, kind in enumerate(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4))):
        values = draw(st.lists(COLUMNS[kind], min_size=rows, max_size=rows))
        dtype: Any = pd.CategoricalDtype(["a", "b"]) if kind == "category" else kind
        columns[f"{number}"] = pd.Series(values, dtype=dtype)
    frame = pd.DataFrame(columns, index=range(rows))
    if draw(st.booleans()):
        frame.index = pd.Index(
            [f"row {row}" for row in range(rows)], name=draw(st.sampled_from([None, "key"]))
        )
    return frame


@QUICK
@given(frames())
def test_frame_of_pandas_keeps_its_types_index_and_order(frame: pd.DataFrame) -> None:
    for loaded in read_back(frame):
        pd.testing.assert_frame_equal(frame, loaded, check_exact=True)


@pytest.mark.parametrize(
    "value",
    [
        pd.Series(
            [1.0, np.nan], name="x", index=pd.date_range("2031-01-01", periods=2, tz="Europe/Berlin")
        ),
        pd.Series([1, 2], name=3),
        pd.Series(["a"], index=["value"]),
        pd.Index([3, 1], name="key"),
        pd.Index([3, 1]),
        pd.Index(["a", "b"]),
        pd.RangeIndex(1, 9, 2, name="row"),
        pd.period_range("2031-01", periods=2, freq="M"),
        pd.CategoricalIndex(["a", "b", "a"]),
        pd.date_range("2031-01-01", periods=3, freq="D", name="day"),
        pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("x", 1)], names=["n", "m"])),
        pd.DataFrame({1: [1], 2: [2]}),
        pd.DataFrame({"a": [1]}, index=pd.date_range("2031-01-01", periods=1, freq="D")),
    ],
    ids=repr,
)
def test_series_and_indexes_of_pandas_are_read_back(value: Any) -> None:
    compare: Callable[..., None] = {
        "Series": pd.testing.assert_series_equal,
        "DataFrame": pd.testing.assert_frame_equal,
    }.get(type(value).__name__, pd.testing.assert_index_equal)
    for loaded in read_back(value):
        compare(value, loaded)
        index, other = (one if isinstance(one, pd.Index) else one.index for one in (value, loaded))
        assert getattr(index, "freq", None) == getattr(other, "freq", None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pd.DataFrame({"a": [1, "x"]}), "Parquet cannot hold this DataFrame"),
        (pd.DataFrame({"a": [(1, 2)]}), "would change in Parquet|cannot hold"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column|cannot hold"),
        (pd.DataFrame({"a": [bytearray(b"x")]}), "the types of the values in column 'a'"),
        (pd.Series([1], name=(1, 2)), "the name of a Series must be text"),
    ],
    ids=repr,
)
def test_value_of_pandas_that_would_change_is_refused(value: Any, words: str) -> None:
    refused(value, words)


def test_attributes_of_a_frame_that_would_change_are_refused() -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"pair": (1, 2)}
    refused(frame, "its attrs")


@QUICK
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.floats(), st.text(st.characters(codec="utf-8"), max_size=3)),
        max_size=4,
    )
)
def test_frames_of_polars_and_tables_of_arrow_keep_their_types(rows: list[tuple[int, float, str]]) -> None:
    schema = {"a": pl.Int8, "b": pl.Float32, "c": pl.String}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    frame = frame.with_columns(d=pl.lit(dt.datetime(2031, 1, 1)).dt.replace_time_zone("Europe/Berlin"))
    table = frame.to_arrow()
    for loaded, tables, series in zip(
        read_back(frame), read_back(table), read_back(frame["b"]), strict=True
    ):
        assert frame.schema == loaded.schema
        assert frame.equals(loaded)
        assert table.schema == tables.schema
        assert frame.equals(pl.from_arrow(tables))  # type: ignore[arg-type]
        assert series.equals(frame["b"], check_names=True, check_dtypes=True)


def test_table_of_arrow_with_several_dictionaries_is_read_back() -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c"]).dictionary_encode()]
    table = pa.table({"x": pa.chunked_array(chunks)})
    for loaded in read_back(table):
        assert ["a", "b", "c"] == loaded["x"].to_pylist()
        assert table.schema == loaded.schema


# ---- images ----


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_image_keeps_mode_and_pixels(mode: str) -> None:
    image = Image.new(mode, (3, 2)) if mode == "I;16" else Image.effect_noise((3, 2), 50).convert(mode)
    for loaded in read_back(image):
        assert (mode, image.size, image.tobytes()) == (loaded.mode, loaded.size, loaded.tobytes())
        assert image.getpalette() == loaded.getpalette()


def test_large_image_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL's limit is for images from elsewhere."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    image = Image.new("L", (9, 9))
    for loaded in read_back(image):
        assert image.tobytes() == loaded.tobytes()


def test_image_that_png_cannot_hold_is_refused() -> None:
    refused(Image.new("CMYK", (1, 1)), "PNG cannot hold an image of mode CMYK")


# ---- in another process ----

OTHERS: dict[str, Any] = {
    "array": np.arange(6, dtype="f4").reshape(2, 3),
    "frame": pd.DataFrame({"a": [1.5, np.nan]}, index=pd.Index(["x", "y"], name="key")),
    "polars": pl.DataFrame({"a": [1, 2]}),
    "arrow": pa.table({"a": ["x", None]}),
    "image": Image.new("RGB", (2, 2), "red"),
    "large": bytes(2**21),
    "number": float("nan"),
}


class Other(Furu[Any]):
    """Returns a value that another process can make too."""

    kind: str

    def _create(self) -> Any:
        return OTHERS[self.kind]


def test_another_process_reads_the_same_values() -> None:
    for kind in OTHERS:
        Other(kind=kind).get()
    code = (
        "import pickle, sys\nfrom tests.codecs import test_libraries as tests\n"
        "tests.Other._create = None\n"
        "values = {kind: tests.Other(kind=kind).get() for kind in tests.OTHERS}\n"
        "pickle.dump(values, sys.stdout.buffer)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    values = pickle.loads(done.stdout)
    assert same_array(OTHERS["array"], values["array"])
    pd.testing.assert_frame_equal(OTHERS["frame"], values["frame"])
    assert OTHERS["polars"].equals(values["polars"])
    assert OTHERS["arrow"].equals(values["arrow"])
    assert OTHERS["image"].tobytes() == values["image"].tobytes()
    assert OTHERS["large"] == values["large"]
    assert values["number"] != values["number"]


# ---- damaged and hostile stores ----


def part_files(node: Furu[Any]) -> list[Path]:
    return sorted(path for path in (node.furu_dir / "furu.parts").rglob("*") if path.is_file())


def is_unreadable(node: Furu[Any], words: str) -> None:
    with pytest.raises(FuruLoadError, match=words) as caught:
        node.get()
    assert node is caught.value.node


@pytest.mark.parametrize(
    "value", [np.arange(100.0), pd.DataFrame({"a": [1]}), Image.new("L", (4, 4))], ids=type
)
def test_damaged_part_is_an_error_and_never_a_wrong_value(value: Any) -> None:
    """A byte is changed with the old mtime set back, the file is truncated, emptied, and removed."""
    node = node_of(value)
    node.get()
    [file] = part_files(node)
    content, info = file.read_bytes(), file.stat()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    is_unreadable(node, "its content has changed")
    file.write_bytes(content[:-1])
    is_unreadable(node, "it has another size")
    file.write_bytes(b"")
    is_unreadable(node, "it has another size")
    file.unlink()
    is_unreadable(node, "cannot be opened")
    file.write_bytes(content)
    node.get()


def test_swapped_parts_are_an_error() -> None:
    node = node_of([np.zeros(3), np.ones(3)])
    node.get()
    one, other = part_files(node)
    temporary = one.with_name("x")
    for old, new in ((one, temporary), (other, one), (temporary, other)):
        old.rename(new)
    is_unreadable(node, "its content has changed")


def test_copied_store_is_readable(store: Path, tmp_path: Path) -> None:
    """In a copy every file has another inode and time, so the digests decide."""
    node = node_of(np.arange(3))
    node.get()
    shutil.copytree(store, tmp_path / "copy")
    with furu.use_settings(store=tmp_path / "copy"):
        assert [0, 1, 2] == node.get().tolist()


@contextlib.contextmanager
def edited(node: Furu[Any]) -> Iterator[dict[str, Any]]:
    """Let the block edit the placeholder of a node's result."""
    path = node._artifact().path
    record = json.loads(path.read_bytes())
    [placeholder] = record["result"]["value"].values()
    yield placeholder
    path.write_bytes(json.dumps(record).encode())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codec": "nothing"}, "no codec called 'nothing'"),
        ({"codec": "torch"}, "a value of torch: import it first"),
        ({"codec": "pandas"}, "cannot read"),
        ({"part": "../.."}, "damaged"),
        ({"part": 7}, "could not be read back"),
        ({"files": {"../../x": [1, 1, 1, 1, 1, ""]}}, "leads out of the artifact"),
        ({"files": {"/etc/passwd": [1, 1, 1, 1, 1, ""]}}, "leads out of the artifact"),
        ({"path": ["files", "../../../x"]}, "leads out of the artifact"),
        ({"metadata": None, "files": None}, "damaged"),
        ({"float": "os.system"}, "damaged"),
    ],
)
def test_hostile_placeholder_is_an_error(changes: dict[str, Any], words: str) -> None:
    node = node_of(np.arange(3))
    node.get()
    with edited(node) as placeholder:
        placeholder.update(changes)
    is_unreadable(node, words)


@pytest.mark.parametrize("kind", ["link", "fifo", "link of a directory"])
def test_special_files_are_not_opened(kind: str, tmp_path: Path) -> None:
    node = node_of(np.arange(3))
    node.get()
    [file] = part_files(node)
    if kind == "link of a directory":
        file.parent.rename(tmp_path / "moved")
        file.parent.symlink_to(tmp_path / "moved")
    else:
        file.rename(tmp_path / "moved")
        file.symlink_to(tmp_path / "moved") if kind == "link" else os.mkfifo(file)
    is_unreadable(node, "cannot be opened|is not a directory|has another size")


def test_pickle_in_the_place_of_an_array_is_not_unpickled(tmp_path: Path) -> None:
    """Even if the digest is right."""
    node = node_of(np.arange(3))
    node.get()
    [file] = part_files(node)

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    np.save(file, np.array([Trap()]), allow_pickle=True)
    import hashlib

    info, digest = file.stat(), hashlib.sha256(file.read_bytes()).hexdigest()
    with edited(node) as placeholder:
        placeholder["files"] = {file.name: [info.st_size, 0, 0, 0, 0, digest]}
    is_unreadable(node, "allow_pickle")
    assert not (tmp_path / "sprung").exists()


# ---- what people see ----


def test_parts_are_described_without_loading_them() -> None:
    from furu.codecs.typed import described

    node = node_of({"a": np.zeros((3, 4)), "b": pd.DataFrame({"x": [1], "y": [0.5]}), "c": float("inf")})
    node.get()
    info = catalog.inspect(catalog.find(current_settings(), node.furu_hash))
    for file in part_files(node):
        file.unlink()
    assert info.result is not None
    assert info.codec is not None
    told = msgspec.json.decode(described(info.codec, info.result))
    assert "<numpy: shape 3 x 4, dtype float64; 224 bytes>" == told["a"]
    assert told["b"].startswith("<pandas: kind DataFrame, rows 1, columns x int64, y float64")
    assert "inf" == told["c"]
