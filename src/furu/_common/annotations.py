"""Evaluates the annotations of classes, and fills in the type variables of generic base classes.

An annotation may be a string, which Python evaluates later: written in quotes, or in a module that has
`from __future__ import annotations`. It may name a class that is defined further down in the module or, for
a class that a function defines, a local variable of this function.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType, MappingProxyType
from typing import Any, TypeVar

from furu._common.origin import globals_of

_LOCALS = ".<locals>."

# What is passed for the type variables of each class.
Arguments = Mapping[type, Mapping[TypeVar, Any]]


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
    own = {variable.__name__: variable for variable in getattr(cls, "__type_params__", ())}
    fields = vars(cls).get("__annotations__", {})
    body = {name: value for name, value in vars(cls).items() if name not in fields}
    names: dict[str, Any] = {**globals_of(cls), cls.__name__: cls, **own, **body}
    if _LOCALS in cls.__qualname__:
        # Classes that the function defined after this class are found if the function is still running.
        names.update(_locals_of_frames(cls, _names_in(annotation)))
        names.update(known)
    return typing.get_type_hints(holder, globalns=names, include_extras=True)["value"]


def type_arguments(cls: type, given: Mapping[TypeVar, Any] = MappingProxyType({})) -> Arguments:
    """Return what is passed for the type variables of a class and of each of its generic base classes.

    In ``class Pair(Furu[T]): ...`` and ``class Ints(Pair[int]): ...`` it is `int` for the `T` of `Pair`.
    Two classes may use the same type variable for different types. A variable for which nothing is passed
    is left out. `given` are the type arguments of `cls` itself.
    """
    found: dict[type, Mapping[TypeVar, Any]] = {cls: given}
    generic_bases = {
        origin: typing.get_args(base)
        for base in vars(cls).get("__orig_bases__", ())
        if isinstance(origin := typing.get_origin(base), type)
    }
    for base in cls.__bases__:
        passed = arguments_by_variable(base, generic_bases.get(base, ()))
        known = {variable: substituted(argument, given) for variable, argument in passed.items()}
        for ancestor, arguments in type_arguments(base, known).items():
            if arguments or ancestor not in found:
                found[ancestor] = arguments
    return found


def defining_class(cls: type, name: str) -> type:
    """Return the class that annotates a field: `cls` or one of its bases."""
    return next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))


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


def array_items(arguments: tuple[Any, ...]) -> type:
    """Return the class of the items that the type arguments of a numpy array declare; object for any."""
    scalars = typing.get_args(arguments[1]) if len(arguments) > 1 else ()
    return scalars[0] if scalars and isinstance(scalars[0], type) else object


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
