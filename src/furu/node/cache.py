"""The cache of loaded values in the memory of this process.

A reader must not be able to change what another reader gets. So these values are kept:

- values that nothing can change: numbers, texts, bytes, dates, enums, and tuples, frozensets, frozen
  dataclasses and frozen structs of them; also pyarrow tables. All readers share one object.
- read-only numpy arrays, such as mapped ones. Each reader gets a view of memory that cannot be written.
- pandas and polars frames and series. Each reader gets a copy; the columns of a polars copy are shared,
  because nothing can change them.

Other values are loaded again for each reader: lists, dicts, and objects of unknown classes. So are values
that are too small to be worth it, and values that a class's own `_load` returns, which may read anything.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import functools
import pathlib
import sys
import types
import typing
import uuid
import weakref
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from furu._common.shapes import field_names, shape_of
from furu.node.base import ClassFacts, Node, overrides
from furu.store.artifact import Artifact, Done
from furu.store.local import this_process

T = TypeVar("T")

# Smaller values are read as fast as they are found here. If the first values of a class are that small, its
# values are not looked up any more.
_SMALL_BYTES = 2**10
_SMALL_VALUES = 32
# Small values that nothing can change.
_SCALARS = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        complex,
        dt.date,
        dt.datetime,
        dt.time,
        dt.timedelta,
        dt.timezone,
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
        zoneinfo.ZoneInfo,
        range,
    }
)
_LEAVES = _SCALARS | {str, bytes, pathlib.PosixPath, pathlib.PurePosixPath}
_MODIFIABLE = (list, dict, set, bytearray)


class _Kept(NamedTuple):
    """A value in the cache, its approximate size, and a function that copies it for a reader."""

    value: Any
    size_bytes: int
    copy: Callable[[Any], Any] | None = None

    def for_reader(self) -> Any:
        """Return the value, or a copy or view of it."""
        return self.value if self.copy is None else self.copy(self.value)


def load_shared(node: Node[T], artifact: Artifact, read: Callable[[], T]) -> T:
    """Return a node's value from the cache, or else from `read`, and keep it if it can be shared.

    If several threads ask for a value that is not in the cache, one of them reads it.
    """
    facts, limit_bytes = type(node)._facts, artifact.settings.cache_limit_bytes
    if facts.is_cached is None:
        facts.is_cached = _may_be_shared(type(node))
    if not facts.is_cached or not limit_bytes:
        return read()
    # Looked at before reading, so that a value is never kept for a later artifact.
    done, identity = artifact.look_at_done()
    if done is not Done.PUBLISHED:
        return read()
    memory = this_process().loaded
    # Part of the key is the class, because one that is defined again may declare another type.
    key = (weakref.ref(type(node)), artifact.files.done)
    kept: _Kept | None = memory.find(key, identity)
    if kept is None and memory.begin(key):
        try:
            value = read()
            new = _kept(value, limit_bytes)
            if new is None:
                facts.is_cached = False  # other values of the class can probably be modified too
            elif _is_worth_keeping(facts, new.size_bytes) and new.size_bytes <= limit_bytes:
                memory.keep(key, identity, new, new.size_bytes, limit_bytes)
                return cast(T, new.for_reader())
            return value
        finally:
            memory.end(key)
    kept = kept or memory.find(key, identity)
    return read() if kept is None else cast(T, kept.for_reader())


def _is_worth_keeping(facts: ClassFacts, size_bytes: int) -> bool:
    """Whether to keep a value of a class. Gives up on a class whose first values are all small."""
    if size_bytes >= _SMALL_BYTES:
        facts.small_values = -sys.maxsize
        return True
    facts.small_values += 1
    facts.is_cached = facts.small_values < _SMALL_VALUES
    return False


# ---- which classes ----


def _may_be_shared(cls: type[Node[Any]]) -> bool:
    """Whether values of a node class may be worth keeping, according to the class and its result type."""
    if overrides(cls, "_load"):
        return False
    try:
        return _kind(cls._facts.result_type, 0) == "large"
    except Exception:  # loading reports what is wrong with the type
        return False


def _kind(declared: Any, depth: int) -> typing.Literal["small", "large", "modifiable"]:
    """Whether values of a declared type are always small, may be large, or can be modified."""
    origin = typing.get_origin(declared) or declared
    if origin in _SCALARS or declared is None or origin is typing.Literal:
        return "small"
    if not isinstance(origin, type) or depth > 20:
        inside = typing.get_args(declared) if origin in (typing.Union, typing.Annotated) else ()
        return _of_all(inside, depth) if inside else "large"
    if origin is types.UnionType:
        # One of the types may be one that can be modified; the value decides.
        kinds = {_kind(member, depth + 1) for member in typing.get_args(declared)}
        return "large" if "large" in kinds else _of_all(typing.get_args(declared), depth)
    if issubclass(origin, _MODIFIABLE):
        return "modifiable"
    if issubclass(origin, enum.Enum):
        return "small"
    if origin in (tuple, frozenset):
        arguments = typing.get_args(declared)
        is_fixed = origin is tuple and arguments and arguments[-1] is not ...
        kind = _of_all([one for one in arguments if one is not ...], depth)
        return kind if is_fixed or kind == "modifiable" else "large"
    shape = shape_of(origin)
    if shape is None:
        return "large"
    if not shape.is_frozen:
        return "modifiable"
    hints = typing.get_type_hints(origin)
    return _of_all([hints.get(name, Any) for name in field_names(origin) or shape.names], depth)


def _of_all(members: Any, depth: int) -> typing.Literal["small", "large", "modifiable"]:
    kinds = {_kind(member, depth + 1) for member in members}
    if "modifiable" in kinds:
        return "modifiable"
    return "large" if "large" in kinds else "small"


# ---- which values ----


def _kept(value: Any, limit_bytes: int) -> _Kept | None:
    """Return what to keep for a value, or None if the value could be modified, or cannot be examined."""
    try:
        library = _library(type(value))
        if library in _LIBRARIES and library in sys.modules:
            return _LIBRARIES[library](sys.modules[library], value)
        size_bytes = _size_if_fixed(value, limit_bytes)
    except Exception:  # from a method of the value; a cache must not make loading fail
        return None
    return None if size_bytes is None else _Kept(value, size_bytes)


def _library(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _size_if_fixed(value: Any, limit_bytes: int) -> int | None:
    """Return the size of a value in memory, or None if something in it can be modified. Stops as soon as
    the size exceeds the limit. An object that occurs several times counts each time."""
    total, pending = 0, [value]
    while pending and total <= limit_bytes:
        value = pending.pop()
        kind = type(value)
        if isinstance(value, enum.Enum):
            continue
        total += sys.getsizeof(value)
        if kind in _LEAVES:
            continue
        if kind is tuple or kind is frozenset:
            items = value
        else:
            shape = shape_of(kind)
            if shape is None or not shape.is_frozen or shape.other_state(value) or _keeps_more(value):
                return None
            total += sys.getsizeof(getattr(value, "__dict__", None))
            names = field_names(kind)
            items = value if names is None else [getattr(value, name) for name in names]
        if set(map(type, items)) <= _LEAVES:
            total += sum(map(sys.getsizeof, items))
        else:
            pending += items
    return total


def _keeps_more(value: Any) -> bool:
    """Whether a reader could keep something in a frozen value: in a `functools.cached_property`, or as an
    attribute of a named tuple's subclass."""
    cls = type(value)
    if isinstance(value, tuple) and hasattr(value, "__dict__"):
        return True
    return any(
        isinstance(item, functools.cached_property) for base in cls.__mro__ for item in vars(base).values()
    )


