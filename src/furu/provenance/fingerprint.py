"""The fingerprint of a class's code: whether an artifact was made by the code that is running now.

The fingerprint covers the source of the class, and the functions, classes and constants of the project that
the source names, directly or through others. It is the same in every process, directory and supported
version of Python, whether a file is a script or a module, and whatever the file is called. These do not
count:

    comments, docstrings, formatting; the order of methods; annotations of functions and variables
    the fields of the class, whose values are in the hash of each node
    settings and hooks that do not affect the value: `_version`, `_retry`, `_validate`, ...
    the standard library, installed packages, and furu
    node classes that the source names, except as base classes: their artifacts have a fingerprint too

Code that is reached in other ways is not seen: `getattr`, plug-ins, data files, code that is replaced at
run time. If a source file no longer matches the code that was imported, or there is no source, the class
has no fingerprint, and nothing is reported.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import logging
import os
import re
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType, MappingProxyType
from typing import Any

from furu._common.origin import Origin, globals_of, origin
from furu.provenance.modules import Module, Project, cells, is_library, live_names, read_cell, read_module
from furu.provenance.repository import commit_of
from furu.provenance.syntax import Imported, canonical, constant_text, is_definition

__all__ = ["Provenance", "fingerprint", "is_redefined", "provenance"]

logger = logging.getLogger("furu.code")

# `ast.parse` may raise SystemError if two threads parse at once (CPython issue 106905). This is how often
# to try again if the program itself parses in another thread.
_MAX_READS = 20
_reading = threading.RLock()
_known: weakref.WeakKeyDictionary[type, Provenance] = weakref.WeakKeyDictionary()

_DIGEST_BYTES = 8
# A definition with more parts than this is not analysed: it is generated code.
_MAX_DEFINITIONS = 10_000
_SCALARS = (bool, int, float, str, bytes, type(None))
_NODE_CLASS = re.compile(r"import:furu\.(.+\.)?(Furu|Node|File)\Z")
# Functions that `dataclass` and furu generate.
_GENERATED = frozenset({"__init__", "__replace__", "__match_args__"})
# Flags of code objects that say what kind of function it is. The others depend on the compiler's options.
_KIND_FLAGS = 0x2AF

_MAX_DECORATORS = 20
_Cached = type(functools.lru_cache(lambda: None))

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made an artifact: the origin of the class, the fingerprint of its code, the commit that was
    checked out, and the version of Python. Unknown values are empty."""

    origin: Origin
    code: str = ""
    commit: str = ""
    python: str = ""


def provenance(cls: type, source: Origin, made_at: float) -> Provenance:
    """Return what makes a class's artifacts: its code, and the commit and the Python that run it."""
    with _reading:  # so that of several threads that ask for one class, one reads it
        known = _known.get(cls)
        if known is None:
            commit = commit_of(source.file) if source.file and not is_library(source.file) else ""
            python = sys.version.partition(" ")[0]
            known = _known[cls] = Provenance(source, fingerprint(cls, made_at), commit, python)
        return known


def fingerprint(cls: type, made_at: float) -> str:
    """Return the fingerprint of a class that was created at `made_at`; empty if there is none.

    Reads and parses source files, so it takes milliseconds, and must not run on an event loop. Works in one
    thread at a time.
    """
    with _reading:
        return _read_fingerprint(cls, made_at)


def _read_fingerprint(cls: type, made_at: float) -> str:
    for _ in range(_MAX_READS):
        try:
            module = _module_of(cls)
            if module is None or cls.__qualname__.partition(".")[0] not in module.statements:
                return ""
            code = _Code(cls, module)
            code.read()
            return code.digest() if code.is_running(made_at) else ""
        except SystemError:  # from Python's parser, if another thread of the program parses too
            continue
        except (RecursionError, MemoryError):
            return ""
        except Exception:  # the source may contain anything, and no node may fail because of it
            logger.debug("no fingerprint of %s", cls.__qualname__, exc_info=True)
            return ""
    return ""


