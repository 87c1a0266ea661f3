"""Whether values of a declared type can be stored, which is decided before they are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from furu._common.annotations import type_text
from furu._common.shapes import is_pydantic_model
from furu.codecs.custom import MixedUnion, decodable, is_converted
from furu.codecs.models import model_annotations
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
_NO_KEYS = (
    *_UNHASHABLE,
    msgspec.inspect.CustomType,
    msgspec.inspect.CollectionType,
    msgspec.inspect.VarTupleType,
    msgspec.inspect.TupleType,
    msgspec.inspect.NamedTupleType,
    msgspec.inspect.StructType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.BoolType,
    msgspec.inspect.NoneType,
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
    except RecursionError as error:
        raise FuruUsageError(
            f"{name} declares a result of {type_text(declared)}, which refers to itself: only a class with "
            f"fields may do so. {_ADVICE}."
        ) from error
    except (TypeError, NameError, AttributeError) as error:
        raise FuruUsageError(
            f"{name} declares a result of {type_text(declared)}, which cannot be read back from JSON: "
            f"{error}. {_ADVICE}."
        ) from error
    for cls in custom:
        if cls is object or is_converted(cls):
            continue
        codec = codec_for(cls)
        if codec is None or _is_memmap(cls):
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


def _is_memmap(cls: Any) -> bool:
    """Whether a class is `numpy.memmap`, which is stored, but read back as an array."""
    return getattr(cls, "__module__", "") == "numpy" and cls.__name__ == "memmap"


def _custom_classes(declared: Any) -> Iterator[Any]:
    """Yield the classes in a declared type that msgspec does not know. Raises `TypeError` for a type that
    it cannot decode."""
    pending: list[Any] = [declared]
    models: set[Any] = set()
    while pending:
        for cls in _custom_classes_of(pending.pop()):
            if isinstance(cls, MixedUnion):
                pending += [*cls.custom, cls.plain]
            elif not is_pydantic_model(cls):
                yield cls
            elif cls not in models:
                models.add(cls)
                pending += model_annotations(cls).values()


def _custom_classes_of(declared: Any) -> Iterator[Any]:
    """Yield the custom classes in a type, without looking into models and unions among them."""
    pending: list[Any] = [msgspec.inspect.type_info(decodable(declared))]
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
        elif isinstance(info, msgspec.inspect.DictType) and isinstance(info.key_type, _NO_KEYS):
            raise TypeError(
                "the keys of a dict must be text, numbers, dates or enums in JSON; return a list of pairs"
            )
        elif isinstance(info, msgspec.inspect.Type):
            for value in (getattr(info, name) for name in info.__struct_fields__):
                inside = value if isinstance(value, tuple) else (value,)
                for item in inside:
                    pending.append(item.type if isinstance(item, msgspec.inspect.Field) else item)
