"""Conversion to tuples, lists, sets, dicts and arrays."""

from __future__ import annotations

import collections.abc as abc
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from furu._common.annotations import array_items
from furu.node.declared.mismatch import Convert, Make, Mismatch, check_if, converted, is_same, key_text

__all__ = ["CONTAINERS", "array_converter", "typed_dict_converter"]

Converter = Callable[[Any], Convert]


# ---- sequences ----


def _items_of(declared: Any, value: Any) -> list[Any] | tuple[Any, ...]:
    """Return the items of a list, a tuple, a range or an array with one axis."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, range):
        return list(value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 1:
        # As Python numbers; but dates and durations stay, whose nanoseconds would become numbers.
        items: list[Any] = list(value) if value.dtype.kind in "mM" else value.tolist()
        return items
    raise Mismatch(declared, value)


def _converted_items(items: Iterable[Any], converters: Iterable[Convert]) -> list[Any]:
    pairs = zip(items, converters, strict=False)
    return [converted(item, convert, f"[{index}]") for index, (item, convert) in enumerate(pairs)]


def _sequence(cls: type[list[Any] | tuple[Any, ...]], declared: Any, convert_item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        items = _items_of(declared, value)
        made = _converted_items(items, itertools.repeat(convert_item))
        return value if type(value) is cls and is_same(made, items) else cls(made)

    return convert


def _list(declared: Any, arguments: tuple[Any, ...], converter: Converter) -> Convert:
    return _sequence(list, declared, converter(arguments[0] if arguments else Any))


def _tuple(declared: Any, arguments: tuple[Any, ...], converter: Converter) -> Convert:
    if len(arguments) == 2 and arguments[1] is ...:
        return _sequence(tuple, declared, converter(arguments[0]))
    if typing.get_origin(declared) is None or any(map(_is_unpacked, arguments)):
        return _sequence(tuple, declared, converter(Any))
    converters = [converter(argument) for argument in arguments]

    def convert(value: Any) -> Any:
        items = _items_of(declared, value)
        if len(items) != len(converters):
            raise Mismatch(declared, value, f"it has {len(items)} items instead of {len(converters)}")
        made = _converted_items(items, converters)
        return value if type(value) is tuple and is_same(made, items) else tuple(made)

    return convert


def _is_unpacked(argument: Any) -> bool:
    return typing.get_origin(argument) is typing.Unpack or getattr(argument, "__unpacked__", False)


def _read_only_sequence(declared: Any, arguments: tuple[Any, ...], converter: Converter) -> Convert:
    """Return the converter to Sequence, Collection or Iterable: lists become tuples."""
    cls = typing.get_origin(declared) or declared
    to_tuple = _sequence(tuple, declared, converter(arguments[0] if arguments else Any))

    def convert(value: Any) -> Any:
        if isinstance(value, (list, tuple, range)) or type(value).__module__ == "numpy":
            return to_tuple(value)
        if isinstance(value, str):
            raise Mismatch(declared, value, "write it as the only item of a list")
        if isinstance(value, abc.Mapping):  # the order of its keys would not count in the hash
            raise Mismatch(declared, value, "write list(x)")
        if isinstance(value, cls) and not isinstance(value, (bytes, bytearray)):
            return value
        raise Mismatch(declared, value)

    return convert


# ---- sets and dicts ----


def _set(declared: Any, arguments: tuple[Any, ...], converter: Converter) -> Convert:
    origin = typing.get_origin(declared) or declared
    cls: type = set if origin in (set, abc.MutableSet) else frozenset
    convert_item = converter(arguments[0] if arguments else Any)

    def convert(value: Any) -> Any:
        if not isinstance(value, (set, frozenset)):
            raise Mismatch(declared, value)
        items = list(value)
        made = [converted(item, convert_item, "{...}") for item in items]
        return value if type(value) is cls and is_same(made, items) else cls(made)

    return convert


def _dict(declared: Any, arguments: tuple[Any, ...], converter: Converter) -> Convert:
    convert_key, convert_value = (converter(argument) for argument in arguments or (Any, Any))

    def convert(value: Any) -> Any:
        if not isinstance(value, (dict, types.MappingProxyType)):
            raise Mismatch(declared, value, "write dict(x)" if isinstance(value, abc.Mapping) else "")
        made: dict[Any, Any] = {}
        for key, item in value.items():
            step = f"[{key_text(key)}]"
            new_key = converted(key, convert_key, step)
            if new_key in made:
                raise Mismatch(declared, value, f"two of its keys are equal to {key_text(new_key)}")
            made[new_key] = converted(item, convert_value, step)
        unchanged = type(value) is dict and is_same(made, value) and is_same(made.values(), value.values())
        return value if unchanged else made

    return convert


def typed_dict_converter(cls: Any, converter: Converter) -> Convert:
    """Return the converter to a TypedDict."""
    hints = typing.get_type_hints(cls)
    converters = {name: converter(hint) for name, hint in hints.items()}

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Mismatch(cls, value)
        for verb, keys in (
            ("lacks", cls.__required_keys__ - value.keys()),
            ("also has", value.keys() - hints.keys()),
        ):
            if keys:
                raise Mismatch(cls, value, f"it {verb} {', '.join(sorted(map(key_text, keys)))}")
        made = {key: converted(item, converters[key], f"[{key!r}]") for key, item in value.items()}
        return value if is_same(made.values(), value.values()) else made

    return convert


# ---- arrays ----


def array_converter(declared: Any, cls: type, arguments: tuple[Any, ...]) -> Convert:
    """Return the converter to a numpy array, for which a data type may be declared."""
    scalar = array_items(arguments)

    def accepts(value: Any) -> bool:
        return isinstance(value, cls) and issubclass(getattr(value, "dtype").type, scalar)  # noqa: B009

    return check_if(declared, accepts, "write numpy.asarray(x)")


CONTAINERS: Mapping[Any, Make] = {
    tuple: _tuple,
    list: _list,
    abc.MutableSequence: _list,
    abc.Sequence: _read_only_sequence,
    abc.Collection: _read_only_sequence,
    abc.Iterable: _read_only_sequence,
    set: _set,
    abc.MutableSet: _set,
    frozenset: _set,
    abc.Set: _set,
    dict: _dict,
    abc.Mapping: _dict,
    abc.MutableMapping: _dict,
}
