"""Values and errors as text for people: in messages and records.

Every function here accepts any value, also one whose methods raise or return something strange: a message
about a faulty value must not fail because of it. Only KeyboardInterrupt and SystemExit pass through.
"""

from __future__ import annotations

import enum
import json
import math
import pathlib
import re
import traceback
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from furu.identity import MAX_DEPTH, Identified, all_fields, canonical_form
from furu.origin import class_name

_MAX_ERROR_CHARS = 2000
_MAX_VALUE_CHARS = 1000
# What one field may take up in a record, about: a record that is too large loses its whole configuration.
_MAX_FIELD_CHARS = 2**17
# What records hold of a field that is made with `repr=False`.
HIDDEN = "<hidden>"
# Integers that every JSON reader keeps exactly.
_EXACT = 2**53
_HASH = re.compile(r"[0-9a-f]{32}\Z")
_UNSHOWN = "<a value that cannot be shown>"
_INTERRUPTS = (KeyboardInterrupt, SystemExit)


def plain_text(text: str) -> str:
    """Return text that can be written as UTF-8, whatever came in through a file name."""
    if type(text) is str and text.isascii():
        return text
    return str.encode(text, "utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Return text that shows as itself on a terminal: an unprintable character (a control sequence, a line
    break, a mark that reverses the direction of writing) is written as an escape."""
    if str.isprintable(text):
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str.__str__(text))


def seconds(duration_sec: float) -> str:
    """Format a duration with its unit."""
    return f"{duration_sec:.2f} s" if duration_sec >= 0.1 else f"{duration_sec * 1000:.1f} ms"


def a_type(value: object) -> str:
    """Return the type of a value with its article, such as ``an int``."""
    name = type(value).__qualname__
    return f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def sentence(text: str) -> str:
    """Return text that ends with a full stop, or with a mark of its own."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def shown(value: Any) -> str:
    """Return `repr(value)`, or the value's type and what its `__repr__` raised."""
    try:
        return str.__str__(repr(value))
    except _INTERRUPTS:
        raise
    except BaseException as error:
        return _unshown(value, error)


def describe_error(error: BaseException) -> str:
    """Describe an exception in one line: its type and message, without its notes."""
    try:
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ not in ("builtins", "__main__", "__mp_main__"):
            name = f"{kind.__module__}.{name}"
        return plain_text(_with_message(name, error))[:_MAX_ERROR_CHARS]
    except _INTERRUPTS:
        raise
    except BaseException as problem:
        return _unshown(error, problem)


def traceback_text(error: BaseException) -> str:
    """Return an exception's traceback, or only its frames if the exception itself cannot be formatted."""
    try:
        return plain_text("".join(traceback.format_exception(error)))
    except _INTERRUPTS:
        raise
    except BaseException:
        return f"{''.join(traceback.format_tb(error.__traceback__))}{describe_error(error)}\n"


def _with_message(name: str, error: BaseException) -> str:
    try:
        text = " ".join(str.split(str(error)))
    except Exception:
        text = "<its message cannot be shown>"
    return f"{name}: {text}" if text else name


def readable(value: Any) -> Any:
    """Return a value as plain JSON, for people who look into the store; not for reading back.

    Equal configurations give equal JSON in every process: the items of sets and dicts are sorted. What is
    large is cut. An item that cannot be shown is replaced by its type and the reason.
    """
    try:
        return value if _is_plain(value) else _Writer(_MAX_FIELD_CHARS).write(value, 0)
    except _INTERRUPTS:
        raise
    except BaseException:  # no memory or stack is left even to say why
        return _UNSHOWN


def readable_fields(value: object, names: Iterable[str], hidden: Iterable[str] = ()) -> dict[str, Any]:
    """Return those attributes of a value that are set, by name, as `readable` does.

    Of those that are `hidden`: the nodes in them, by which others find what a node depends on, or `HIDDEN`.
    """
    fields: dict[str, Any] = {}
    for name in names:
        try:
            field = getattr(value, name)
        except AttributeError:
            continue
        except _INTERRUPTS:
            raise
        except BaseException as error:
            fields[name] = _unshown(value, error)
        else:
            fields[name] = _nodes_of(readable(field)) if name in hidden else readable(field)
    return fields


def _nodes_of(written: Any) -> list[Any] | str:
    """Return the nodes in a value that was made readable, or `HIDDEN` if there are none."""
    nodes: list[Any] = []
    pending = [written]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if set(value) == {"node", "hash"} and _HASH.match(str(value["hash"])):
                nodes.append(value)
            else:
                pending += reversed(value.values())
        elif isinstance(value, list):
            pending += reversed(value)
    return nodes or HIDDEN


def _unshown(value: object, error: BaseException) -> str:
    try:
        name, why = type(value).__qualname__, type(error).__qualname__
        return plain_text(f"<{name}, which cannot be shown: {why}>")[:_MAX_VALUE_CHARS]
    except Exception:  # not even the class can be named
        return _UNSHOWN


def _is_plain(value: Any) -> bool:
    """Whether a value is a number or a text that can be recorded as it is: most fields are."""
    kind = type(value)
    if kind is str:
        return len(value) <= _MAX_VALUE_CHARS and value.isascii()
    return kind is int and -_EXACT < value < _EXACT


class _Writer:
    """Writes one value as plain JSON; `_left` is how many characters it may still take."""

    def __init__(self, left: int) -> None:
        self._left = left

    def write(self, value: Any, depth: int) -> Any:
        if self._left <= 0 or depth > MAX_DEPTH:
            return "..."
        self._left -= 8
        try:
            return self._write(value, depth)
        except _INTERRUPTS:
            raise
        except BaseException as error:
            return _unshown(value, error)

    def _write(self, value: Any, depth: int) -> Any:
        kind = type(value)  # not `value.__class__`, which may lie
        if issubclass(kind, str):
            return self._text(value)
        if _is_plain(value) or kind is bool or value is None or (kind is float and math.isfinite(value)):
            return value
        if issubclass(kind, Identified):
            return {"node": self._text(class_name(kind)), "hash": value._furu_hash}
        if issubclass(kind, enum.Enum):
            member = value._value_ if value._name_ is None else value._name_
            return self._text(f"{kind.__qualname__}.{member}")
        if issubclass(kind, pathlib.PurePath):
            return self._text(str(value))
        if issubclass(kind, type):
            return self._text(class_name(value))
        if issubclass(kind, (list, tuple)):
            return self._items(value, depth)
        if issubclass(kind, (set, frozenset)):
            return self._set(value, depth)
        if issubclass(kind, dict):
            return self._dict(value, depth)
        if (fields := all_fields(value)) is not None:
            declared: dict[str, Any] = getattr(kind, "__dataclass_fields__", {})
            hidden = [name for name, field in declared.items() if not field.repr]
            return self._named(fields.items(), depth, hidden)
        text = repr(value)
        if text == object.__repr__(value):  # it holds an address
            form = canonical_form(value)
            return self.write(form, depth + 1) if form is not value else f"<{kind.__qualname__}>"
        return self._text(text, _MAX_VALUE_CHARS)

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
    """Return an item as JSON that does not depend on what was written before it, and what to sort it by."""
    written = item if _is_plain(item) else _Writer(left).write(item, depth)
    kind = type(written)
    if kind is int or kind is float:
        return (0, written, ""), written
    return ((1, 0, written) if kind is str else (2, 0, json.dumps(written))), written
