"""Node classes as values of other classes see them: their hash, and the name that counts in identity."""

from __future__ import annotations

from furu._common.origin import class_name

__all__ = ["Identified", "stored_name"]


class Identified:
    """Base class of values that are encoded by their own hash when they are inside another value."""

    _furu_hash: str
    _furu_path: str = ""  # the path of an input file, which is recorded for people


def stored_name(cls: type) -> str:
    """Return the name of a class that counts in identity: ``module:Class``, or the `_name` of a node class.
    Subclasses do not inherit a `_name`."""
    fixed = vars(cls).get("_name") if issubclass(cls, Identified) else None
    return fixed if isinstance(fixed, str) else class_name(cls)
