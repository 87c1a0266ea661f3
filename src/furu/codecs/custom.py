"""Classes that msgspec does not know: which of them furu converts, and how they are decoded."""

from __future__ import annotations

import functools
import types
import typing
from pathlib import PurePath
from typing import Any

import msgspec

from furu._common.shapes import is_pydantic_model

__all__ = ["convert_custom", "is_converted", "is_custom", "without_mixed_unions"]


def convert_custom(declared: Any, data: Any) -> Any:
    """Decode data as a class that msgspec does not know. Values of parts are passed as they are.

    Raises `ValueError` or `TypeError` if the data does not fit.
    """
    cls = typing.get_origin(declared) or declared
    if not isinstance(cls, type) or isinstance(data, cls):
        return data
    if is_pydantic_model(cls):
        return cls.model_validate(data)  # type: ignore[attr-defined]
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


def without_mixed_unions(declared: Any) -> Any:
    """Return a type in which Any stands for each union that msgspec does not decode: of a class that it
    does not know, and anything but None."""
    try:
        return _without_mixed_unions(declared)
    except TypeError:  # it is not hashable
        return _without_mixed_unions.__wrapped__(declared)


@functools.lru_cache(maxsize=1024)
def _without_mixed_unions(declared: Any) -> Any:
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        if len(members) > 1 and any(is_custom(member) for member in members):
            return Any
    if origin is None or not arguments or origin is typing.Literal or is_custom(declared):
        return declared
    if origin is typing.Annotated:
        plain = (without_mixed_unions(arguments[0]), *arguments[1:])
    else:
        plain = tuple(one if one is ... else without_mixed_unions(one) for one in arguments)
    if plain == arguments:
        return declared
    return typing.Union[plain] if origin is types.UnionType else origin[plain]  # noqa: UP007


def is_custom(declared: Any) -> bool:
    """Whether a type is a class that msgspec does not know."""
    try:
        return isinstance(msgspec.inspect.type_info(declared), msgspec.inspect.CustomType)
    except TypeError:
        return False
