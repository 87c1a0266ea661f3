"""Finds the result type that a class declares."""

from __future__ import annotations

import inspect
import typing
from typing import Any, TypeVar

from furu._common.origin import globals_of
from furu.errors import FuruResultError, FuruUsageError


def result_type(cls: type, generic_base: type) -> Any:
    """Return the T that a class or one of its bases passes to `Furu[T]`; Any if there is none."""
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if not isinstance(origin, type) or not issubclass(origin, generic_base):
            continue
        arguments = typing.get_args(base)
        if origin is generic_base:
            declared = arguments[0] if arguments else Any
        else:
            declared = _substitute(result_type(origin, generic_base), origin, arguments)
        if declared is not Any:  # if it is Any, another base may declare a type
            return _resolve(declared, cls)
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


def _substitute(declared: Any, origin: type, arguments: tuple[Any, ...]) -> Any:
    """Replace type variables in a generic base's declared type with the base's type arguments."""
    parameters = getattr(origin, "__parameters__", ())
    if not parameters or not arguments:
        return declared
    given = dict(zip(parameters, arguments, strict=False))
    if isinstance(declared, TypeVar):
        return given.get(declared, Any)
    inner = getattr(declared, "__parameters__", ())
    return declared[tuple(given.get(p, Any) for p in inner)] if inner else declared


def _resolve(declared: Any, cls: type) -> Any:
    """Resolve quoted names in a declared type, as Python does in annotations."""
    if isinstance(declared, TypeVar):
        return declared
    holder = type("_Holder", (), {"__annotations__": {"result": declared}})
    names = {**globals_of(cls), cls.__name__: cls}
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)["result"]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise FuruUsageError(
            f"{cls.__qualname__} declares a result of {declared!r}, and that name is not known in "
            f"module {cls.__module__} ({error}). Import it there, or define it at module level."
        ) from error
