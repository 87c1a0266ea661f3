"""Conversion to numbers, text, times and paths."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import os
import pathlib
import typing
from collections.abc import Callable, Mapping
from typing import Any

from furu.node.declared.mismatch import Convert, Mismatch, check_if, unwrapped

__all__ = ["SCALARS", "number_converter", "path_converter"]


def _float(value: Any) -> float:
    number = unwrapped(value)
    if isinstance(number, float):
        return float(number)
    if isinstance(number, int) and not isinstance(number, bool):
        try:
            exact = float(number)
        except OverflowError:
            exact = 0.0
        if exact == number:
            return exact
        raise Mismatch(float, value, "no float is exactly this number")
    if type(number).__module__ == "numpy" and getattr(number, "ndim", None) == 0:  # a longdouble
        raise Mismatch(float, value, "it may have more digits than a float: write float(x)")
    raise Mismatch(float, value)


def _int(value: Any) -> int:
    number = unwrapped(value)
    if isinstance(number, int) and not isinstance(number, bool):
        return int(number)
    raise Mismatch(int, value, "write int(x) if it is whole" if isinstance(number, float) else "")


def _bool(value: Any) -> bool:
    flag = unwrapped(value)
    if type(flag) is bool:
        return flag
    raise Mismatch(bool, value)


def _complex(value: Any) -> complex:
    number = unwrapped(value)
    if isinstance(number, complex):
        return complex(number)
    try:
        return complex(_float(number))
    except Mismatch as error:
        raise Mismatch(complex, value, error.hint) from None


def _str(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, such as an enum, the text itself
    raise Mismatch(str, value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise Mismatch(bytes, value)


def _plain_time(value: Any) -> Any:
    """Return a date or duration of numpy as the Python value that it equals, if there is one."""
    if (
        type(value).__module__ != "numpy"
        or getattr(value, "ndim", None) != 0
        or value.dtype.kind not in "mM"
    ):
        return value
    plain = value.item()
    if isinstance(plain, int):  # nanoseconds
        rounded = value.astype(value.dtype.str.replace("ns", "us"))
        return rounded.item() if rounded == value else value
    return plain


def _datetime(value: Any) -> dt.datetime:
    plain = _plain_time(value)
    if isinstance(plain, dt.datetime):
        to_exact: Callable[[], dt.datetime] | None = getattr(plain, "to_pydatetime", None)  # pandas
        if to_exact is None:
            return plain
        if getattr(plain, "nanosecond", 1) == 0:
            return to_exact()
    raise Mismatch(dt.datetime, value, "it has no time of day" if type(plain) is dt.date else "")


def _date(value: Any) -> dt.date:
    plain = _plain_time(value)
    if isinstance(plain, dt.date) and not isinstance(plain, dt.datetime):
        return plain
    raise Mismatch(dt.date, value, "write x.date()" if isinstance(plain, dt.datetime) else "")


def _timedelta(value: Any) -> dt.timedelta:
    plain = _plain_time(value)
    if isinstance(plain, dt.timedelta):
        to_exact: Callable[[], dt.timedelta] | None = getattr(plain, "to_pytimedelta", None)  # pandas
        if to_exact is None:
            return plain
        if getattr(plain, "nanoseconds", 1) == 0:
            return to_exact()
    raise Mismatch(dt.timedelta, value)


def _exact_number(cls: type) -> Convert:
    """Return the converter to Decimal or Fraction, which hold every int exactly."""

    def convert(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        try:
            return cls(_int(value))
        except Mismatch:
            raise Mismatch(cls, value) from None

    return convert


def number_converter(cls: type) -> Convert:
    """Return the converter to a class of the module `numbers`."""

    def convert(value: Any) -> Any:
        number = unwrapped(value)
        if isinstance(number, cls) and not isinstance(number, bool):
            return number
        raise Mismatch(cls, value)

    return convert


def path_converter(cls: type[pathlib.PurePath]) -> Convert:
    """Return the converter to a class of paths, from text and from any object with a path."""

    def convert(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, (str, os.PathLike)):
            path = os.fspath(value)
            if isinstance(path, str):
                return cls(path)
        raise Mismatch(cls, value)

    return convert


SCALARS: Mapping[Any, Convert] = {
    type(None): check_if(type(None), lambda value: value is None),
    float: _float,
    int: _int,
    bool: _bool,
    complex: _complex,
    str: _str,
    typing.LiteralString: _str,
    bytes: _bytes,
    dt.datetime: _datetime,
    dt.date: _date,
    dt.timedelta: _timedelta,
    decimal.Decimal: _exact_number(decimal.Decimal),
    fractions.Fraction: _exact_number(fractions.Fraction),
}
