"""The fields of values, and the state that values keep outside their fields."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterable
from typing import Any

import msgspec

from furu._common.origin import once_a_class


class Shape:
    """Facts about a class with fields. `names` are the fields that count in identity.
    `is_frozen` is True if fields cannot be assigned."""

    def __init__(
        self, cls: type, names: Iterable[str], fields: Iterable[str], *, is_tuple: bool, is_frozen: bool
    ) -> None:
        self.names = tuple(names)
        self.is_tuple = is_tuple
        self.is_frozen = is_frozen
        bodies = [vars(base) for base in cls.__mro__]
        cached = [name for body in bodies for name in body if type(body[name]) is functools.cached_property]
        # Attributes that an instance may have. Calling `Class[int](...)` sets `__orig_class__`.
        self.known = frozenset([*fields, *cached, "__orig_class__"])
        self._other_slots = [
            name
            for body in bodies
            for name in body
            if isinstance(body[name], types.MemberDescriptorType) and name not in self.known
        ]
        self._builtin = None if is_tuple else builtin_base(cls)
        # Whether values can keep state outside `__dict__`.
        self.is_open = bool(is_tuple or self._other_slots or self._builtin)

    def other_state(self, value: Any) -> list[str]:
        """Return the names of attributes and other state that a value keeps outside its fields."""
        others: list[str] = []
        held = getattr(value, "__dict__", None)
        if held and not held.keys() <= self.known:
            others += sorted(held.keys() - self.known)
        if self._other_slots:
            others += [name for name in self._other_slots if hasattr(value, name)]
        if self._builtin:
            others.append(f"what it holds as a {self._builtin.__name__}")
        if self.is_tuple and len(value) != len(self.names):
            others.append("items that no field names")
        return others


@once_a_class
def shape_of(cls: type) -> Shape | None:
    """Return the shape of a class, or None if its values have no fields.

    The shape's names are sorted, except for a named tuple. A dataclass field with `compare=False` does not
    count, just as Python's `==` ignores it; nor does an attrs field with `eq=False`.
    """
    fields = field_names(cls)
    if dataclasses.is_dataclass(cls):
        counting = sorted(field.name for field in dataclasses.fields(cls) if field.compare)
        is_frozen = bool(getattr(cls, "__dataclass_params__").frozen)  # noqa: B009  # every dataclass has it
        return Shape(cls, counting, fields or (), is_tuple=False, is_frozen=is_frozen)
    if fields is not None and issubclass(cls, msgspec.Struct):
        is_frozen = cls.__struct_config__.frozen
        return Shape(cls, sorted(fields), fields, is_tuple=False, is_frozen=is_frozen)
    if fields is not None:
        counting = sorted(one.name for one in getattr(cls, "__attrs_attrs__") if one.eq)  # noqa: B009
        return Shape(cls, counting, fields, is_tuple=False, is_frozen=False)
    names = getattr(cls, "_fields", None) if issubclass(cls, tuple) else None
    return Shape(cls, names, names, is_tuple=True, is_frozen=True) if isinstance(names, tuple) else None


def all_field_names(cls: type) -> tuple[str, ...] | None:
    """Return the names of all fields of a dataclass, struct, attrs class or named tuple, in order; None for
    other classes."""
    names = field_names(cls)
    if names is None and issubclass(cls, tuple):
        named = getattr(cls, "_fields", None)
        names = named if isinstance(named, tuple) else None
    return names


@once_a_class
def field_names(cls: type) -> tuple[str, ...] | None:
    """Return the names of all fields of a dataclass, msgspec struct or attrs class, in order. Returns None
    for other classes."""
    if dataclasses.is_dataclass(cls):
        return tuple([field.name for field in dataclasses.fields(cls)])
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    attributes = getattr(cls, "__attrs_attrs__", None)  # attrs
    return None if attributes is None else tuple(attribute.name for attribute in attributes)


def field_values(value: Any) -> dict[str, Any] | None:
    """Return all fields of a dataclass, msgspec struct, attrs class or pydantic model by name, except those
    without a value. Returns None for other values."""
    cls = type(value)
    if is_pydantic_model(cls):
        fields = {name: getattr(value, name) for name in cls.__pydantic_fields__}
        return {**fields, **(value.__pydantic_extra__ or {})}
    names = field_names(cls)
    return None if names is None else {name: getattr(value, name) for name in names if hasattr(value, name)}


def state_outside_fields(value: Any) -> dict[str, Any]:
    """Return the attributes that a value keeps outside its fields, by name. If it has no fields, return all
    its attributes. What `functools.cached_property` keeps does not count.

    State that has no name, such as the items of a dataclass that is a dict too, is returned as an object
    that equals no other.
    """
    cls = type(value)
    if is_pydantic_model(cls):
        return dict(value.__pydantic_private__ or {})
    shape = shape_of(cls)
    if shape is None:
        return dict(getattr(value, "__dict__", {}))
    others = shape.other_state(value)
    return {name: getattr(value, name, object()) for name in others}


@once_a_class
def hidden_fields(cls: type) -> frozenset[str]:
    """Return the names of the fields of a dataclass, attrs class or pydantic model with `repr=False`."""
    fields: dict[str, Any] = {**getattr(cls, "__dataclass_fields__", {})}
    fields.update({one.name: one for one in getattr(cls, "__attrs_attrs__", ())})
    if is_pydantic_model(cls):
        fields.update(cls.__pydantic_fields__)  # type: ignore[attr-defined]
    return frozenset(name for name, field in fields.items() if not field.repr)


@once_a_class
def is_pydantic_model(cls: type) -> bool:
    """Whether a class is a model of pydantic, which need not be imported."""
    return isinstance(vars(cls).get("__pydantic_fields__"), dict) and hasattr(cls, "model_validate")


def builtin_base(cls: type) -> type | None:
    """Return the built-in base class in which values keep other state than attributes, such as dict or
    Exception; None if there is none."""
    for base in cls.__mro__:
        is_builtin = isinstance(vars(base).get("__new__"), types.BuiltinMethodType)
        if is_builtin and base not in (object, msgspec.Struct):
            return base
    return None
