"""What all converters share: the error for a value that does not fit, and small helpers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Convert", "Make", "Mismatch", "check_if", "converted", "is_same", "key_text", "unwrapped"]

Convert = Callable[[Any], Any]
# Makes the converter for a declared type, given its type arguments and how to convert to another type.
Make = Callable[[Any, tuple[Any, ...], Callable[[Any], Convert]], Convert]


class Mismatch(Exception):
    """Raised for a value that does not fit its declared type. Each container around the value adds a step
    to the path."""

    def __init__(self, declared: Any, value: Any, hint: str = "") -> None:
        super().__init__(declared, value, hint)
        self.declared = declared
        self.value = value
        self.hint = hint
        self.steps: list[str] = []

    @property
    def path(self) -> str:
        """The path from the field to the value, such as ``[2].name``."""
        return "".join(reversed(self.steps))


def check_if(declared: Any, accepts: Callable[[Any], bool], hint: str = "") -> Convert:
    """Return a converter that changes nothing, and refuses what a function does not accept."""

    def convert(value: Any) -> Any:
        if accepts(value):
            return value
        raise Mismatch(declared, value, hint)

    return convert


def unwrapped(value: Any) -> Any:
    """Return a numpy number or string as the Python value that it equals. Other values stay, and so do
    dates and durations of numpy, whose nanoseconds would become numbers."""
    if (
        type(value).__module__ == "numpy"
        and getattr(value, "ndim", None) == 0
        and value.dtype.kind not in "mM"
    ):
        return value.item()
    return value


def converted(value: Any, convert: Convert, step: str) -> Any:
    """Convert a value inside a container. If it does not fit, the step that leads to it is added."""
    try:
        return convert(value)
    except Mismatch as error:
        error.steps.append(step)
        raise


def is_same(made: Iterable[Any], items: Iterable[Any]) -> bool:
    """Whether converting the items changed none of them."""
    return all(new is old for new, old in zip(made, items, strict=True))


def key_text(key: Any) -> str:
    """Return a dict's key for the path to its value."""
    return repr(key) if type(key) in (str, int, float, bool) else f"<{type(key).__qualname__}>"
