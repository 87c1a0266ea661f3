"""Restores a value from recorded JSON, by its declared type.

The recorded JSON leaves things out: a list may have been a tuple, a text an enum, a path or a date. The
declared type decides. The result may be wrong, so callers compare the hash of the node that they make.
"""

from __future__ import annotations

import ast
import contextlib
import datetime as dt
import decimal
import enum
import fractions
import json
import pathlib
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

from furu._common.origin import globals_of, once_a_class
from furu.node.readable import readable
from furu.store.references import is_reference

# The types whose `repr` is recorded, and may be evaluated again.
_BY_REPR: dict[str, Callable[..., Any]] = {
    made.__name__: made
    for made in (
        dt.date,
        dt.datetime,
        dt.time,
        dt.timedelta,
        dt.timezone,
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
        zoneinfo.ZoneInfo,
        range,
    )
}


def restore(declared: Any, written: Any, nodes: Mapping[str, Any]) -> Any:
    """Return a value of the declared type that is recorded as `written`. `nodes` has the nodes by hash.

    Raises `ValueError` if that is not possible, and anything that a constructor of a value raises.
    """
    return _Restorer(nodes).restore(declared, written)


class _Restorer:
    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self._nodes = nodes

    def restore(self, declared: Any, written: Any) -> Any:
        if is_reference(written):
            node = self._nodes.get(written["hash"])
            if node is None:
                raise ValueError("a node is not known")
            return node
        origin = typing.get_origin(declared)
        if origin is typing.Annotated:
            return self.restore(typing.get_args(declared)[0], written)
        if origin in (typing.Union, types.UnionType):
            return self._one_of(typing.get_args(declared), written)
        if origin is typing.Literal:
            options = typing.get_args(declared)
            return next(option for option in options if _is_recorded_as(option, written))
        cls = origin or declared
        if isinstance(written, list):
            return self._items(cls, typing.get_args(declared), written)
        if isinstance(written, dict):
            return self._fields(cls, typing.get_args(declared), written)
        if isinstance(cls, type) and isinstance(written, str) and cls not in (str, object):
            return _from_text(cls, written)
        return written

    def _one_of(self, members: tuple[Any, ...], written: Any) -> Any:
        """Restore a value of the first type that records the value in the same way. A str may be recorded
        for many types, so str comes last."""
        for member in sorted(members, key=lambda member: member in (str, Any, object)):
            with contextlib.suppress(Exception):  # from a constructor of the type
                value = self.restore(member, written)
                plain = member if isinstance(member, type) and not typing.get_args(member) else object
                if isinstance(value, plain) and _is_recorded_as(value, written):
                    return value
        raise ValueError("no type fits")

    def _items(self, cls: Any, arguments: tuple[Any, ...], written: list[Any]) -> Any:
        if not isinstance(cls, type):
            return [self.restore(Any, item) for item in written]
        names = getattr(cls, "_fields", None)
        if isinstance(names, tuple):  # a named tuple
            declared = _types(cls)
            pairs = zip(names, written, strict=True)
            return cls(*[self.restore(declared.get(name, Any), item) for name, item in pairs])
        if cls is tuple and arguments and arguments[-1] is not ...:
            pairs = zip(arguments, written, strict=True)
            return tuple([self.restore(declared, item) for declared, item in pairs])
        items = [self.restore(arguments[0] if arguments else Any, item) for item in written]
        return cls(items) if issubclass(cls, (tuple, set, frozenset)) else items

    def _fields(self, cls: Any, arguments: tuple[Any, ...], written: dict[str, Any]) -> Any:
        if not isinstance(cls, type) or cls is object or issubclass(cls, Mapping):
            keys, values = arguments if len(arguments) == 2 else (Any, Any)
            return {_key(keys, name): self.restore(values, item) for name, item in written.items()}
        declared = _types(cls)
        return cls(**{name: self.restore(declared.get(name, Any), item) for name, item in written.items()})


@once_a_class
def _types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, localns=dict(globals_of(cls)))


def _is_recorded_as(value: Any, written: Any) -> bool:
    recorded = readable(value)
    return type(recorded) is type(written) and bool(recorded == written)


def _key(declared: Any, name: str) -> Any:
    if declared is str:
        return name
    try:
        return restore(declared, json.loads(name), {})
    except ValueError:  # a text is recorded as it is
        return restore(declared, name, {})


def _from_text(cls: type, text: str) -> Any:
    """Restore a value that is recorded as text: by its value, its name or its `repr`."""
    if issubclass(cls, enum.Enum):
        return cls[text.removeprefix(f"{cls.__qualname__}.")]
    if issubclass(cls, pathlib.PurePath):
        return cls(text)
    if cls in (int, float):  # a large int; NaN or infinity
        return cls(text)
    if cls in (bytes, complex):
        return ast.literal_eval(text)
    return _evaluated(ast.parse(text, mode="eval").body) if cls in _BY_REPR.values() else text


def _evaluated(expression: ast.expr) -> Any:
    """Evaluate the `repr` of a date, a number or the like. Calls only the constructors in `_BY_REPR`."""
    if isinstance(expression, ast.Call):
        called = expression.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name not in _BY_REPR:
            raise ValueError(f"a call of {name!r}")
        named = {str(one.arg): _evaluated(one.value) for one in expression.keywords}
        return _BY_REPR[name](*map(_evaluated, expression.args), **named)
    if ast.unparse(expression) == "datetime.timezone.utc":
        return dt.UTC
    return ast.literal_eval(expression)
