"""Evaluates the annotations of classes, and fills in the type variables of generic base classes.

An annotation may be a string, which Python evaluates later: written in quotes, or in a module that has
`from __future__ import annotations`. It may name a class that is defined further down in the module or, for
a class that a function defines, a local variable of this function.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar

from furu._common.origin import globals_of

_LOCALS = ".<locals>."


def local_names(cls: type, annotations: Iterable[Any]) -> dict[str, Any]:
    """Return the local variables that the string annotations of a new class name, with their values.

    Call this while the class is being created, because the function that defines the class may have
    returned when the annotations are evaluated. For a class that no function defines, returns no names.
    """
    if _LOCALS not in cls.__qualname__:
        return {}
    names = {name for annotation in annotations for name in _names_in(annotation)}
    return dict(_locals_of_frames(cls, names))


def evaluate(annotation: Any, cls: type, known: Mapping[str, Any]) -> Any:
    """Return the type that an annotation in the body of `cls` means. Strings in it are evaluated.

    `known` are names that were local when the class was created. Raises what evaluating the annotation
    raises: `NameError` for an unknown name, or any other exception.
    """
    holder = type("_Holder", (), {"__annotations__": {"value": annotation}})
    names: dict[str, Any] = {**globals_of(cls), cls.__name__: cls}
    if _LOCALS in cls.__qualname__:
        # Classes that the function defined after this class are found if the function is still running.
        names.update(_locals_of_frames(cls, _names_in(annotation)))
        names.update(known)
    return typing.get_type_hints(holder, globalns=names, include_extras=True)["value"]


def type_arguments(cls: type) -> dict[TypeVar, Any]:
    """Return what a class and its bases pass for the type variables of their generic base classes.

    In ``class Pair(Furu[T]): ...`` and ``class Ints(Pair[int]): ...`` it is `int` for the `T` of `Pair`. A
    type variable for which nothing is passed is left out.
    """
    given: dict[TypeVar, Any] = {}
    for base in vars(cls).get("__orig_bases__", ()):
        generic = typing.get_origin(base)
        if isinstance(generic, type):
            passed = arguments_by_variable(generic, typing.get_args(base))
            given.update(pair for pair in passed.items() if pair[0] is not pair[1])
    for base in cls.__bases__:
        given.update(
            (variable, substituted(argument, given)) for variable, argument in type_arguments(base).items()
        )
    return given


def arguments_by_variable(generic: type, arguments: Iterable[Any]) -> dict[TypeVar, Any]:
    """Return the type arguments that are passed to a generic class, by its type variables."""
    variables: tuple[TypeVar, ...] = getattr(generic, "__parameters__", ())
    return dict(zip(variables, arguments, strict=False))


def substituted(declared: Any, given: Mapping[TypeVar, Any]) -> Any:
    """Replace the type variables in a type. Variables that are not `given` stay,
    or become Any inside a larger type."""
    if isinstance(declared, TypeVar):
        return given.get(declared, declared)
    inner: tuple[TypeVar, ...] = (
        () if isinstance(declared, type) else getattr(declared, "__parameters__", ())
    )
    if not inner:
        return declared
    generic: Any = declared
    return generic[tuple(given.get(variable, Any) for variable in inner)]


def type_text(declared: Any) -> str:
    """Return a type as it is written in source code, for messages."""
    if isinstance(declared, type) and not typing.get_args(declared):
        return "None" if declared is type(None) else declared.__qualname__
    return str(declared).replace("typing.", "").replace("NoneType", "None")


def _names_in(annotation: Any) -> tuple[str, ...]:
    """Return the names that evaluating a string annotation would look up."""
    if not isinstance(annotation, str):
        strings = [part for part in typing.get_args(annotation) if isinstance(part, typing.ForwardRef)]
        return tuple(name for part in strings for name in _names_in(part.__forward_arg__))
    try:
        return compile(annotation, "<annotation>", "eval").co_names
    except (SyntaxError, ValueError):
        return ()


def _locals_of_frames(cls: type, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the variables called `names` of the running functions in which a class is defined. The
    innermost function comes last."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if frame.f_globals.get("__name__") == cls.__module__ and cls.__qualname__.startswith(
            f"{code.co_qualname}{_LOCALS}"
        ):
            frames.append(frame)
        frame = frame.f_back
    for frame in reversed(frames):
        values = frame.f_locals
        yield from ((name, values[name]) for name in names if name in values)
