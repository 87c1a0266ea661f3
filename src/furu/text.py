"""Values and errors as text for people: in messages and records. Never raises, whatever it is shown."""

from __future__ import annotations

import dataclasses
import enum
import math
import pathlib
from typing import Any

from furu.dependencies import nodes_within
from furu.identity import MAX_DEPTH, Identified, all_fields, class_name

_MAX_ERROR_CHARS = 2000
_MAX_VALUE_CHARS = 1000
# What records hold of a field that is made with `repr=False`.
HIDDEN = "<hidden>"
# Integers that every JSON reader keeps exactly.
_EXACT = 2**53


def plain_text(text: str) -> str:
    """Return text that can be written as UTF-8, whatever came in through a file name."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Return text that shows as itself on a terminal: what is no printable character (a control sequence,
    a line break, a mark that turns the writing around) is written as an escape."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def seconds(duration_sec: float) -> str:
    """Say a duration with its unit."""
    return f"{duration_sec:.2f} s" if duration_sec >= 0.1 else f"{duration_sec * 1000:.1f} ms"


def shown(value: Any) -> str:
    """Return `repr(value)`; of a value that has none, its type and why."""
    try:
        return repr(value)
    except Exception as error:  # a huge int's too; or the value's own method is at fault
        return f"<{type(value).__qualname__}, which cannot be shown: {type(error).__name__}>"


def describe_error(error: BaseException) -> str:
    """Say an exception in one line: its type and message, without its notes."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__", "__mp_main__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception whose own text cannot be had is described all the same
        text = "<its message cannot be shown>"
    return plain_text(f"{name}: {text}" if text else name)[:_MAX_ERROR_CHARS]


def readable(value: Any, depth: int = 0) -> Any:
    """Return a value as plain JSON, for people who look into the store; not for reading back."""
    if depth > MAX_DEPTH:
        return "..."
    if value is None or isinstance(value, bool) or (type(value) is int and abs(value) < _EXACT):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, Identified):
        return {"node": class_name(type(value)), "hash": value._furu_hash}
    if isinstance(value, (enum.Enum, pathlib.PurePath)):
        return plain_text(str(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [readable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_key(key): readable(item, depth + 1) for key, item in value.items()}
    fields = all_fields(value)
    if fields is not None:
        return {name: readable(item, depth + 1) for name, item in _without_hidden(value, fields).items()}
    return plain_text(shown(value)[:_MAX_VALUE_CHARS])


def hidden(value: Any) -> Any:
    """Return what is recorded of a field that is made with `repr=False`: the nodes in it, by which others
    find what a node depends on, or `HIDDEN`."""
    return nodes_within([value], Identified) or HIDDEN


def _without_hidden(value: Any, fields: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if not field.repr and field.name in fields:
                fields[field.name] = hidden(fields[field.name])
    return fields


def _key(key: Any) -> str:
    return plain_text(key if isinstance(key, str) else shown(key)[:_MAX_VALUE_CHARS])
