"""The source files of a user's project: what each module binds, and what a name in a module means.

Everything here comes from source text, so that the answer does not depend on what has been imported so far.
Nothing is imported. Files of the standard library, of installed packages and of furu are not read.
"""

from __future__ import annotations

import ast
import functools
import linecache
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from types import MappingProxyType
from typing import Any

from furu.provenance.syntax import Imported, imports_of, is_definition

__all__ = ["Found", "Module", "Project", "cells", "is_library", "live_names", "read_cell", "read_module"]

# At most this many parsed files are kept, because a syntax tree is large.
_KEPT_FILES = 64
_FURU = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """The bindings of a source file: the statements that bind each name, and the imports.

    `name` is the module's full name, and `package` is what relative imports refer to. `file` is the path of
    the file, or the name of a notebook's cell.
    """

    name: str
    package: str
    file: str
    content: bytes
    statements: Mapping[str, Sequence[ast.stmt]]
    imports: Mapping[str, Imported]
    stars: Sequence[Imported] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a dotted path means: a binding of a project's module, or a name outside the project (`module` is
    None). `used` parts of the path lead there."""

    module: Module | None
    name: str
    used: int


class Project:
    """The modules of the project that a class belongs to. `home` is the file of the class."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._package = _top_directory(home)
        self._modules: dict[str, Module | None] = {}

    def add(self, module: Module) -> None:
        """Add a module that was read already."""
        self._modules[module.name] = module

    def module(self, name: str) -> Module | None:
        """Return a module of the project; None for other modules, and if the source is not available."""
        if name not in self._modules:
            file = file_of_module(name)
            is_package = file is not None and os.path.basename(file) == "__init__.py"
            package = name if is_package else name.rpartition(".")[0]
            self._modules[name] = read_module(name, package, file) if file and self.owns(file) else None
        return self._modules[name]

    def owns(self, file: str) -> bool:
        """Whether a file is part of the project. If the class itself is installed, its package is."""
        if file == self._home:
            return True
        if file.startswith(_FURU):
            return False
        if self._package and file.startswith(self._package):
            return True
        return not is_library(file)

    def find(self, module: Module, path: tuple[str, ...], imported: Imported | None) -> Found | None:
        """Return what a dotted path in a module means; None if its first name is not bound there."""
        seen: set[tuple[str, str]] = set()
        used = 1
        while True:
            if imported is None:
                name = path[used - 1]
                if name in module.statements:
                    return Found(module, name, used)
                imported = module.imports.get(name) or self._starred(module, name)
                if imported is None or (module.name, name) in seen:
                    return None if used == 1 else Found(None, f"{module.name}.{name}", used)
                seen.add((module.name, name))
            target = _absolute(imported, module.package)
            attribute, imported = imported.attribute, None
            found = self._enter(target, attribute, path, used)
            if isinstance(found, Found):
                return found
            module, path, used = found

    def _enter(
        self, target: str, attribute: str | None, path: tuple[str, ...], used: int
    ) -> Found | tuple[Module, tuple[str, ...], int]:
        """Follow the rest of a path into a module: either to its end, or to a name in another module."""
        while True:
            inside = self.module(target)
            if attribute is None and used < len(path):
                attribute, used = path[used], used + 1
            if attribute is None:
                return Found(None, "module" if inside else f"import:{target}", used)
            below = f"{target}.{attribute}"
            known = inside is not None and (
                attribute in inside.statements
                or attribute in inside.imports
                or self._starred(inside, attribute) is not None
            )
            if inside is not None and known:
                return inside, (*path[: used - 1], attribute, *path[used:]), used
            if self.module(below) is None:
                if inside is not None:
                    return Found(None, f"module.{attribute}", used)
                if not self._has_modules_below(target):
                    return Found(None, f"import:{below}", used)
            target, attribute = below, None

    def _has_modules_below(self, name: str) -> bool:
        """Whether a name is a namespace package of the project, which has no file of its own."""
        directories = _directories_of(name)
        return any(self.owns(os.path.join(directory, "")) for directory in directories)

    def _starred(self, module: Module, name: str) -> Imported | None:
        for star in module.stars:
            target = _absolute(star, module.package)
            source = self.module(target)
            if source is None or source is module:
                continue
            if name in source.statements or name in source.imports:
                return Imported(target, name)
        return None


def is_library(file: str) -> bool:
    """Whether a file belongs to the standard library or to an installed package."""
    if any(part in _INSTALLED for part in file.split(os.sep)):
        return True
    return file.startswith(_library_directories())


@functools.cache
def _library_directories() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    places = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    places |= {os.path.realpath(place) for place in places}
    return tuple(os.path.join(place, "") for place in places)


