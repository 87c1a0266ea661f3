"""Conversion of configurations to plain JSON, for records and for people."""

from __future__ import annotations

import enum
import json
import math
import pathlib
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from furu._common.origin import once_a_class
from furu._common.shapes import field_values, hidden_fields
from furu._common.text import INTERRUPTS, MAX_VALUE_CHARS, UNSHOWN, plain_text, unshown
from furu.node.identity import MAX_DEPTH, canonical_form
from furu.node.names import Identified, stored_name
from furu.store.references import is_reference

# The approximate limit for one field. Needed because a record that is too large is stored without any
# configuration.
_MAX_FIELD_CHARS = 2**17
# Replaces the value of a field that is declared with `repr=False`.
HIDDEN = "<hidden>"
# This many items of an array are written.
_FIRST_ITEMS = 8
# All JSON readers read integers exactly up to this limit.
_EXACT = 2**53


def readable(value: Any) -> Any:
    """Return a value as plain JSON for people. The JSON cannot be converted back to the value.

    Equal configurations give equal JSON in every process, because the items of sets and dicts are sorted.
    Large values are truncated. An item that cannot be shown is replaced by its type and the reason.
    """
    try:
        if _is_plain(value):
            return value
        kind = type(value)
        if issubclass(kind, Identified):
            return _reference(kind, value)
        return _Writer(_MAX_FIELD_CHARS).write(value, 0)
    except INTERRUPTS:
        raise
    except BaseException:  # not enough memory or stack even to report the reason
        return UNSHOWN


def readable_fields(value: object, names: Iterable[str], hidden: Iterable[str] = ()) -> dict[str, Any]:
    """Return the attributes `names` of a value as readable JSON, except attributes without a value.

    A `hidden` attribute is replaced by the nodes in it, which are dependencies, or else by `HIDDEN`.
    """
    fields: dict[str, Any] = {}
    for name in names:
        try:
            field = getattr(value, name)
        except AttributeError:
            continue
        except INTERRUPTS:
            raise
        except BaseException as error:
            fields[name] = unshown(value, error)
        else:
            fields[name] = _nodes_of(readable(field)) if name in hidden else readable(field)
    return fields


def _nodes_of(written: Any) -> list[Any] | str:
    """Return the nodes in a readable value, or `HIDDEN` if there are none."""
    nodes: list[Any] = []
    pending = [written]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if is_reference(value):
                nodes.append({name: value[name] for name in ("node", "hash")})  # a path stays hidden
            else:
                pending += reversed(value.values())
        elif isinstance(value, list):
            pending += reversed(value)
    return nodes or HIDDEN


def _is_plain(value: Any) -> bool:
    """Whether a value is an int or a string that can be recorded unchanged, like most field values."""
    kind = type(value)
    if kind is str:
        return len(value) <= MAX_VALUE_CHARS and value.isascii()
    return kind is int and -_EXACT < value < _EXACT


def _reference(kind: type[Identified], value: Identified) -> dict[str, str]:
    reference = {"node": _readable_name(kind), "hash": value._furu_hash}
    path = value._furu_path
    return {**reference, "path": plain_text(path)} if path else reference


@once_a_class
def _readable_name(cls: type) -> str:
    return plain_text(stored_name(cls))


class _Writer:
    """Converts one value to plain JSON. `_left` is the number of characters that may still be written."""

    def __init__(self, left: int) -> None:
        self._left = left

    def write(self, value: Any, depth: int) -> Any:
        if self._left <= 0 or depth > MAX_DEPTH:
            return "..."
        self._left -= 8
        try:
            return self._write(value, depth)
        except INTERRUPTS:
            raise
        except BaseException as error:
            return unshown(value, error)

    def _write(self, value: Any, depth: int) -> Any:
        kind = type(value)  # not `value.__class__`, which a class may override
        if issubclass(kind, str):
            return self._text(value)
        if _is_plain(value) or kind is bool or value is None or (kind is float and math.isfinite(value)):
            return value
        if issubclass(kind, Identified):
            self._left -= len(_readable_name(kind)) + len(value._furu_path)
            return _reference(kind, value)
        if issubclass(kind, enum.Enum):
            member = value._value_ if value._name_ is None else value._name_
            return self._text(f"{kind.__qualname__}.{member}")
        if issubclass(kind, pathlib.PurePath):
            return self._text(str(value))
        if issubclass(kind, type):
            return self._text(stored_name(value))
        if issubclass(kind, (list, tuple)):
            return self._items(value, depth)
        if issubclass(kind, (set, frozenset)):
            return self._set(value, depth)
        if issubclass(kind, dict):
            return self._dict(value, depth)
        if (fields := field_values(value)) is not None:
            return self._named(fields.items(), depth, hidden_fields(kind))
        if kind.__module__ == "numpy" and hasattr(value, "dtype"):
            return self._array(value, depth)
        text = repr(value)
        if text == object.__repr__(value):  # the text contains an address
            form = canonical_form(value)
            return self.write(form, depth + 1) if form is not value else f"<{kind.__qualname__}>"
        return self._text(text, MAX_VALUE_CHARS)

    def _array(self, value: Any, depth: int) -> Any:
        """Write a numpy number as the number that it is, and an array with its shape and first items."""
        if value.ndim == 0:
            plain = value.item()
            return self.write(plain, depth) if type(plain) is not type(value) else self._text(str(plain))
        first = [str(item) for item in value.flat[:_FIRST_ITEMS]]
        more = ["..."] if value.size > _FIRST_ITEMS else []
        shape = " x ".join(map(str, value.shape))
        return self._text(f"array {shape} of {value.dtype}: {', '.join(first + more)}")

    def _text(self, text: str, most: int = _MAX_FIELD_CHARS) -> str:
        text, most = plain_text(text), min(most, max(self._left, 0))
        self._left -= len(text)
        return text if len(text) <= most else f"{text[:most]}... and {len(text) - most} more characters"

    def _items(self, items: Iterable[Any], depth: int) -> list[Any]:
        written: list[Any] = []
        for item in items:
            if self._left <= 0:
                return [*written, "..."]
            written.append(self.write(item, depth + 1))
        return written

    def _set(self, value: set[Any] | frozenset[Any], depth: int) -> list[Any]:
        written: list[Any] = []
        share = self._left // (len(value) or 1)
        for order, item in sorted((_alone(item, share, depth + 1) for item in value), key=itemgetter(0)):
            if self._left <= 0:
                return [*written, "..."]
            self._left -= len(order[2]) + 8
            written.append(item)
        return written

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        share = self._left // (len(value) or 1)
        keyed = [(*_alone(key, share, depth + 1), item) for key, item in value.items()]
        keyed.sort(key=itemgetter(0))
        named = ((key if type(key) is str else json.dumps(key), item) for _, key, item in keyed)
        return self._named(named, depth)

    def _named(
        self, items: Iterable[tuple[str, Any]], depth: int, hidden: Iterable[str] = ()
    ) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for name, item in items:
            if self._left <= 0:
                return {**written, "...": "..."}
            value = self.write(item, depth + 1)
            written[self._text(name)] = _nodes_of(value) if name in hidden else value
        return written


def _alone(item: Any, left: int, depth: int) -> tuple[tuple[int, float, str], Any]:
    """Return a sort key, and the item as JSON. Neither depends on what was written before."""
    written = item if _is_plain(item) else _Writer(left).write(item, depth)
    kind = type(written)
    if kind is int or kind is float:
        return (0, written, ""), written
    return ((1, 0, written) if kind is str else (2, 0, json.dumps(written))), written
