"""Conversion of the fields of dataclasses, msgspec structs, attrs classes and named tuples.

A value with a field that must be converted is copied. The caller's object is never modified.
"""

from __future__ import annotations

import copy
import functools
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from furu._common.annotations import arguments_by_variable, substituted, type_arguments
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
        return _changed(value, changes) if changes else value

    return convert


def _field_converters(cls: type, given: dict[TypeVar, Any], converter: Converter) -> dict[str, Convert]:
    """Return a converter for each field. If annotations of the class cannot be evaluated, return none: the
    class is not furu's to judge."""
    try:
        hints = typing.get_type_hints(cls)
    except Exception:
        return {}
    known = {**type_arguments(cls), **given}
    names = all_field_names(cls) or ()
    return {name: converter(substituted(hints[name], known)) for name in names if name in hints}


def _changed(value: Any, changes: dict[str, Any]) -> Any:
    """Return a copy of a value with other values in some fields."""
    if isinstance(value, tuple):  # a named tuple
        replaced = {**dict(zip(all_field_names(type(value)) or (), value, strict=True)), **changes}
        return type(value)(*replaced.values())
    copied = copy.copy(value)
    if isinstance(value, msgspec.Struct):
        for name, new in changes.items():
            msgspec.structs.force_setattr(copied, name, new)
        return copied
    own = getattr(copied, "__dict__", {})
    for name in list(own):  # what was worked out from the old values
        if isinstance(getattr(type(value), name, None), functools.cached_property):
            del own[name]
    for name, new in changes.items():
        object.__setattr__(copied, name, new)
    return copied
