"""Whether a node may be the value of a field that declares a node with a type argument."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["is_assignable"]

# Types whose values PEP 484 accepts where a wider number is declared.
_NARROWER: dict[Any, tuple[type, ...]] = {float: (int,), complex: (int, float)}


def is_assignable(given: Any, wanted: Any) -> bool:
    """Whether values of one type are values of another, as far as can be told. In doubt they are.

    Type arguments are compared as if all generic classes were covariant.
    """
    try:
        return _is_assignable(given, wanted)
    except RecursionError:  # a type alias that refers to itself
        return True


def _is_assignable(given: Any, wanted: Any) -> bool:
    if any(one is Any or isinstance(one, TypeVar) for one in (given, wanted)):
        return True
    given, wanted = _without_extras(given), _without_extras(wanted)
    if _is_union(given):
        return all(_is_assignable(member, wanted) for member in typing.get_args(given))
    if _is_union(wanted):
        return any(_is_assignable(given, member) for member in typing.get_args(wanted))
    given_class, wanted_class = _class_of(given), _class_of(wanted)
    if typing.get_origin(given) is typing.Literal:
        if typing.get_origin(wanted) is typing.Literal:
            return set(typing.get_args(given)) <= set(typing.get_args(wanted))
        return all(_is_assignable(type(choice), wanted) for choice in typing.get_args(given))
    if typing.get_origin(wanted) is typing.Literal:
        return False
    if not (isinstance(given_class, type) and isinstance(wanted_class, type)):
        return True
    if issubclass(given_class, _NARROWER.get(wanted_class, ())):
        return True
    try:
        if not issubclass(given_class, wanted_class):
            return False
    except TypeError:  # a protocol, which Python cannot check
        return True
    arguments = typing.get_args(given), typing.get_args(wanted)
    if given_class is wanted_class:
        return _arguments_fit(*arguments)
    # The type arguments of a built-in class mean the same for the abstract classes above it.
    if given_class.__module__ != "builtins":
        return True
    if issubclass(given_class, dict) and not issubclass(wanted_class, Mapping):  # its items are its keys
        return _items_fit(arguments[0][:1], arguments[1])
    return _items_fit(*arguments)


def _arguments_fit(given: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    """Whether the type arguments of one class fit. An open tuple, `tuple[int, ...]`, fits any length."""
    if ... in given or ... in wanted:
        return _items_fit(given, tuple(one for one in wanted if one is not ...))
    if len(given) != len(wanted):
        return not (given and wanted)
    return all(_is_assignable(one, other) for one, other in zip(given, wanted, strict=True))


def _items_fit(given: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    """Whether the items of a container fit those of another kind of container."""
    given = tuple(one for one in given if one is not ...)
    if len(wanted) == 1:
        return all(_is_assignable(one, wanted[0]) for one in given)
    return len(given) != len(wanted) or _arguments_fit(given, wanted)


def _without_extras(declared: Any) -> Any:
    while True:
        if isinstance(declared, typing.NewType):
            declared = declared.__supertype__
        elif typing.get_origin(declared) is typing.Annotated:
            declared = typing.get_args(declared)[0]
        elif hasattr(declared, "__value__"):
            declared = declared.__value__
        else:
            return type(None) if declared is None else declared


def _is_union(declared: Any) -> bool:
    return typing.get_origin(declared) in (typing.Union, types.UnionType)


def _class_of(declared: Any) -> Any:
    return typing.get_origin(declared) or declared
