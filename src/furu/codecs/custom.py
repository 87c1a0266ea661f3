"""Classes that msgspec does not know: which of them furu converts, and how they are decoded."""

from __future__ import annotations

import functools
import types
import typing
from pathlib import PurePath
from typing import Any

import msgspec

from furu._common.annotations import array_items, type_text
from furu._common.shapes import is_pydantic_model
from furu.codecs.models import fits_model, model_from

__all__ = ["MixedUnion", "convert_custom", "decode_as", "decodable", "is_converted", "is_numpy_scalar"]


class MixedUnion(type):
    """A class that stands for a union which msgspec does not decode: of a class that it does not know, and
    anything but None. `custom` are the members that it does not know, and `plain` is the union of the
    others, None if there are none."""

    declared: Any
    custom: tuple[Any, ...]
    plain: Any

    def __instancecheck__(cls, value: Any) -> bool:
        return True  # `convert_custom` has checked the value

    def converted(cls, data: Any) -> Any:
        """Return data as the member that it fits."""
        for member in cls.custom:
            if isinstance(data, typing.get_origin(member) or member):
                return convert_custom(member, data)
        # A model that has exactly these fields is tried before a dict that could hold them, too.
        for member in (one for one in cls.custom if fits_model(one, data)):
            try:
                return convert_custom(member, data)
            except (ValueError, TypeError):
                continue
        if cls.plain is not None:
            try:
                return decode_as(cls.plain, data)
            except msgspec.ValidationError:
                pass
        for member in cls.custom:
            try:
                return convert_custom(member, data)
            except (ValueError, TypeError):
                continue
        raise TypeError(f"Expected `{type_text(cls.declared)}`, got `{type(data).__qualname__}`")


def decode_as(declared: Any, data: Any) -> Any:
    """Decode plain data, in which values of parts stand as they are, as a declared type.

    Raises `msgspec.ValidationError` if the data does not fit.
    """
    return msgspec.convert(data, decodable(declared), str_keys=True, dec_hook=convert_custom)


def convert_custom(declared: Any, data: Any) -> Any:
    """Decode data as a class that msgspec does not know. Values of parts are passed as they are.

    Raises `ValueError` or `TypeError` if the data does not fit.
    """
    if isinstance(declared, MixedUnion):
        return declared.converted(data)
    cls = typing.get_origin(declared) or declared
    if not isinstance(cls, type):
        return data
    if isinstance(data, cls):
        items = array_items(typing.get_args(declared))
        if items is not object and not issubclass(getattr(data, "dtype").type, items):  # noqa: B009
            raise TypeError(f"Expected an array of `{items.__name__}`, got another type of items")
        return data
    if is_pydantic_model(cls):
        return model_from(cls, data, decode_as)
    if is_numpy_scalar(cls):
        return cls(data)
    raise TypeError(f"Expected `{cls.__qualname__}`, got `{type(data).__qualname__}`")


def is_converted(cls: Any) -> bool:
    """Whether furu itself converts values of a class to plain data."""
    cls = typing.get_origin(cls) or cls
    if not isinstance(cls, type):
        return False
    return cls is complex or issubclass(cls, PurePath) or is_pydantic_model(cls) or is_numpy_scalar(cls)


def is_numpy_scalar(cls: type) -> bool:
    """Whether a class is one of numpy's numbers, bool or strings, which Python has too."""
    if cls.__module__ != "numpy" or cls.__name__ in ("longdouble", "clongdouble"):
        return False
    bases = {base.__name__ for base in cls.__mro__}
    return bool(bases & {"number", "bool", "bool_", "str_", "bytes_"}) and "timedelta64" not in bases


def decodable(declared: Any) -> Any:
    """Return a type that msgspec can decode: with a class for each union that it does not decode itself."""
    try:
        return _decodable(declared)
    except TypeError:  # it is not hashable
        return _decodable.__wrapped__(declared)


@functools.lru_cache(maxsize=1024)
def _decodable(declared: Any) -> Any:
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        custom = tuple(member for member in members if _is_custom(member))
        if custom and len(members) > 1:
            plain = tuple(member for member in arguments if member not in custom)
            body = {"declared": declared, "custom": custom, "plain": _union(plain)}
            return MixedUnion("Union", (), body)
    if origin is None or not arguments or origin is typing.Literal or _is_custom(declared):
        return declared
    if origin is typing.Annotated:
        inner = (decodable(arguments[0]), *arguments[1:])
    else:
        inner = tuple(one if one is ... else decodable(one) for one in arguments)
    if inner == arguments:
        return declared
    return _union(inner) if origin is types.UnionType else origin[inner]


def _union(members: tuple[Any, ...]) -> Any:
    return typing.Union[members] if members else None  # noqa: UP007


def _is_custom(declared: Any) -> bool:
    """Whether a type is a class that msgspec does not know."""
    try:
        return isinstance(msgspec.inspect.type_info(declared), msgspec.inspect.CustomType)
    except TypeError:
        return False
