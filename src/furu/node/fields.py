"""Checks the values of a node's fields against their declared types, and normalises them.

The declared types are evaluated when the first node of a class is created, because they may name classes
that are defined after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from furu._common.annotations import defining_class, evaluate, substituted, type_arguments, type_text
from furu._common.text import INTERRUPTS, a_type, describe_error, shown
from furu.errors import FuruFieldError, FuruUsageError
from furu.node.base import Node
from furu.node.declared import Convert, Mismatch, converter

_MAX_SHOWN_CHARS = 200
# For these types a value of exactly the type needs no further check.
_EXACT = {float, int, str, bool, bytes, complex}
_EXACT_PATH = type(Path())


class _NoType:
    """Stands for a declared type for which every value is checked."""


class _Check(NamedTuple):
    name: str
    exact: type
    convert: Convert
    declared: Any


class FieldChecks:
    """The checks of the fields of one class. `local_names` are names for the class's annotations.

    `has_own_init` says whether the class defines `__init__`, so that only values that it has set can be
    checked.
    """

    def __init__(self, cls: type[Node[Any]], local_names: Mapping[str, Any], *, has_own_init: bool) -> None:
        self._cls = cls
        self._local_names = local_names
        self._has_own_init = has_own_init
        self._checks: dict[str, _Check] | None = None
        # The fields that the constructor takes, each with the type whose values need no check.
        self._early: dict[str, type] = {}
        # The fields whose default must be normalised before the constructor runs, each with how to make it.
        self._defaults: tuple[tuple[str, Callable[[], Any]], ...] = ()
        self._late: tuple[_Check, ...] = ()
        self._checks_all_late = False

    def before(self, given: dict[str, Any]) -> None:
        """Normalise the values that a constructor was given, in place. Raises `FuruFieldError`."""
        if self._checks is None:
            self._checks = self._made()
        for name, default in self._defaults:
            if name not in given:
                given[name] = self._converted(self._checks[name], default())
        exact = self._early
        for name, value in given.items():
            if type(value) is not exact.get(name) and name in exact:
                given[name] = self._converted(self._checks[name], value)

    def after(self, own: dict[str, Any], given: Mapping[str, Any]) -> None:
        """Normalise the other values that a node has after its constructor. Raises `FuruFieldError`."""
        for check in self._late:
            name = check.name
            if name in own and (self._checks_all_late or name not in given):
                value = own[name]
                if type(value) is not check.exact:
                    own[name] = self._converted(check, value)

    def normalised(self, name: str, value: Any) -> Any:
        """Return a value as the field `name` would hold it. Raises `FuruFieldError`."""
        if self._checks is None:
            self._checks = self._made()
        return self._converted(self._checks[name], value)

    def _converted(self, check: _Check, value: Any) -> Any:
        try:
            return check.convert(value)
        except Mismatch as error:
            raise self._error(check, error) from None
        except INTERRUPTS:
            raise
        except Exception as error:  # from a method of the value or of its class
            raise FuruFieldError(
                f"{self._cls.__qualname__}.{check.name} could not be checked against its declared type "
                f"{type_text(check.declared)}: {describe_error(error)}",
                field_path=f"{self._cls.__qualname__}.{check.name}",
                declared=type_text(check.declared),
            ) from error

    def _error(self, check: _Check, mismatch: Mismatch) -> FuruFieldError:
        is_shown = self._cls.__dataclass_fields__[check.name].repr
        steps = mismatch.path if is_shown else ""
        path = f"{self._cls.__qualname__}.{check.name}{steps}"
        expected, declared = type_text(mismatch.declared), type_text(check.declared)
        text = f"{path} is declared as {expected}, and was given {_told(mismatch.value, is_shown=is_shown)}"
        if steps:
            text += f". The whole field is declared as {declared}"
        if mismatch.hint and is_shown:
            text += f" ({mismatch.hint})"
        return FuruFieldError(text, field_path=path, declared=declared)

    def _made(self) -> dict[str, _Check]:
        """Evaluate the declared types, and decide which fields are checked when."""
        declared_types = field_types(self._cls)
        fields = dataclasses.fields(self._cls)
        checks: dict[str, _Check] = {}
        for field in fields:
            declared = declared_types[field.name]
            exact = declared if isinstance(declared, type) and declared in _EXACT else _NoType
            checks[field.name] = _Check(
                field.name, _EXACT_PATH if declared is Path else exact, converter(declared), declared
            )
        self._checks_all_late = self._has_own_init or hasattr(self._cls, "__post_init__")
        if not self._has_own_init:
            self._early = {field.name: checks[field.name].exact for field in fields if field.init}
            self._defaults = tuple(
                (field.name, default)
                for field in fields
                if field.init and (default := self._default_to_normalise(field, checks[field.name]))
            )
        late = [field for field in fields if self._checks_all_late or not field.init]
        self._late = tuple(checks[field.name] for field in late)
        return checks

    def _default_to_normalise(
        self, field: dataclasses.Field[Any], check: _Check
    ) -> Callable[[], Any] | None:
        """Return a function that makes the field's default; None if there is none, or if it is normal."""
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory
        default = field.default
        if default is dataclasses.MISSING or self._converted(check, default) is default:
            return None
        return lambda: default


def field_types(cls: type[Node[Any]]) -> dict[str, Any]:
    """Return the declared type of each field of a class. Raises `FuruUsageError` if one is not known."""
    arguments = type_arguments(cls)
    types: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        defining = defining_class(cls, field.name)
        types[field.name] = substituted(_declared(defining, field.name), arguments.get(defining, {}))
    return types


def _declared(defining: type, name: str) -> Any:
    """Return the declared type of a field of the class that defines it."""
    annotation = vars(defining)["__annotations__"][name]
    facts = vars(defining).get("_facts")
    known = facts.local_names if facts is not None else {}
    try:
        return evaluate(annotation, defining, known)
    except Exception as error:
        raise FuruUsageError(
            f"{defining.__qualname__}.{name} is declared as {annotation}, which cannot be evaluated: "
            f"{describe_error(error)}. furu checks values against declared types, so import what the "
            "annotation names at run time, not only under TYPE_CHECKING."
        ) from error


def _told(value: Any, *, is_shown: bool) -> str:
    if not is_shown:
        return f"{a_type(value)}, which is not shown"
    text = shown(value)
    text = text if len(text) <= _MAX_SHOWN_CHARS else f"{text[: _MAX_SHOWN_CHARS - 3]}..."
    return f"{text} ({a_type(value)})"
