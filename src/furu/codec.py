"""Results as typed JSON, and back as the type that the class declared; and as pickles, for classes that
opted in. Writes no file.

A value is stored only if reading it back gives an equal one, so that what a dependent loads tomorrow is
what `_create` returned today.
"""

from __future__ import annotations

import errno
import functools
import inspect
import math
import os
import stat
import sys
import typing
from typing import Any, TypeVar

import msgspec

from furu.errors import FuruResultError, FuruUsageError
from furu.origin import globals_of
from furu.pickling import Unpickler, dumps, is_main
from furu.text import describe_error

_ADVICE = (
    "Return plain data that fits the declared type, or define _load() and write files to "
    "self.furu_dir in _create(), or set _codec = 'pickle' on the class"
)


def result_type(cls: type, generic_base: type) -> Any:
    """Return the T that a class gave to `Furu[T]`, itself or through generic bases; Any if none."""
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if not isinstance(origin, type) or not issubclass(origin, generic_base):
            continue
        arguments = typing.get_args(base)
        if origin is generic_base:
            declared = arguments[0] if arguments else Any
        else:
            declared = _substitute(result_type(origin, generic_base), origin, arguments)
        if declared is not Any:  # a base that leaves it open leaves it to the others
            return _resolve(declared, cls)
    return Any


def encode_json(cls: type, declared: Any, value: Any, max_bytes: int) -> tuple[bytes, Any]:
    """Return a result as JSON, and as it will be read back.

    Raises `FuruResultError` for a value that would not come back equal.
    """
    name = cls.__qualname__
    try:
        content = _encoder.encode(value)
    except Exception as error:  # msgspec raises what the value's own methods raise
        _refuse_awaitable(name, value)
        raise FuruResultError(
            f"{name}._create() returned a {type(value).__qualname__} that JSON cannot hold: {error}. "
            f"{_ADVICE}."
        ) from error
    if len(content) > max_bytes:
        raise FuruResultError(
            f"{name}._create() returned a value of {len(content):,} bytes as JSON, more than the "
            f"{max_bytes:,} of the setting max_result_bytes. {_ADVICE}."
        )
    try:
        read_back = decode_json(cls, declared, content)
    except msgspec.ValidationError as error:
        if value is None:
            raise FuruResultError(
                f"{name}._create() returned None, but declares {_show(declared)}: is a `return` missing?"
            ) from error
        hint = " (NaN and infinity are null in JSON)" if _holds_nan_or_infinity(value) else ""
        raise FuruResultError(
            f"{name}._create() returned a value that does not fit its declared {_show(declared)}: "
            f"{error}{hint}. {_ADVICE}."
        ) from error
    if not _equal(read_back, value):
        raise FuruResultError(
            f"{name}._create() returned a value that JSON, read back as {_show(declared)}, changes: "
            f"{_first_difference(value, read_back)}. Declare a more exact type as T in Furu[T], or: "
            f"{_ADVICE}."
        )
    return content, read_back


def decode_json(cls: type, declared: Any, content: bytes | msgspec.Raw) -> Any:
    """Return a result from JSON. Raises `msgspec.ValidationError` where it does not fit."""
    return _decoder(cls, declared).decode(content)


def encode_pickle(cls: type, value: Any) -> bytes:
    """Return a result as a pickle. Raises `FuruResultError` for a value that has none."""
    try:
        return dumps(value)
    except Exception as error:  # pickle raises what the value's own methods raise
        _refuse_awaitable(cls.__qualname__, value)
        raise FuruResultError(
            f"{cls.__qualname__}._create() returned a {type(value).__qualname__} that cannot be pickled: "
            f"{describe_error(error)}. Return plain data, or define _load() and write files to "
            "self.furu_dir in _create()."
        ) from error