class _Code:
    """The definitions that a class's code consists of, in the order in which the source names them."""

    def __init__(self, cls: type, module: Module) -> None:
        self._cls = cls
        self._home = module
        self._project = Project(module.file)
        self._project.add(module)
        self._numbers: dict[_Key, int] = {}
        self._reached: list[tuple[Module, str]] = []
        self._bases: set[_Key] = set()
        self._node_classes: dict[_Key, bool] = {}
        self._texts: list[str] = []

    def read(self) -> None:
        """Read the class and everything that it names."""
        name, _, rest = self._cls.__qualname__.partition(".")
        self._number(self._home, name)
        self._node_classes[self._home.file, name] = not rest
        self._texts = [rest, *(_closure(self._cls) if rest else ())]
        for module, name in self._reached:  # grows during the loop
            statements = self._statements(module, name)
            is_node_class = self._is_node_class(module, name)
            for statement in statements:
                self._note_bases(module, statement)
                if not (isinstance(statement, ast.AnnAssign) and statement.value is None):
                    resolve = _Resolver(self, module)
                    self._texts.append(canonical(statement, resolve, is_node_class=is_node_class))
            if len(self._reached) > _MAX_DEFINITIONS:
                raise MemoryError

    def _statements(self, module: Module, name: str) -> Sequence[ast.stmt]:
        """Return the statements that bind a name. If the file defines the class several times, only those
        at the lines of the class's methods count."""
        statements = module.statements[name]
        if len(statements) > 1 and module is self._home and name == self._cls.__qualname__:
            lines = {function.__code__.co_firstlineno for function in _functions(self._cls)}
            own = [one for one in statements if lines & set(range(one.lineno, (one.end_lineno or 0) + 1))]
            return own or statements
        return statements

    def digest(self) -> str:
        text = "\0".join(self._texts)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()

    def resolve(
        self, module: Module, path: tuple[str, ...], imported: Imported | None
    ) -> tuple[str, int] | None:
        """Return what stands for a name in the canonical form. See `syntax.Resolve`."""
        found = self._project.find(module, path, imported)
        if found is None:
            return None
        if found.module is None:
            return found.name, found.used
        key = found.module.file, found.name
        is_new = key not in self._numbers and key not in self._bases
        if is_new and self._is_node_class(found.module, found.name):
            return f"node:{found.name}", found.used
        return f"#{self._number(found.module, found.name)}", found.used

    def _number(self, module: Module, name: str) -> int:
        key = module.file, name
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._reached.append((module, name))
        return self._numbers[key]

    def _note_bases(self, module: Module, statement: ast.stmt) -> None:
        for path in _base_paths(statement):
            found = self._project.find(module, path, None)
            if found is not None and found.module is not None:
                self._bases.add((found.module.file, found.name))

    def _is_node_class(self, module: Module, name: str) -> bool:
        """Whether a name is bound to a node class, according to the bases in the source."""
        key = module.file, name
        if key not in self._node_classes:
            self._node_classes[key] = self._leads_to_furu(module, name)
        return self._node_classes[key]

    def _leads_to_furu(self, module: Module, name: str) -> bool:
        seen: set[_Key] = set()
        pending = [(module, name)]
        while pending:
            module, name = pending.pop()
            if (module.file, name) in seen:
                continue
            seen.add((module.file, name))
            for path in (path for one in module.statements[name] for path in _base_paths(one)):
                found = self._project.find(module, path, None)
                if found is None:
                    continue
                if found.module is not None:
                    pending.append((found.module, found.name))
                elif _NODE_CLASS.match(found.name):
                    return True
        return False

    # ---- whether this source is the code that is running ----

    def is_running(self, made_at: float) -> bool:
        """Whether the source that was read is the source of the code that is running.

        The bytecode of functions must match. If a file was modified after the class was created, everything
        else must match too as far as it can be compared, and nothing may be left that cannot.
        """
        compiled: dict[str, Mapping[str, Sequence[CodeType]]] = {}
        for module, name in self._reached:
            if module.file not in compiled:
                compiled[module.file] = _compiled(module)
            names = globals_of(self._cls) if module is self._home else live_names(module)
            is_own = module is self._home and name == self._cls.__qualname__.partition(".")[0]
            value = self._cls if is_own else names.get(name)
            for function in _functions(value):
                if not _is_from(function, compiled[module.file], module):
                    return False
            if _is_newer(module, made_at) and not (
                (not names or all(_matches(one, value) for one in module.statements[name]))
                and "." not in self._cls.__qualname__
            ):
                return False
        return True


class _Resolver:
    """Resolves the names in one module."""

    def __init__(self, code: _Code, module: Module) -> None:
        self._code = code
        self._module = module

    def __call__(self, path: tuple[str, ...], imported: Imported | None) -> tuple[str, int] | None:
        return self._code.resolve(self._module, path, imported)


def _base_paths(statement: ast.stmt) -> Iterator[tuple[str, ...]]:
    """Yield the dotted paths of a class's bases, without their type arguments."""
    for base in statement.bases if isinstance(statement, ast.ClassDef) else ():
        expression: ast.expr = base.value if isinstance(base, ast.Subscript) else base
        path: list[str] = []
        while isinstance(expression, ast.Attribute):
            path.insert(0, expression.attr)
            expression = expression.value
        if isinstance(expression, ast.Name):
            yield (expression.id, *path)


def _module_of(cls: type) -> Module | None:
    """Return the module that defines a class: a source file, or the cells of a notebook."""
    file, names = origin(cls).file, globals_of(cls)
    if file:
        package = names.get("__package__")
        return read_module(cls.__module__, package if isinstance(package, str) else "", file)
    own = next((function.__code__.co_filename for function in _functions(cls)), "")
    cell = read_cell(own)
    return None if cell is None else _merged(cell, cells(), names)


