"""Codecs for arrays, tables, tensors and images. Each library is imported when a value of it is stored or
loaded, which is after the class that declares the value has imported it."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from furu.codecs.protocol import BuiltIn, Codec, Metadata, Saved
from furu.errors import FuruResultError, FuruUsageError

__all__ = ["BUILT_IN"]

# Larger arrays and tables are mapped into memory instead of read.
_MAPPED_BYTES = 2**20


class NumpyCodec(BuiltIn):
    """Stores arrays as `.npy` files. Loaded arrays are read-only, and large ones are mapped into memory."""

    name, library = "numpy", "numpy"
    _FILE = "array.npy"
    # numpy limits the header, which it evaluates, for files of unknown origin. This file's digest is known.
    _SAFELY: Mapping[str, Any] = {"allow_pickle": False, "max_header_size": 2**24}

    def handles(self, declared: type) -> bool:
        return self.is_of_library(declared) and declared.__name__ in ("ndarray", "memmap")

    def save(self, value: Any, directory: Path) -> Metadata:
        np = import_module("numpy")

        if value.dtype.hasobject or value.dtype.kind == "T":
            raise FuruResultError(
                f"an array of {value.dtype} holds Python objects, which only a pickle could store. Convert "
                "it to a type of fixed size, such as float64 or U10, or set _codec = 'pickle'"
            )
        if value.dtype.metadata:
            raise FuruResultError("an array whose dtype has metadata would lose it: write x.astype(dtype)")
        metadata: Metadata = {"shape": list(value.shape), "dtype": str(value.dtype)}
        version, is_contiguous = _npy_version(value), value.flags.c_contiguous or value.flags.f_contiguous
        with open(directory / self._FILE, "wb") as file:
            if value.nbytes <= _MAPPED_BYTES or version or not is_contiguous:
                np.lib.format.write_array(file, value, version=version, allow_pickle=False)
                return metadata
            header = io.BytesIO()
            np.lib.format.write_array_header_2_0(header, np.lib.format.header_data_from_array_1_0(value))
            flat = value.reshape(-1) if value.flags.c_contiguous else value.T.reshape(-1)
            digest = _write_and_hash(file, header.getvalue(), flat.view(np.uint8))
            return Saved(metadata, {self._FILE: digest})

    def load(self, directory: Path, metadata: Metadata) -> Any:
        np = import_module("numpy")

        path = directory / self._FILE
        if path.stat().st_size > _MAPPED_BYTES:
            # A view of the mapping, so that the type is that of an array.
            return np.asarray(np.load(path, mmap_mode="r", **self._SAFELY))
        array = np.load(path, **self._SAFELY)
        array.flags.writeable = False
        return array


def _write_and_hash(file: BinaryIO, *contents: Any) -> str:
    """Write contents to a file and return their sha256, which a second thread works out meanwhile."""
    hasher = hashlib.sha256()

    def hash_all() -> None:
        for content in contents:
            hasher.update(content)

    thread = threading.Thread(target=hash_all)
    thread.start()
    try:
        for content in contents:
            file.write(content)
    finally:
        thread.join()
    return hasher.hexdigest()


def _npy_version(array: Any) -> tuple[int, int] | None:
    """Return the version of the format that holds the names of an array's fields, if only the newest one
    does, about which numpy would warn. None lets numpy choose."""
    try:
        repr(array.dtype.descr).encode("latin-1")
    except UnicodeEncodeError:
        return (3, 0)
    return None


class PandasCodec(BuiltIn):
    """Stores data frames, series and indexes as Parquet."""

    name, library, needs = "pandas", "pandas", ("pyarrow",)
    _FILE = "table.parquet"
    _NAMES = (
        *("DataFrame", "Series", "Index", "RangeIndex", "DatetimeIndex", "TimedeltaIndex"),
        *("PeriodIndex", "IntervalIndex", "CategoricalIndex"),
    )

    def handles(self, declared: type) -> bool:
        return self.is_of_library(declared) and declared.__name__ in self._NAMES

    def save(self, value: Any, directory: Path) -> Metadata:
        kind = type(value).__name__
        metadata: Metadata = {"kind": kind, "rows": len(value)}
        if kind == "DataFrame":
            frame = value
            metadata["columns"] = {str(name): str(dtype) for name, dtype in value.dtypes.items()}
        else:
            if not isinstance(value.name, str | int | None):
                raise FuruResultError(
                    f"the name of a {kind} must be text, an int or None, not {value.name!r}"
                )
            to_frame = (
                value.to_frame if kind == "Series" else functools.partial(value.to_frame, index=False)
            )
            frame = to_frame(name="value")
            metadata |= {"name": value.name, "dtype": str(value.dtype)}
        freq = getattr(value if kind.endswith("Index") else value.index, "freq", None)
        metadata["freq"] = None if freq is None else freq.freqstr
        if kind == "RangeIndex":
            metadata["range"] = [value.start, value.stop, value.step]
        try:
            frame.to_parquet(directory / self._FILE, engine=_arrow().__name__)
            loaded = self.load(directory, metadata)
        except Exception as error:
            raise FuruResultError(
                f"Parquet cannot hold this {kind}: {' '.join(str(error).split())}"
            ) from error
        why = _pandas_difference(value, loaded)
        if why:
            raise FuruResultError(
                f"a {kind} would change in Parquet: {why}. Convert its columns and its index to plain "
                "types, for example with reset_index() and astype()"
            )
        return metadata

    def load(self, directory: Path, metadata: Metadata) -> Any:
        pd = import_module("pandas")
        frame = pd.read_parquet(directory / self._FILE, engine=_arrow().__name__)
        kind, freq = metadata["kind"], metadata["freq"]
        if kind == "RangeIndex":
            return pd.RangeIndex(*metadata["range"], name=metadata["name"])
        if kind.endswith("Index"):
            with_freq = {"freq": freq} if freq and kind != "PeriodIndex" else {}
            return getattr(pd, kind)(frame["value"].array, name=metadata["name"], **with_freq)
        value = frame if kind == "DataFrame" else frame["value"].rename(metadata["name"])
        if freq is not None:
            value.index.freq = freq
        return value


def _pandas_difference(value: Any, loaded: Any) -> str:
    """Return how a value of pandas and the one that was read back differ, "" if they do not."""
    testing, kind = import_module("pandas").testing, type(value).__name__
    try:
        if kind.endswith("Index"):
            testing.assert_index_equal(value, loaded, exact=True)
            return "" if _item_types(value) == _item_types(loaded) else "the types of its values"
        compare = testing.assert_frame_equal if kind == "DataFrame" else testing.assert_series_equal
        compare(value, loaded, check_exact=True)
    except AssertionError as error:
        return " ".join(str(error).split())
    if value.attrs != loaded.attrs:
        return "its attrs"
    if kind == "Series":
        return "" if _item_types(value) == _item_types(loaded) else "the types of its values"
    for number, name in enumerate(value.columns):
        if _item_types(value.iloc[:, number]) != _item_types(loaded.iloc[:, number]):
            return f"the types of the values in column {name!r}"
    return ""


def _item_types(column: Any) -> list[type]:
    """Return the types of the items of a column of Python objects; none for other columns."""
    return list(map(type, column)) if column.dtype == object else []


def _arrow() -> Any:
    """Import pyarrow. Versions before 14.0.1 run code that a file contains (CVE-2023-47248)."""
    pa = import_module("pyarrow")
    if int(pa.__version__.partition(".")[0]) < 15:
        raise FuruUsageError(
            f"pyarrow {pa.__version__} is not safe to read files with: install 15 or later"
        )
    return pa


class PolarsCodec(BuiltIn):
    """Stores data frames and series of polars as Parquet."""

    name, library = "polars", "polars"
    _FILE = "table.parquet"

    def handles(self, declared: type) -> bool:
        return self.is_of_library(declared) and declared.__name__ in ("DataFrame", "Series")

    def save(self, value: Any, directory: Path) -> Metadata:
        pl = import_module("polars")

        is_frame = isinstance(value, pl.DataFrame)
        frame = value if is_frame else value.rename("value").to_frame()
        frame.write_parquet(directory / self._FILE)
        loaded = pl.read_parquet(directory / self._FILE)
        if frame.schema != loaded.schema or not frame.equals(loaded):
            changed = [name for name in frame.columns if frame.schema[name] != loaded.schema.get(name)]
            raise FuruResultError(
                f"a {type(value).__name__} of polars would change in Parquet: "
                f"{', '.join(changed) or 'its values'}. Cast its columns to plain types"
            )
        columns = {name: str(kind) for name, kind in frame.schema.items()}
        kind = "frame" if is_frame else "series"
        return {
            "rows": frame.height,
            "columns": columns,
            "kind": kind,
            "name": None if is_frame else value.name,
        }

    def load(self, directory: Path, metadata: Metadata) -> Any:
        pl = import_module("polars")

        frame = pl.read_parquet(directory / self._FILE)
        return frame if metadata["kind"] == "frame" else frame["value"].rename(metadata["name"])


class ArrowCodec(BuiltIn):
    """Stores tables of pyarrow as Arrow files. They are mapped into memory when they are loaded."""

    name, library = "pyarrow", "pyarrow"
    _FILE = "table.arrow"

    def handles(self, declared: type) -> bool:
        return self.is_of_library(declared) and declared.__name__ == "Table"

    def save(self, value: Any, directory: Path) -> Metadata:
        pa, path = _arrow(), os.fspath(directory / self._FILE)
        unified = value.unify_dictionaries()
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, value.schema) as writer:
            writer.write_table(unified)
        if not self.load(directory, {}).schema.equals(value.schema, check_metadata=True):
            raise FuruResultError(
                "the schema of a table of pyarrow would change in an Arrow file: cast columns of extension "
                "types to plain ones"
            )
        columns = {field.name: str(field.type) for field in value.schema}
        return {"rows": value.num_rows, "columns": columns}

    def load(self, directory: Path, metadata: Metadata) -> Any:
        pa = _arrow()
        with pa.ipc.open_file(pa.memory_map(os.fspath(directory / self._FILE))) as reader:
            return reader.read_all()


class TorchCodec(BuiltIn):
    """Stores tensors in the format of safetensors. They are loaded on the CPU."""

    name, library, needs = "torch", "torch", ("safetensors",)
    _FILE = "tensor.safetensors"

    def handles(self, declared: type) -> bool:
        return self.is_of_library(declared) and declared.__name__ == "Tensor"

    def save(self, value: Any, directory: Path) -> Metadata:
        save_file = import_module("safetensors.torch").save_file

        if value.requires_grad or value.is_sparse or value.is_quantized:
            raise FuruResultError(
                "safetensors holds plain tensors only: write x.detach(), x.to_dense() or x.dequantize()"
            )
        plain = value.resolve_conj().resolve_neg().contiguous()
        save_file({"tensor": plain}, os.fspath(directory / self._FILE))
        return {"shape": list(value.shape), "dtype": str(value.dtype)}

    def load(self, directory: Path, metadata: Metadata) -> Any:
        load_file = import_module("safetensors.torch").load_file

        return load_file(os.fspath(directory / self._FILE))["tensor"]


class ImageCodec(BuiltIn):
    """Stores images of PIL as PNG files. Their pixels, palette and mode are kept, and nothing else."""

    name, library = "image", "PIL"
    _FILE = "image.png"
    _MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")

    def handles(self, declared: type) -> bool:
        return self.is_of_library(declared) and any(
            base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in declared.__mro__
        )

    def save(self, value: Any, directory: Path) -> Metadata:
        if value.mode not in self._MODES:
            raise FuruResultError(
                f"PNG cannot hold an image of mode {value.mode}: write x.convert('RGB') or another of "
                f"{', '.join(self._MODES)}"
            )
        value.save(directory / self._FILE, format="PNG")
        return {"width": value.width, "height": value.height, "mode": value.mode}

    def load(self, directory: Path, metadata: Metadata) -> Any:
        content = io.BytesIO((directory / self._FILE).read_bytes())
        # Not `Image.open`, which refuses large images: this file's digest is known.
        with import_module("PIL.PngImagePlugin").PngImageFile(content) as image:
            copied = image.copy()
        return copied if copied.mode == metadata["mode"] else copied.convert(metadata["mode"])


class BytesCodec(BuiltIn):
    """Stores large `bytes` as they are. Small ones are part of the JSON."""

    name, library = "bytes", "builtins"
    _FILE = "content"

    def handles(self, declared: type) -> bool:
        return False  # chosen by the size of a value, not by its type

    def save(self, value: bytes, directory: Path) -> Metadata:
        (directory / self._FILE).write_bytes(value)
        return {}

    def load(self, directory: Path, metadata: Metadata) -> bytes:
        return (directory / self._FILE).read_bytes()


BUILT_IN: tuple[Codec[Any], ...] = (
    NumpyCodec(),
    PandasCodec(),
    PolarsCodec(),
    ArrowCodec(),
    TorchCodec(),
    ImageCodec(),
    BytesCodec(),
)