def file_of_module(name: str) -> str | None:
    """Return the path of a module's source file, without importing anything; None if there is none."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return os.path.abspath(file) if isinstance(file, str) and file.endswith(".py") else None
    parent, _, _ = name.rpartition(".")
    places = _directories_of(parent) if parent else None
    if parent and not places:
        return None
    try:
        spec = PathFinder.find_spec(name, places)
    except (ImportError, ValueError, AttributeError):
        return None
    file = spec.origin if spec is not None and spec.has_location else None
    return os.path.abspath(file) if file is not None and file.endswith(".py") else None


def _directories_of(name: str) -> list[str]:
    """Return the directories of a package; an empty list if the name is not a package."""
    module = sys.modules.get(name)
    if module is not None:
        return [place for place in getattr(module, "__path__", ()) if isinstance(place, str)]
    parent, _, _ = name.rpartition(".")
    places = _directories_of(parent) if parent else None
    if parent and not places:
        return []
    try:
        spec = PathFinder.find_spec(name, places)
    except (ImportError, ValueError, AttributeError):
        return []
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def read_module(name: str, package: str, file: str) -> Module | None:
    """Read and parse a source file; None if that is not possible."""
    try:
        info = os.stat(file)
        return _parse_file(name, package, file, info.st_mtime_ns, info.st_size)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=_KEPT_FILES)
def _parse_file(name: str, package: str, file: str, mtime_ns: int, size: int) -> Module:
    """Parse a file. The time and the size are part of the key, so that a changed file is read again."""
    with open(file, "rb") as opened:
        content = opened.read()
    return _parse(name, package, file, content)


def _parse(name: str, package: str, file: str, content: bytes) -> Module:
    bindings = _Bindings()
    bindings.read(ast.parse(content).body)
    return Module(
        name,
        package,
        file,
        content,
        MappingProxyType(bindings.statements),
        MappingProxyType(bindings.imports),
        tuple(bindings.stars),
    )


def cells() -> list[Module]:
    """Return the cells of a notebook that can be read, in the order of their definition."""
    found = []
    for name, entry in list(linecache.cache.items()):
        if len(entry) != 4 or entry[1] is not None or name.startswith("<attrs "):
            continue
        cell = read_cell(name)
        if cell is not None:
            found.append(cell)
    return found


def read_cell(name: str) -> Module | None:
    """Return a cell, or other code without a file, whose text `linecache` has; None if it has none."""
    text = "".join(linecache.getlines(name))
    if not text:
        return None
    try:
        return _parse("__main__", "", name, text.encode("utf-8", "surrogatepass"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@dataclass(slots=True)
class _Bindings:
    """The names that the statements of a module bind, except inside functions and classes."""

    statements: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, Imported] = field(default_factory=dict)
    stars: list[Imported] = field(default_factory=list)

    def read(self, body: Sequence[ast.stmt]) -> None:
        pending: list[ast.AST] = list(reversed(body))
        while pending:
            statement = pending.pop()
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for name, imported in imports_of(statement).items():
                    if imported.attribute == "*":
                        self.stars.append(imported)
                    else:
                        self.imports[name] = imported
            elif is_definition(statement):
                self._bind(statement.name, statement)
            elif isinstance(statement, ast.If | ast.Try | ast.TryStar | ast.With | ast.While | ast.Match):
                pending += reversed(list(ast.iter_child_nodes(statement)))
            elif isinstance(statement, ast.ExceptHandler | ast.match_case):
                pending += reversed(statement.body)
            elif isinstance(statement, ast.stmt):
                parts = ast.walk(statement) if isinstance(statement, ast.For) else [statement]
                for name in dict.fromkeys(name for part in parts for name in _targets(part)):
                    self._bind(name, statement)

    def _bind(self, name: str, statement: ast.stmt) -> None:
        self.statements.setdefault(name, []).append(statement)


# Methods whose call, as a statement, changes no value that a node computes.
_CHANGING_NOTHING = {
    "addFilter",
    "addHandler",
    "setLevel",
    "debug",
    "info",
    "get",
    "items",
    "keys",
    "values",
}


def _targets(statement: ast.AST) -> Iterator[str]:
    """Yield the names that a statement binds or changes: ``X = 1``, ``X["a"] = 1``, ``X.append(1)``."""
    if isinstance(statement, ast.Assign):
        targets: list[ast.AST] = list(statement.targets)
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign | ast.For):
        targets = [statement.target]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        called = statement.value.func
        changes = isinstance(called, ast.Attribute) and called.attr not in _CHANGING_NOTHING
        targets = [called.value] if isinstance(called, ast.Attribute) and changes else []
    else:
        targets = []
    while targets:
        target = targets.pop(0)
        if isinstance(target, ast.Tuple | ast.List):
            targets[:0] = target.elts
        elif isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
            targets.insert(0, target.value)
        elif isinstance(target, ast.Name):
            yield target.id


def _absolute(imported: Imported, package: str) -> str:
    """Return the full name of the module of an import."""
    if not imported.level:
        return imported.module
    base = package.rsplit(".", imported.level - 1)[0] if imported.level > 1 else package
    return f"{base}.{imported.module}" if imported.module else base


def _top_directory(file: str) -> str:
    """Return the directory of the outermost package that contains a file; empty if it is in no package."""
    top, directory = "", os.path.dirname(file)
    while os.path.isfile(os.path.join(directory, "__init__.py")):
        top, directory = directory, os.path.dirname(directory)
    return os.path.join(top, "") if top and not _FURU.startswith(os.path.join(top, "")) else ""


def live_names(module: Module) -> Mapping[str, Any]:
    """Return the globals of a module that has been imported; empty if it has not."""
    loaded = sys.modules.get(module.name)
    return vars(loaded) if loaded is not None else {}
