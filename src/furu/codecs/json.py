"""Encodes results as JSON, and decodes them as the type that the class declares.

A value is stored only if decoding it gives an equal value. So every later load returns a value equal to the
one that `_create` returned.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import msgspec

from furu.codecs.declared import refuse_awaitable
from furu.errors import FuruResultError, FuruUsageError

_ADVICE = (
    "Return plain data that fits the declared type, or define _load() and write files to "
    "self.furu_dir in _create(), or set _codec = 'pickle' on the class"
)


def encode_json(cls: type, declared: Any, value: Any, max_bytes: int) -> tuple[bytes, Any]:
    """Return a result as JSON, and the value that decoding this JSON gives.

    Raises `FuruResultError` if that value is not equal to the result, or if the result cannot be stored.
    """
    name = cls.__qualname__
    try:
        content = _encoder.encode(value)
    except Exception as error:  # the value's methods may raise anything
        refuse_awaitable(name, value)
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
            f"{name}._create() returned a value that changes when it is read back as {_show(declared)}: "
            f"{_first_difference(value, read_back)}. Declare a more exact type as T in Furu[T], or: "
            f"{_ADVICE}."
        )
    return content, read_back


def decode_json(cls: type, declared: Any, content: bytes | msgspec.Raw) -> Any:
    """Decode a result. Raises `msgspec.ValidationError` if the JSON does not fit the declared type."""
    return _decoder(cls, declared).decode(content)


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


def _holds_nan_or_infinity(value: Any) -> bool:
    """Whether an encodable value contains NaN or infinity, which become null in JSON."""
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
    """Whether two values are equal by `==`. 1 equals 1.0, so an int is accepted for a float. A list does
    not equal a tuple."""
    try:
        return bool(left == right)
    except Exception:  # if a user's __eq__ raises, the values do not count as equal
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