def decode_pickle(path: str) -> Any:
    """Return a result from the file of a pickle, for a class that opted in. Raises `OSError` for what is no
    regular file: a link is not followed, a FIFO not waited for."""
    with open(path, "rb", opener=_open_regular) as file:
        return _StoredUnpickler(file).load()  # the class opted in


class _StoredUnpickler(Unpickler):
    """Finds classes of this program's main module in it, even if the pickle was written by a program that
    had imported that module. Importing it would run it again and make a second class of each name."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        in_main = module_name not in sys.modules and is_main(module_name)
        return super().find_class("__main__" if in_main else module_name, global_name)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return descriptor


_encoder = msgspec.json.Encoder()


def _decoder(cls: type, declared: Any) -> msgspec.json.Decoder[Any]:
    try:
        return _cached_decoder(declared)
    except (TypeError, NameError) as error:
        raise FuruUsageError(
            f"{cls.__qualname__} declares a result of {_show(declared)}, which cannot be read back from "
            f"JSON: {error}. {_ADVICE}."
        ) from error


@functools.lru_cache(maxsize=1024)
def _cached_decoder(declared: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(declared)


def _refuse_awaitable(name: str, value: Any) -> None:
    """Raise `FuruResultError` for a value that should have been awaited."""
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that it was never awaited
    if inspect.isawaitable(value):
        raise FuruResultError(
            f"{name}._create() returned a {type(value).__qualname__}, which nothing awaits: _create must "
            "be `async def` itself, and await it."
        )


def _holds_nan_or_infinity(value: Any) -> bool:
    """Whether JSON has null in place of a number somewhere in a value that can be encoded."""
    items = [msgspec.to_builtins(value)]
    while items:
        item = items.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return True
        if isinstance(item, dict):
            items += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            items += item
    return False


def _equal(left: Any, right: Any) -> bool:
    """Equal, containers of the same kind included: Python's == says True for 1 and 1.0, which a float
    field makes of an int, and False for a list and a tuple."""
    try:
        return bool(left == right)
    except Exception:  # an == of the user's that raises proves nothing
        return False


def _first_difference(value: Any, read_back: Any) -> str:
    where = ""
    while type(value) is type(read_back):
        if isinstance(value, dict) and value.keys() == read_back.keys():
            steps = [(f"[{key!r}]", value[key], read_back[key]) for key in value]
        elif isinstance(value, (list, tuple)) and len(value) == len(read_back):
            steps = [(f"[{i}]", old, read_back[i]) for i, old in enumerate(value)]
        else:
            break
        step = next((step for step in steps if not _equal(step[1], step[2])), None)
        if step is None:
            break
        where += step[0]
        value, read_back = step[1:]
    return f"value{where} is {_short(value)} and would come back as {_short(read_back)}"


def _short(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{text} ({type(value).__qualname__})"


def _show(declared: Any) -> str:
    return declared.__qualname__ if isinstance(declared, type) else str(declared)


def _substitute(declared: Any, origin: type, arguments: tuple[Any, ...]) -> Any:
    """Put the arguments of a generic base where its own declared type has type variables."""
    parameters = getattr(origin, "__parameters__", ())
    if not parameters or not arguments:
        return declared
    given = dict(zip(parameters, arguments, strict=False))
    if isinstance(declared, TypeVar):
        return given.get(declared, Any)
    inner = getattr(declared, "__parameters__", ())
    return declared[tuple(given.get(p, Any) for p in inner)] if inner else declared


def _resolve(declared: Any, cls: type) -> Any:
    """Resolve names in quotes, where they can be, as Python does for annotations."""
    if isinstance(declared, TypeVar):
        return declared
    holder = type("_Holder", (), {"__annotations__": {"result": declared}})
    names = {**globals_of(cls), cls.__name__: cls}
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)["result"]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise FuruUsageError(
            f"{cls.__qualname__} declares a result of {declared!r}, and that name is not known in "
            f"module {cls.__module__} ({error}). Import it there, or define it at module level."
        ) from error
