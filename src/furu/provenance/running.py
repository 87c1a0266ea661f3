"""Whether the source that was read is the source of the code that is running."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

from furu.provenance.modules import Module
from furu.provenance.syntax import is_definition

__all__ = [
    "SCALARS",
    "behaviour",
    "compiled_code",
    "functions_of",
    "is_from",
    "is_newer",
    "literal_of",
    "matches",
]

SCALARS = (bool, int, float, str, bytes, type(None))
# Functions that `dataclass` and furu generate.
_GENERATED = frozenset({"__init__", "__replace__", "__match_args__"})
# Flags of code objects that say what kind of function it is. The others depend on the compiler's options.
_KIND_FLAGS = 0x2AF
_MAX_DECORATORS = 20
_Cached = type(functools.lru_cache(lambda: None))


def functions_of(value: Any) -> Iterator[FunctionType]:
    """Yield a function, or the functions in the body of a class, without their decorators."""
    values = list(vars(value).items()) if isinstance(value, type) else [("", value)]
    for name, one in values:
        if name in _GENERATED:
            continue
        if isinstance(one, property):
            parts = [one.fget, one.fset]
        else:
            parts = [one.func if isinstance(one, functools.cached_property) else one]
        for part in map(_undecorated, parts):
            if isinstance(part, FunctionType) and part.__module__ != "furu.node.furu":
                yield part


def _undecorated(value: Any) -> Any:
    """Return the function inside decorators that say what they wrap. Does not call methods of the value."""
    for _ in range(_MAX_DECORATORS):
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, FunctionType | _Cached) and "__wrapped__" in vars(value):
            value = vars(value)["__wrapped__"]
    return value


@functools.lru_cache(maxsize=64)
def compiled_code(module: Module) -> Mapping[str, Sequence[CodeType]]:
    """Compile a module, and return the code of its functions by qualified name."""
    found: dict[str, list[CodeType]] = {}
    try:
        pending = [compile(module.content, module.file, "exec", dont_inherit=True)]
    except (SyntaxError, ValueError):
        return found
    while pending:
        code = pending.pop()
        found.setdefault(code.co_qualname, []).append(code)
        pending += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


def is_from(function: FunctionType, compiled: Mapping[str, Sequence[CodeType]], module: Module) -> bool:
    """Whether a function was compiled from this source. A function from elsewhere, such as a decorator's
    wrapper, is not compared."""
    code = function.__code__
    if os.path.basename(code.co_filename) != os.path.basename(module.file):
        return True
    return behaviour(code) in map(behaviour, compiled.get(code.co_qualname, ()))


def behaviour(code: CodeType) -> Any:
    """Return what code does, without positions and docstrings, to compare it within this process."""
    constants = list(code.co_consts)
    if constants and (constants[0] is None or isinstance(constants[0], str)):
        constants[0] = None  # the docstring, if there is one
    pending = [behaviour(one) if isinstance(one, CodeType) else (type(one), one) for one in constants]
    arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_name, code.co_code, tuple(pending), arguments, names, code.co_flags & _KIND_FLAGS


def is_newer(module: Module, made_at: float) -> bool:
    """Whether a module's file has changed since `made_at`."""
    try:
        info = os.stat(module.file)
        return max(info.st_mtime, info.st_ctime) > made_at  # a copy may keep an old mtime
    except OSError:  # the cell of a notebook
        return False


def matches(statement: ast.stmt, value: Any) -> bool:
    """Whether a statement certainly binds this value. The bytecode of functions is compared elsewhere."""
    if isinstance(statement, ast.ClassDef):
        return isinstance(value, type) and all(
            _matches_attribute(one, value) for one in statement.body if not is_definition(one)
        )
    if is_definition(statement):
        return any(True for _ in functions_of(value))
    literal = literal_of(statement)
    return literal is not None and _is_same(literal[0], value)


def _matches_attribute(statement: ast.stmt, cls: type) -> bool:
    if isinstance(statement, ast.Pass | ast.Expr) or (
        isinstance(statement, ast.AnnAssign) and statement.value is None
    ):
        return True
    target = (
        statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    )
    literal = literal_of(statement)
    return (
        literal is not None
        and isinstance(target, ast.Name)
        and _is_same(literal[0], vars(cls).get(target.id))
    )


def literal_of(statement: ast.stmt) -> list[Any] | None:
    """Return the value that a statement assigns, in a list; None if it is not a literal."""
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        try:
            return [ast.literal_eval(statement.value)]
        except (ValueError, TypeError, SyntaxError):
            return None
    return None


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)
