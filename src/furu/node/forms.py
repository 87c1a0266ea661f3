"""Canonical forms of values of other libraries: numpy arrays and scalars, pandas times, pydantic models.

The libraries are recognised by the names of their modules, and are not imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from furu._common.origin import once_a_class
from furu._common.shapes import field_values, is_pydantic_model
from furu.errors import FuruUsageError
from furu.node.names import stored_name

__all__ = ["NoCanonicalForm", "foreign_form"]

_Form = Callable[[Any], Any]


class NoCanonicalForm(FuruUsageError):
    """A value of a known library has no canonical form. The message completes the sentence "the value"."""


@once_a_class
def foreign_form(cls: type) -> tuple[str, _Form] | None:
    """Return the name that counts in identity for values of `cls`, and a function that returns the
    canonical form of such a value. Returns None for other classes.

    The form consists of values that furu can encode. It is the same for equal values, whatever the byte
    order or the memory layout of an array. The names are not those of the library's classes, which differ
    between its versions. The function raises `NoCanonicalForm`.
    """
    library = cls.__module__.partition(".")[0]
    if library == "numpy":
        numpy = sys.modules["numpy"]
        if cls in (numpy.ndarray, numpy.memmap):
            return "numpy:ndarray", _array_form
        return ("numpy:generic", _scalar_form) if issubclass(cls, numpy.generic) else None
    if library == "pandas":
        form = _PANDAS.get(cls.__name__)
        return (f"pandas:{cls.__name__}", form) if form is not None else None
    return (stored_name(cls), _model_form) if is_pydantic_model(cls) else None


def _array_form(array: Any) -> Any:
    kind = array.dtype
    if kind.hasobject or kind.kind == "T":
        raise NoCanonicalForm(
            f"is an array of {kind}, whose items are Python objects: convert it to a type of fixed size, "
            "such as float64 or U10, or write x.tolist()"
        )
    if kind.char in "gG":
        raise NoCanonicalForm(
            f"is an array of {kind}, whose size differs between machines: write x.astype('float64')"
        )
    if kind.names:  # field by field, because the gaps between fields may hold any bytes
        return array.shape, [(name, _array_form(array[name])) for name in kind.names]
    little = kind.newbyteorder("<")
    # Copies if the bytes are not contiguous, in C order, or in this byte order.
    return little.str, array.shape, array.astype(little, order="C", copy=False).tobytes()


def _scalar_form(scalar: Any) -> Any:
    return _array_form(sys.modules["numpy"].asarray(scalar))


def _timestamp_form(time: Any) -> Any:
    # Neither the unit, which only limits the range, nor the offset of a named zone counts.
    return time.tz_localize(None).isoformat(), None if time.tz is None else str(time.tz), time.fold


_PANDAS: Mapping[str, _Form] = {
    "Timestamp": _timestamp_form,
    "Timedelta": lambda duration: duration.isoformat(),
    "NaTType": lambda value: None,
}


def _model_form(model: Any) -> Any:
    """Return the fields of a pydantic model, also those that it does not declare."""
    private = model.__pydantic_private__
    if private:
        raise NoCanonicalForm(
            f"is a {type(model).__qualname__} with private attributes, which would not count: "
            f"{', '.join(sorted(private))}. Declare them as fields"
        )
    return field_values(model)
