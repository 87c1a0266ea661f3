"""Stores a result as typed JSON, with parts in files where JSON is not enough, and reads it back.

Most results are plain data, which msgspec encodes and decodes in one step. Only for others is the data
searched for arrays, tables, paths, NaN and the like.
"""

from __future__ import annotations

import collections.abc as abc
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from furu._common.annotations import type_text
from furu.codecs.comparison import first_difference, is_same
from furu.codecs.custom import decode_as
from furu.codecs.json import ADVICE, decode_json, encode_json
from furu.codecs.parts import LARGE_BYTES, PartReader, PartWriter, descriptions
from furu.errors import FuruResultError

__all__ = ["Encoded", "decode_parts", "described", "encode_result"]


class Encoded(NamedTuple):
    """A result as it is stored, and the value that reading it back gives."""

    codec: Literal["json", "parts"]
    content: bytes
    value: Any


class _Document(msgspec.Struct, frozen=True):
    """A result with placeholders. `key` marks the placeholders in `value`."""

    key: str
    value: Any


_encode = msgspec.json.Encoder().encode
_document = msgspec.json.Decoder(_Document)


def encode_result(
    cls: type, declared: Any, value: Any, directory: Callable[[], str], max_bytes: int
) -> Encoded:
    """Store a result. `directory` returns the directory of the attempt's files, and creates it if needed.

    Raises `FuruResultError` if the result cannot be stored, or if reading it back gives another value.
    """
    problem: FuruResultError | None = None
    try:
        content, loaded = encode_json(cls, declared, value, max_bytes)
        if len(content) <= LARGE_BYTES or not _has_large_bytes(value):
            return Encoded("json", content, loaded)
    except FuruResultError as error:
        problem = error
    writer = PartWriter(directory)
    try:
        tree = writer.mark(
            msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True, enc_hook=writer.convert)
        )
    except FuruResultError as error:
        raise FuruResultError(
            f"{cls.__qualname__}._create() returned a value that cannot be stored: {error}"
        ) from error
    except (NotImplementedError, TypeError, RecursionError):  # JSON cannot hold a value in it
        if problem is None:
            raise
        raise problem from None
    if problem is not None and not writer.has_changed and not _has_any_sequence(declared):
        raise problem
    return _checked(cls, declared, value, writer, tree, directory, max_bytes)


def _checked(
    cls: type,
    declared: Any,
    value: Any,
    writer: PartWriter,
    tree: Any,
    directory: Callable[[], str],
    max_bytes: int,
) -> Encoded:
    name, expected = cls.__qualname__, type_text(declared)
    document = _Document(writer.key, tree) if writer.has_placeholders else tree
    content = _encode(document)
    if len(content) > max_bytes:
        raise FuruResultError(
            f"{name}._create() returned a value of {len(content):,} bytes as JSON, more than the "
            f"{max_bytes:,} of the setting max_result_bytes. {ADVICE}."
        )
    try:
        if writer.has_placeholders:
            encoded = Encoded("parts", content, decode_parts(declared, content, directory))
        else:
            encoded = Encoded("json", content, decode_json(cls, declared, content))
    except msgspec.ValidationError as error:
        raise FuruResultError(
            f"{name}._create() returned a value that does not fit its declared {expected}: "
            f"{error}. {ADVICE}."
        ) from error
    any_sequence = _has_any_sequence(declared)
    if not is_same(value, encoded.value, any_sequence=any_sequence):
        difference = first_difference(value, encoded.value, any_sequence=any_sequence)
        raise FuruResultError(
            f"{name}._create() returned a value that changes when it is read back as {expected}: "
            f"{difference}. Declare a more exact type as T in Furu[T], or: {ADVICE}."
        )
    return encoded


def decode_parts(declared: Any, content: bytes | msgspec.Raw, directory: Callable[[], str]) -> Any:
    """Read back a result with placeholders. `directory` returns the directory of the artifact's files.

    Raises `msgspec.ValidationError` if the data does not fit the declared type, and `FuruStoreError` if a
    part is damaged.
    """
    document = _document.decode(content)
    data = PartReader(document.key, directory).resolve(document.value)
    return decode_as(declared, data)


def described(codec: str | None, content: bytes) -> bytes:
    """Return a stored result as JSON for people, in which a text describes each part. Nothing is loaded. A
    damaged result is returned as it is."""
    if codec != "parts":
        return content
    try:
        document = _document.decode(content)
        return _encode(descriptions(document.key, document.value))
    except (msgspec.MsgspecError, TypeError, AttributeError, LookupError, ValueError, RecursionError):
        return content


def _has_any_sequence(declared: Any) -> bool:
    """Whether a declared type contains an abstract sequence, for which lists and tuples are alike."""
    origin = typing.get_origin(declared) or declared
    inside = typing.get_args(declared)
    return origin in (abc.Sequence, abc.Collection, abc.Iterable) or any(map(_has_any_sequence, inside))


def _has_large_bytes(value: Any) -> bool:
    pending = [msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True)]
    while pending:
        item = pending.pop()
        if type(item) is bytes and len(item) > LARGE_BYTES:
            return True
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending += item
    return False
