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
import hashlib
import linecache
import logging
import os
import re
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, MappingProxyType
from typing import Any

from furu._common.origin import Origin, globals_of, origin
from furu.provenance.modules import Module, Project, cells, is_library, live_names, read_cell, read_module
from furu.provenance.repository import commit_of
from furu.provenance.running import (
    SCALARS,
    behaviour,
    compiled_code,
    functions_of,
    is_from,
    is_newer,
    literal_of,
    matches,
)
from furu.provenance.syntax import (
    Imported,
    canonical,
    constant_text,
    dotted_path,
    names_in_field_types,
)

__all__ = ["Provenance", "fingerprint", "is_redefined", "provenance"]

logger = logging.getLogger("furu.code")

# `ast.parse` may raise SystemError if two threads parse at once (CPython issue 106905). This is how often
# to try again if the program itself parses in another thread.
_MAX_READS = 20
_reading = threading.RLock()
# With how many cells there were, because a cell of a notebook may define again what a class uses.
_known: weakref.WeakKeyDictionary[type, tuple[Provenance, int]] = weakref.WeakKeyDictionary()

_DIGEST_BYTES = 8
# A definition with more parts than this is not analysed: it is generated code.
_MAX_DEFINITIONS = 10_000
_NODE_CLASS = re.compile(r"import:furu\.(.+\.)?(Furu|Node|File)\Z")


_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made an artifact: the origin of the class, the fingerprint of its code, the commit that was
    checked out, the version of Python, and the `_version` of the class. Unknown values are empty. `missing`
    are the hashes of nodes that had failed, and without which the artifact was made."""

    origin: Origin
    code: str = ""
    commit: str = ""
    python: str = ""
    version: int | str = 0
    missing: tuple[str, ...] = ()


def provenance(cls: type, source: Origin, made_at: float) -> Provenance:
    """Return what makes a class's artifacts: its code, and the commit and the Python that run it."""
    with _reading:  # so that of several threads that ask for one class, one reads it
        known, count = _known.get(cls, (None, 0))
        if known is None or (not source.file and count != len(linecache.cache)):
            commit = commit_of(source.file) if source.file and not is_library(source.file) else ""
            python = sys.version.partition(" ")[0]
            known = Provenance(source, fingerprint(cls, made_at), commit, python)
            _known[cls] = known, len(linecache.cache)
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
        self._next = 0  # the number of the next definition in `_reached` to read

    def read(self) -> None:
        """Read the class and everything that it names."""
        name, _, rest = self._cls.__qualname__.partition(".")
        self._number(self._home, name)
        self._node_classes[self._home.file, name] = not rest
        self._texts = [rest, *(_closure(self._cls) if rest else ())]
        annotated: list[tuple[Module, tuple[str, ...]]] = []
        self._read_reached(annotated)
        # Classes that only the types of fields name come last, so that another field changes no number.
        for module, path in sorted(annotated, key=lambda item: item[1]):
            self.resolve(module, path, None)
        self._read_reached([])

    def _read_reached(self, annotated: list[tuple[Module, tuple[str, ...]]]) -> None:
        """Read what has been reached, and what that reaches. Adds the names in the types of the class's
        fields to `annotated`."""
        while self._next < len(self._reached):
            module, name = self._reached[self._next]
            self._next += 1
            statements = self._statements(module, name)
            is_node_class = self._is_node_class(module, name)
            for statement in statements:
                self._note_bases(module, statement)
                if is_node_class:
                    annotated += [(module, path) for path in names_in_field_types(statement)]
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
            lines = {function.__code__.co_firstlineno for function in functions_of(self._cls)}
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
                compiled[module.file] = compiled_code(module)
            names = globals_of(self._cls) if module is self._home else live_names(module)
            is_own = module is self._home and name == self._cls.__qualname__.partition(".")[0]
            value = self._cls if is_own else names.get(name)
            for function in functions_of(value):
                if not is_from(function, compiled[module.file], module):
                    return False
            if is_newer(module, made_at) and not (
                (not names or all(matches(one, value) for one in module.statements[name]))
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
    """Yield the dotted paths of a class's bases, without their type arguments. An alias of a class, such as
    ``Base = Other``, counts as a class with this base."""
    bases = statement.bases if isinstance(statement, ast.ClassDef) else ()
    if isinstance(statement, ast.Assign):
        bases = [statement.value]
    for base in bases:
        path = dotted_path(base.value if isinstance(base, ast.Subscript) else base)
        if path:
            yield path


def _module_of(cls: type) -> Module | None:
    """Return the module that defines a class: a source file, or the cells of a notebook."""
    file, names = origin(cls).file, globals_of(cls)
    if file:
        package = names.get("__package__")
        return read_module(cls.__module__, package if isinstance(package, str) else "", file)
    own = next((function.__code__.co_filename for function in functions_of(cls)), "")
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
            made_elsewhere = [function.__code__.co_filename for function in functions_of(value)]
            is_value = not made_elsewhere or cell.file in made_elsewhere
            literal = literal_of(bound[-1])
            if literal is not None and type(value) in SCALARS:
                is_value = literal == [value]
            if cell is own or is_value or name not in statements:
                statements[name] = bound
    content = b"\n".join(cell.content for cell in (*others, own))
    return Module(
        own.name, "", own.file, content, MappingProxyType(statements), MappingProxyType(imports), own.stars
    )


def _closure(cls: type) -> Iterator[str]:
    """Yield the values that the methods of a class in a function take from that function. Only scalars and
    tuples of scalars count with their values."""
    for function in sorted(functions_of(cls), key=lambda one: one.__qualname__):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not yet assigned
                continue
            values = value if isinstance(value, tuple) else (value,)
            if name != "__class__" and all(type(one) in SCALARS for one in values):
                yield f"{function.__qualname__} {name} {' '.join(map(constant_text, values))}"


# ---- classes that are defined again ----


def is_redefined(old: type, new: type) -> bool:
    """Whether two definitions of a class do different things. Compares the methods, and the attributes that
    are scalars; works without source, and only within one process."""
    return bool(_body(old) != _body(new))


def _body(cls: type) -> Any:
    methods = {(one.__name__, behaviour(one.__code__)) for one in functions_of(cls)}
    fields = vars(cls).get("__dataclass_fields__", ())
    attributes = {
        (name, type(value), value)
        for name, value in vars(cls).items()
        if type(value) in SCALARS and name not in fields and not name.startswith("__")
    }
    return methods, attributes


def _after_fork() -> None:
    """Replace the lock in a forked child: the thread that holds it exists only in the parent."""
    global _reading
    _reading = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
