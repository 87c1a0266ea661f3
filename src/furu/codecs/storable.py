"""Whether values of a declared type can be stored, which is decided before they are computed."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from furu._common.annotations import type_text
from furu.codecs.custom import is_converted, is_custom, without_mixed_unions
from furu.codecs.registry import codec_for, missing_packages
from furu.errors import FuruUsageError

__all__ = ["check_storable"]

_SETS = (msgspec.inspect.SetType, msgspec.inspect.FrozenSetType)
_UNHASHABLE = (
    msgspec.inspect.ListType,
    msgspec.inspect.SetType,
    msgspec.inspect.DictType,
    msgspec.inspect.TypedDictType,
)
_ADVICE = (
    "Declare plain data, arrays, tables or objects with fields; or define _load() and write files to "
    "self.furu_dir in _create(); or set _codec = 'pickle' on the class; or add a codec with "
    "furu.register_codec"
)


def check_storable(name: str, declared: Any) -> None:
    """Raise `FuruUsageError` if results of a declared type cannot be stored and read back. `name` is the
    class that declares it."""
    try:
        custom = dict.fromkeys(_custom_classes(declared))
    except (TypeError, NameError, AttributeError) as error:
        raise FuruUsageError(
            f"{name} declares a result of {type_text(declared)}, which cannot be read back from JSON: "
            f"{error}. {_ADVICE}."
        ) from error
    for cls in custom:
        if cls is object or is_converted(cls):
            continue
        codec = codec_for(cls)
        if codec is None:
            inside = "" if cls is declared else f", and values of {type_text(cls)} in it"
            raise FuruUsageError(
                f"{name} declares a result of {type_text(declared)}{inside}, which no codec stores. "
                f"{_ADVICE}."
            )
        missing = missing_packages(codec)
        if missing:
            raise FuruUsageError(
                f"{name} declares a result of {type_text(declared)}, which furu stores with the help of "
                f"{' and '.join(missing)}: pip install {' '.join(missing)}"
            )


def _custom_classes(declared: Any) -> Iterator[Any]:
    """Yield the classes in a declared type that msgspec does not know. Raises `TypeError` for a type that
    it cannot decode."""
    for member in _members_of_mixed_unions(declared):
        yield from _custom_classes(member)
    pending: list[Any] = [msgspec.inspect.type_info(without_mixed_unions(declared))]
    seen: set[int] = set()
    while pending:
        info = pending.pop()
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.CustomType):
            yield info.cls
        elif isinstance(info, _SETS) and isinstance(info.item_type, _UNHASHABLE):
            raise TypeError("a set cannot hold lists, sets or dicts")
        elif isinstance(info, msgspec.inspect.Type):
            for value in (getattr(info, name) for name in info.__struct_fields__):
                inside = value if isinstance(value, tuple) else (value,)
                for one in inside:
                    pending.append(one.type if isinstance(one, msgspec.inspect.Field) else one)


def _members_of_mixed_unions(declared: Any) -> Iterator[Any]:
    pending = [declared]
    while pending:
        one = pending.pop()
        if typing.get_origin(one) in (typing.Union, types.UnionType) and without_mixed_unions(one) is Any:
            yield from typing.get_args(one)
        elif not is_custom(one):
            pending += [inside for inside in typing.get_args(one) if inside is not ...]
