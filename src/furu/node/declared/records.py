"""Conversion of the fields of dataclasses, msgspec structs, attrs classes and named tuples.

A value with a field that must be converted is copied. The caller's object is never modified.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from furu._common.annotations import arguments_by_variable, defining_class, substituted, type_arguments
from furu._common.shapes import all_field_names
from furu.node.declared.mismatch import Convert, Mismatch, converted

__all__ = ["record_converter"]

Converter = Callable[[Any], Convert]


def record_converter(declared: Any, cls: type, arguments: tuple[Any, ...], converter: Converter) -> Convert:
    """Return the converter to a class with fields. `arguments` are the type arguments of the class."""
    given = arguments_by_variable(cls, arguments)
    known: dict[type, dict[str, Convert]] = {}

    def convert(value: Any) -> Any:
        if not isinstance(value, cls):
            raise Mismatch(declared, value)
        kind = type(value)  # a subclass may have more fields
        if kind not in known:
            known[kind] = _field_converters(kind, given, converter)
        changes: dict[str, Any] = {}
        for name, convert_field in known[kind].items():
            try:
                old = getattr(value, name)
            except AttributeError:  # identity reports it
                continue
            new = converted(old, convert_field, f".{name}")
            if new is not old:
                changes[name] = new
        return _copy(declared, value, changes) if changes else value

    return convert


def _copy(declared: Any, value: Any, changes: dict[str, Any]) -> Any:
    hint = "make it with values of exactly the types that its fields declare"
    try:
        copied = _changed(value, changes)
    except Exception as error:  # from the class's constructor
        raise Mismatch(declared, value, hint) from error
    if any(getattr(copied, name) is not new for name, new in changes.items()):
        raise Mismatch(declared, value, hint)  # the class's constructor converts the value back
    return copied


def _field_converters(cls: type, given: dict[TypeVar, Any], converter: Converter) -> dict[str, Convert]:
    """Return a converter for each field. If annotations of the class cannot be evaluated, return none: the
    class is not furu's to judge."""
    try:
        hints = typing.get_type_hints(cls)
    except Exception:
        return {}
    arguments = type_arguments(cls, given)
    names = [name for name in all_field_names(cls) or () if name in hints]
    known = {name: arguments.get(defining_class(cls, name), given) for name in names}
    return {name: converter(substituted(hints[name], known[name])) for name in names}


def _changed(value: Any, changes: dict[str, Any]) -> Any:
    """Return a copy of a value with other values in some fields.

    The class's own constructor makes the copy, so that what it works out from the fields is right.
    """
    cls = type(value)
    if isinstance(value, tuple):  # a named tuple, whose own `__new__` may take other arguments
        items = {**dict(zip(all_field_names(cls) or (), value, strict=True)), **changes}
        return tuple.__new__(cls, items.values())
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **changes)
    if dataclasses.is_dataclass(cls):
        taken = {field.name for field in dataclasses.fields(cls) if field.init}
        replace: Callable[..., Any] = dataclasses.replace
    else:
        taken = {field.name for field in getattr(cls, "__attrs_attrs__") if field.init}  # noqa: B009
        replace = sys.modules["attr"].evolve
    given = {name: new for name, new in changes.items() if name in taken}
    copied = replace(value, **given) if given else copy.copy(value)
    for name in changes.keys() - taken:
        object.__setattr__(copied, name, changes[name])
    return copied
