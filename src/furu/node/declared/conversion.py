"""Converts values to the types that are declared for them.

A value of the declared type stays as it is. A few others are converted, always to an equal value: an int or
a numpy number to a float, a list to a tuple, a str to a path. So one configuration has one form, and one
hash. Every other value is refused: nothing is parsed or rounded.

Libraries are recognised by the names of their modules. Nothing is imported here to check a value.
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from furu._common.annotations import arguments_by_variable, substituted
from furu._common.shapes import all_field_names
from furu.codecs.declared import result_type
from furu.errors import FuruUsageError
from furu.node.base import Node
from furu.node.declared.containers import CONTAINERS, array_converter, typed_dict_converter
from furu.node.declared.mismatch import Convert, Make, Mismatch, check_if, unwrapped
from furu.node.declared.nodes import is_assignable
from furu.node.declared.records import record_converter
from furu.node.declared.scalars import SCALARS, number_converter, path_converter

__all__ = ["converter"]


def converter(declared: Any) -> Convert:
    """Return a function that converts a value to a declared type, or raises `Mismatch`.

    The function returns the same object if there is nothing to convert. Values whose declared type is Any
    or a type variable stay as they are.
    """
    if declared is Any or declared is object or isinstance(declared, TypeVar):
        return _unchanged
    if isinstance(declared, typing.NewType):
        return converter(declared.__supertype__)
    origin = typing.get_origin(declared) or declared
    arguments = typing.get_args(declared)
    if hasattr(origin, "__value__"):  # `type Rate = float`, which may refer to itself
        return _late(lambda: converter(origin.__value__[arguments] if arguments else origin.__value__))
    if origin is None:
        origin = type(None)
    if origin in SCALARS:
        return SCALARS[origin]
    if origin in _FORMS:
        return _FORMS[origin](declared, arguments, converter)
    return _class_converter(declared, origin, arguments) if isinstance(origin, type) else _unchanged


def _class_converter(declared: Any, cls: Any, arguments: tuple[Any, ...]) -> Convert:
    """Return the converter to a class that has no entry in a table."""
    if issubclass(cls, Node):
        return _node_converter(declared, cls, arguments)
    if issubclass(cls, enum.Enum):
        return _enum_converter(cls)
    if issubclass(cls, pathlib.PurePath):
        return path_converter(cls)
    if typing.is_typeddict(cls):
        return _late(lambda: typed_dict_converter(cls, converter))
    if all_field_names(cls) is not None:
        return record_converter(declared, cls, arguments, converter)
    if cls.__module__ == "numpy" and cls.__name__ == "ndarray":
        return array_converter(declared, cls, arguments)
    if cls.__module__ == "numbers":
        return number_converter(cls)
    if getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False):
        return _unchanged  # Python cannot check it
    return check_if(declared, lambda value: isinstance(value, cls))


def _unchanged(value: Any) -> Any:
    return value


def _late(make: Callable[[], Convert]) -> Convert:
    """Return a converter that is made when it is first used."""
    made: list[Convert] = []

    def convert(value: Any) -> Any:
        if not made:
            made.append(make())
        return made[0](value)

    return convert


def _node_converter(declared: Any, cls: type[Node[Any]], arguments: tuple[Any, ...]) -> Convert:
    """Return the converter to a node. With a type argument, the node's result must fit it."""
    if not arguments:
        return check_if(declared, lambda value: isinstance(value, cls))
    wanted = substituted(result_type(cls, Node), arguments_by_variable(cls, arguments))

    def accepts(value: Any) -> bool:
        if not isinstance(value, cls):
            return False
        try:
            given = type(value)._facts.result_type
        except FuruUsageError:  # the annotation cannot be evaluated
            return True
        return is_assignable(given, wanted)

    return check_if(declared, accepts)


def _enum_converter(cls: type[enum.Enum]) -> Convert:
    members = ", ".join(f"{cls.__qualname__}.{name}" for name in list(cls.__members__)[:20])
    return check_if(cls, lambda value: isinstance(value, cls), f"its members are {members}")


def _literal(declared: Any, choices: tuple[Any, ...], converter: Callable[[Any], Convert]) -> Convert:
    def convert(value: Any) -> Any:
        plain = unwrapped(value)
        if isinstance(plain, str) and type(plain) is not str and not isinstance(plain, enum.Enum):
            plain = str.__str__(plain)
        for choice in choices:
            if type(plain) is type(choice) and plain == choice:
                return choice
        raise Mismatch(declared, value)

    return convert


def _union(declared: Any, members: tuple[Any, ...], converter: Callable[[Any], Convert]) -> Convert:
    """Return the converter to a union: to the member that accepts the value unchanged, or else to the first
    that can convert it."""
    converters = [converter(member) for member in members]

    def convert(value: Any) -> Any:
        candidates: list[Any] = []
        plain = unwrapped(value)
        for form in (value,) if plain is value else (value, plain):
            for convert_to_member in converters:
                try:
                    candidate = convert_to_member(form)
                except Mismatch:
                    continue
                if candidate is form:
                    return form
                candidates.append(candidate)
        if candidates:
            return candidates[0]
        raise Mismatch(declared, value)

    return convert


def _type(declared: Any, arguments: tuple[Any, ...], converter: Callable[[Any], Convert]) -> Convert:
    members = typing.get_args(arguments[0]) or arguments[:1] if arguments else ()
    bases = tuple(base for base in members if isinstance(base, type))
    return check_if(
        declared, lambda value: isinstance(value, type) and (not bases or issubclass(value, bases))
    )


def _of_argument(declared: Any, arguments: tuple[Any, ...], converter: Callable[[Any], Convert]) -> Convert:
    return converter(arguments[0] if arguments else Any)


_FORMS: Mapping[Any, Make] = {
    typing.Annotated: _of_argument,
    typing.Final: _of_argument,
    typing.Required: _of_argument,
    typing.NotRequired: _of_argument,
    typing.Union: _union,
    types.UnionType: _union,
    typing.Literal: _literal,
    type: _type,
    **CONTAINERS,
}
