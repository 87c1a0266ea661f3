"""Encodes plain results as JSON, and decodes them as the type that the class declares.

A value is stored only if decoding it gives the same value. So every later load returns what `_create`
returned.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from furu._common.annotations import type_text
from furu.codecs.comparison import first_difference, is_same
from furu.codecs.custom import convert_custom, decodable
from furu.codecs.declared import refuse_awaitable
from furu.errors import FuruResultError, FuruUsageError

__all__ = ["ADVICE", "decode_json", "encode_json"]

ADVICE = (
    "Return plain data that fits the declared type, or define _load() and write files to "
    "self.furu_dir in _create(), or set _codec = 'pickle' on the class"
)


def encode_json(cls: type, declared: Any, value: Any, max_bytes: int) -> tuple[bytes, Any]:
    """Return a result as JSON, and the value that decoding this JSON gives.

    Raises `FuruResultError` if that value is not the same as the result, or if the result cannot be stored.
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
    if not is_same(value, read_back):
        raise FuruResultError(
            f"{name}._create() returned a value that changes when it is read back as {expected}: "
            f"{first_difference(value, read_back)}. Declare a more exact type as T in Furu[T], or: "
            f"{ADVICE}."
        )
    return content, read_back


def decode_json(cls: type, declared: Any, content: bytes | msgspec.Raw) -> Any:
    """Decode a result. Raises `msgspec.ValidationError` if the JSON does not fit the declared type."""
    return _decoder(cls, declared).decode(content)


_encoder = msgspec.json.Encoder()


def _decoder(cls: type, declared: Any) -> msgspec.json.Decoder[Any]:
    try:
        try:
            hash(declared)
        except TypeError:  # what `Annotated` was given is not hashable
            return _cached_decoder.__wrapped__(declared)
        return _cached_decoder(declared)
    except (TypeError, NameError) as error:
        raise FuruUsageError(
            f"{cls.__qualname__} declares a result of {type_text(declared)}, which cannot be read back "
            f"from JSON: {error}. {ADVICE}."
        ) from error


@functools.lru_cache(maxsize=1024)
def _cached_decoder(declared: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(decodable(declared), dec_hook=convert_custom)
