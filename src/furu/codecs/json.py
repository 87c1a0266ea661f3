"""Encodes plain results as JSON, and decodes them as the type that the class declares.

A value is stored only if decoding it gives an equal value. So every later load returns a value equal to the
one that `_create` returned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from furu._common.annotations import type_text
from furu.codecs.custom import convert_custom, without_mixed_unions
from furu.codecs.declared import refuse_awaitable
from furu.errors import FuruResultError, FuruUsageError

__all__ = ["ADVICE", "decode_json", "encode_json", "first_difference"]

ADVICE = (
    "Return plain data that fits the declared type, or define _load() and write files to "
    "self.furu_dir in _create(), or set _codec = 'pickle' on the class"
)


def encode_json(cls: type, declared: Any, value: Any, max_bytes: int) -> tuple[bytes, Any]:
    """Return a result as JSON, and the value that decoding this JSON gives.

    Raises `FuruResultError` if that value is not equal to the result, or if the result cannot be stored.
    """
    name, expected = cls.__qualname__, type_text(declared)
    try:
        content = _encoder.encode(value)
    except Exception as error:  # the value's methods may raise anything
        refuse_awaitable(name, value)
        raise FuruResultError(
            f"{name}._create() returned a {type(value).__qualname__} that JSON cannot hold: {error}. "
            f"{ADVICE}."
        ) from error
    if len(content) > max_bytes:
        raise FuruResultError(
            f"{name}._create() returned a value of {len(content):,} bytes as JSON, more than the "
            f"{max_bytes:,} of the setting max_result_bytes. {ADVICE}."
        )
    try:
        read_back = decode_json(cls, declared, content)
    except msgspec.ValidationError as error:
        if value is None:
            raise FuruResultError(
                f"{name}._create() returned None, but declares {expected}: is a `return` missing?"
            ) from error
        raise FuruResultError(
            f"{name}._create() returned a value that does not fit its declared {expected}: "
            f"{error}. {ADVICE}."
        ) from error
    if not _equal(read_back, value):
        raise FuruResultError(
            f"{name}._create() returned a value that changes when it is read back as {expected}: "
            f"{first_difference(value, read_back, _equal)}. Declare a more exact type as T in Furu[T], or: "
            f"{ADVICE}."
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
            f"{cls.__qualname__} declares a result of {type_text(declared)}, which cannot be read back "
            f"from JSON: {error}. {ADVICE}."
        ) from error


@functools.lru_cache(maxsize=1024)
def _cached_decoder(declared: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(without_mixed_unions(declared), dec_hook=convert_custom)


def _equal(left: Any, right: Any) -> bool:
    """Whether two values are equal by `==`. 1 equals 1.0, so an int is accepted for a float. A list does
    not equal a tuple."""
    try:
        return bool(left == right)
    except Exception:  # if a user's __eq__ raises, the values do not count as equal
        return False


def first_difference(value: Any, read_back: Any, equal: Callable[[Any, Any], bool]) -> str:
    """Return the place at which two values differ, and what stands there, for messages."""
    where = ""
    while type(value) is type(read_back):
        if isinstance(value, dict) and value.keys() == read_back.keys():
            steps = [(f"[{key!r}]", value[key], read_back[key]) for key in value]
        elif isinstance(value, (list, tuple)) and len(value) == len(read_back):
            steps = [(f"[{i}]", old, read_back[i]) for i, old in enumerate(value)]
        else:
            break
        step = next((step for step in steps if not equal(step[1], step[2])), None)
        if step is None:
            break
        where += step[0]
        value, read_back = step[1:]
    return f"value{where} is {_short(value)} and would come back as {_short(read_back)}"


def _short(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{text} ({type(value).__qualname__})"
