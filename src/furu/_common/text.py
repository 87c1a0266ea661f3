"""Conversion of values and errors to text for people, in messages and records.

Every function accepts any value, even if the value's methods raise or return something strange, because a
message about a faulty value must not fail. Only KeyboardInterrupt and SystemExit propagate.
"""

from __future__ import annotations

import traceback
from typing import Any

_MAX_ERROR_CHARS = 2000
MAX_VALUE_CHARS = 1000
UNSHOWN = "<a value that cannot be shown>"
INTERRUPTS = (KeyboardInterrupt, SystemExit)


def plain_text(text: str) -> str:
    """Escape characters that cannot be encoded as UTF-8. A file name may contain such characters."""
    if type(text) is str and text.isascii():
        return text
    return str.encode(text, "utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Return text that is safe to print on a terminal: control sequences, line breaks, marks that reverse
    the direction of writing, and other unprintable characters are escaped."""
    if str.isprintable(text):
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str.__str__(text))


def seconds(duration_sec: float) -> str:
    """Format a duration with its unit."""
    return f"{duration_sec:.2f} s" if duration_sec >= 0.1 else f"{duration_sec * 1000:.1f} ms"


def a_type(value: object) -> str:
    """Return the name of a value's type with its article, such as ``an int``."""
    name = type(value).__qualname__
    return f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def sentence(text: str) -> str:
    """Add a full stop, unless the text ends with a full stop, a question mark or an exclamation mark."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def shown(value: Any) -> str:
    """Return `repr(value)`, or if that raises, the types of the value and of the exception."""
    try:
        return str.__str__(repr(value))
    except INTERRUPTS:
        raise
    except BaseException as error:
        return unshown(value, error)


def describe_error(error: BaseException) -> str:
    """Describe an exception in one line: its type and message, without its notes."""
    try:
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ not in ("builtins", "__main__", "__mp_main__"):
            name = f"{kind.__module__}.{name}"
        return plain_text(_with_message(name, error))[:_MAX_ERROR_CHARS]
    except INTERRUPTS:
        raise
    except BaseException as problem:
        return unshown(error, problem)


def traceback_text(error: BaseException) -> str:
    """Return an exception's traceback, or a shorter one if the exception cannot be formatted."""
    try:
        return plain_text("".join(traceback.format_exception(error)))
    except INTERRUPTS:
        raise
    except BaseException:
        return f"{''.join(traceback.format_tb(error.__traceback__))}{describe_error(error)}\n"


def _with_message(name: str, error: BaseException) -> str:
    try:
        text = " ".join(str.split(str(error)))
    except Exception:
        text = "<its message cannot be shown>"
    return f"{name}: {text}" if text else name


def unshown(value: object, error: BaseException) -> str:
    try:
        name, why = type(value).__qualname__, type(error).__qualname__
        return plain_text(f"<{name}, which cannot be shown: {why}>")[:MAX_VALUE_CHARS]
    except Exception:  # not even the class can be named
        return UNSHOWN
