"""Finds the result type that a class declares."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from furu._common.annotations import arguments_by_variable, evaluate, substituted
from furu.errors import FuruResultError, FuruUsageError

_NO_NAMES: Mapping[str, Any] = {}


def result_type(cls: type, generic_base: type, known: Mapping[str, Any] = _NO_NAMES) -> Any:
    """Return the T that a class or one of its bases passes to `Furu[T]`; Any if there is none.

    `known` are names that were local when the class was created.
    """
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if not isinstance(origin, type) or not issubclass(origin, generic_base):
            continue
        arguments = typing.get_args(base)
        if origin is generic_base:
            declared = arguments[0] if arguments else Any
        else:
            given = arguments_by_variable(origin, arguments)
            declared = substituted(result_type(origin, generic_base), given)
        if declared is not Any:  # if it is Any, another base may declare a type
            return _resolve(declared, cls, known)
    return Any


def refuse_awaitable(name: str, value: Any) -> None:
    """Raise `FuruResultError` for a value that should have been awaited."""
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that it was never awaited
    if inspect.isawaitable(value):
        raise FuruResultError(
            f"{name}._create() returned a {type(value).__qualname__}, which nothing awaits: _create must "
            "be `async def` itself, and await it."
        )


def _resolve(declared: Any, cls: type, known: Mapping[str, Any]) -> Any:
    """Resolve quoted names in a declared type, as Python does in annotations."""
    if isinstance(declared, TypeVar):
        return declared
    try:
        return evaluate(declared, cls, known)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise FuruUsageError(
            f"{cls.__qualname__} declares a result of {declared!r}, and that name is not known in "
            f"module {cls.__module__} ({error}). Import it there, or define it at module level."
        ) from error