def _kept_array(numpy: Any, array: Any) -> _Kept | None:
    is_array = type(array) in (numpy.ndarray, numpy.memmap)
    if not is_array or array.flags.writeable or array.dtype.hasobject:
        return None
    owner = array
    while isinstance(owner.base, numpy.ndarray):
        owner = owner.base
    if owner.base is None:  # the owner of its data, and any view of it, could be made writable again
        is_c = array.flags.c_contiguous
        data = numpy.frombuffer((array if is_c else array.T).tobytes(), array.dtype)
        array = data.reshape(array.shape) if is_c else data.reshape(array.shape[::-1]).T
    return _Kept(array, int(array.nbytes), lambda array: array.view())


def _kept_in_pandas(pandas: Any, value: Any) -> _Kept | None:
    if type(value) not in (pandas.DataFrame, pandas.Series):
        return None
    is_frame = type(value) is pandas.DataFrame
    columns = [value.iloc[:, number] for number in range(value.shape[1])] if is_frame else [value]
    indexes = [value.index, value.columns] if is_frame else [value.index]
    for part in [*columns, *indexes]:
        # pandas shares the levels of a MultiIndex and the categories of a column between copies.
        if hasattr(part, "levels") or part.dtype.name == "category":
            return None
        if _library(type(part.dtype)) not in ("numpy", "pandas"):
            return None
        if part.dtype == object and not set(map(type, part.array)) <= _LEAVES:
            return None
    used = value.memory_usage(deep=True)
    return _Kept(value, int(used.sum() if is_frame else used), lambda value: value.copy(deep=True))


def _kept_in_polars(polars: Any, value: Any) -> _Kept | None:
    if type(value) not in (polars.DataFrame, polars.Series):
        return None
    dtypes = value.dtypes if type(value) is polars.DataFrame else [value.dtype]
    if any(dtype.is_nested() or dtype == polars.Object for dtype in dtypes):
        return None
    return _Kept(value, int(value.estimated_size()), lambda value: value.clone())


def _kept_in_pyarrow(pyarrow: Any, value: Any) -> _Kept | None:
    fixed = (pyarrow.Table, pyarrow.RecordBatch, pyarrow.Array, pyarrow.ChunkedArray)
    return _Kept(value, int(value.nbytes)) if isinstance(value, fixed) else None


_LIBRARIES: dict[str, Callable[[Any, Any], _Kept | None]] = {
    "numpy": _kept_array,
    "pandas": _kept_in_pandas,
    "polars": _kept_in_polars,
    "pyarrow": _kept_in_pyarrow,
}