def _merged(own: Module, others: Sequence[Module], names: Mapping[str, Any]) -> Module:
    """Return all cells of a notebook as one module. If several cells bind a name, the cell that made the
    current value counts, or else the last cell. The names of the class's own cell come first."""
    statements: dict[str, Sequence[ast.stmt]] = {}
    imports: dict[str, Imported] = {}
    for cell in (*others, own):
        imports |= cell.imports
        for name, bound in cell.statements.items():
            value = names.get(name)
            made_elsewhere = [function.__code__.co_filename for function in _functions(value)]
            is_value = not made_elsewhere or cell.file in made_elsewhere
            literal = _literal(bound[-1])
            if literal is not None and type(value) in _SCALARS:
                is_value = literal == [value]
            if cell is own or is_value or name not in statements:
                statements[name] = bound
    content = b"\n".join(cell.content for cell in (*others, own))
    return Module(
        own.name, "", own.file, content, MappingProxyType(statements), MappingProxyType(imports), own.stars
    )


# ---- code that is running ----


def _functions(value: Any) -> Iterator[FunctionType]:
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
def _compiled(module: Module) -> Mapping[str, Sequence[CodeType]]:
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


def _is_from(function: FunctionType, compiled: Mapping[str, Sequence[CodeType]], module: Module) -> bool:
    """Whether a function was compiled from this source. A function from elsewhere, such as a decorator's
    wrapper, is not compared."""
    code = function.__code__
    if os.path.basename(code.co_filename) != os.path.basename(module.file):
        return True
    return _behaviour(code) in map(_behaviour, compiled.get(code.co_qualname, ()))


def _behaviour(code: CodeType) -> Any:
    """Return what code does, without positions and docstrings, to compare it within this process."""
    constants = list(code.co_consts)
    if constants and (constants[0] is None or isinstance(constants[0], str)):
        constants[0] = None  # the docstring, if there is one
    pending = [_behaviour(one) if isinstance(one, CodeType) else (type(one), one) for one in constants]
    arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_name, code.co_code, tuple(pending), arguments, names, code.co_flags & _KIND_FLAGS


def _is_newer(module: Module, made_at: float) -> bool:
    try:
        return os.stat(module.file).st_mtime > made_at
    except OSError:  # the cell of a notebook
        return False


def _matches(statement: ast.stmt, value: Any) -> bool:
    """Whether a statement certainly binds this value. The bytecode of functions is compared elsewhere."""
    if isinstance(statement, ast.ClassDef):
        return isinstance(value, type) and all(
            _matches_attribute(one, value) for one in statement.body if not is_definition(one)
        )
    if is_definition(statement):
        return any(True for _ in _functions(value))
    literal = _literal(statement)
    return literal is not None and _is_same(literal[0], value)


def _matches_attribute(statement: ast.stmt, cls: type) -> bool:
    if isinstance(statement, ast.Pass | ast.Expr) or (
        isinstance(statement, ast.AnnAssign) and statement.value is None
    ):
        return True
    target = (
        statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    )
    literal = _literal(statement)
    return (
        literal is not None
        and isinstance(target, ast.Name)
        and _is_same(literal[0], vars(cls).get(target.id))
    )


def _literal(statement: ast.stmt) -> list[Any] | None:
    """Return the value that a statement assigns, in a list; None if it is not a literal."""
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        try:
            return [ast.literal_eval(statement.value)]
        except (ValueError, TypeError, SyntaxError):
            return None
    return None


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def _closure(cls: type) -> Iterator[str]:
    """Yield the values that the methods of a class in a function take from that function. Only scalars and
    tuples of scalars count with their values."""
    for function in sorted(_functions(cls), key=lambda one: one.__qualname__):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not yet assigned
                continue
            values = value if isinstance(value, tuple) else (value,)
            if name != "__class__" and all(type(one) in _SCALARS for one in values):
                yield f"{function.__qualname__} {name} {' '.join(map(constant_text, values))}"


# ---- classes that are defined again ----


def is_redefined(old: type, new: type) -> bool:
    """Whether two definitions of a class do different things. Compares the methods, and the attributes that
    are scalars; works without source, and only within one process."""
    return bool(_body(old) != _body(new))


def _body(cls: type) -> Any:
    methods = {(one.__name__, _behaviour(one.__code__)) for one in _functions(cls)}
    fields = vars(cls).get("__dataclass_fields__", ())
    attributes = {
        (name, type(value), value)
        for name, value in vars(cls).items()
        if type(value) in _SCALARS and name not in fields and not name.startswith("__")
    }
    return methods, attributes


def _after_fork() -> None:
    """Replace the lock in a forked child: the thread that holds it exists only in the parent."""
    global _reading
    _reading = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
