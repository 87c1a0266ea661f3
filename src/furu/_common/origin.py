"""The origin of a class: the module name that counts in identity, and the file that defines the class.

Python calls the module that it runs as a program `__main__`, whatever the name of its file. furu names a
class of such a module as if another program had imported the module, so that both programs share artifacts:

    python train.py, also under a profiler or a debugger    train
    python pkg/mod.py, python -m pkg.mod                    pkg.mod
    a notebook, python -c                                   __main__
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeVar

V = TypeVar("V")

# Separates the file's name from its path in the names of some modules that were imported by path.
FILE_MARK = "@"
# Files that a furu command imported by path, or from the working directory. They count as scripts.
SCRIPTS: set[str] = set()
# Python's names for the module of a program: in the program, in its child processes, in `runpy.run_path`.
_PROGRAMS = frozenset({"__main__", "__mp_main__", "<run_path>"})


@dataclass(frozen=True, slots=True)
class Origin:
    """The module name of a class, and the file that defines the class ("" if there is none).

    If `is_script`, the file was run directly or named in a furu command, so another script may have the
    same module name.
    """

    module: str
    file: str = ""
    is_script: bool = False


def class_name(cls: type) -> str:
    """Return the full name of a class: ``module:Outer.Class``."""
    return f"{module_name(cls)}:{cls.__qualname__}"


def module_name(cls: type) -> str:
    """Return the name by which another process can import the module of a class."""
    module = cls.__module__
    return module if "." in module and FILE_MARK not in module else origin(cls).module


def once_a_class(look: Callable[[type], V]) -> Callable[[type], V]:
    """Decorator for a function of a class: caches each class's result for as long as the class lives."""
    known: dict[weakref.ref[type], V] = {}

    def find(cls: type) -> V:
        try:
            return known[weakref.ref(cls)]
        except KeyError:
            key, value = weakref.ref(cls), look(cls)
            weakref.finalize(cls, known.pop, key, None).atexit = False
            return known.setdefault(key, value)

    return find


@once_a_class
def origin(cls: type) -> Origin:
    """Return the origin of a class.

    If the class is defined in a program's main module, call this while the class is being created. Under a
    profiler, that module cannot be found later, because `__main__` in `sys.modules` is the profiler.
    """
    module, names = cls.__module__, globals_of(cls)
    is_program = module in _PROGRAMS
    file = names.get("__file__")
    if not isinstance(file, str):
        return Origin("__main__" if is_program else module)
    # Touch the disk only for a relative path, because a class may be created on a running event loop.
    path = Path(os.path.normpath(file) if os.path.isabs(file) else os.path.abspath(file))
    recorded = str(path).encode("utf-8", "backslashreplace").decode()
    if not is_program:
        name, mark, _ = module.partition(FILE_MARK)
        is_script = bool(mark) or recorded in SCRIPTS
        return Origin(_in_package(path) if path.stem == name else name, recorded, is_script)
    spec_name = getattr(names.get("__spec__"), "name", "__main__")
    if spec_name not in _PROGRAMS:  # python -m
        return Origin(spec_name, recorded, is_script="." not in spec_name)
    return Origin(_in_package(path), recorded, is_script=True)


def globals_of(cls: type) -> Mapping[str, Any]:
    """Return the globals of the module that defines a class."""
    if cls.__module__ in _PROGRAMS or cls.__module__ not in sys.modules:  # as in runpy.run_path
        return _program_of(cls)
    return vars(sys.modules[cls.__module__])


def is_other_script(one: Origin, other: Origin) -> bool:
    """Whether classes of the same name come from different files, at least one of which is a script.

    A file that no longer exists is assumed to have been moved. Two files that are not scripts are accepted,
    because a package may be installed in several places.
    """
    if one.file == other.file or not (one.file and other.file and (one.is_script or other.is_script)):
        return False
    try:
        return not os.path.samefile(one.file, other.file)
    except OSError:
        return False


def place(cls: type) -> str:
    """Return where a class is defined, for messages: the file, and the line of the class's first method."""
    code: CodeType | None = next((function.__code__ for function in _functions(cls)), None)
    file = origin(cls).file or (code.co_filename if code else "")
    line = f", line {code.co_firstlineno}" if code else ""
    return f"{file or f'module {cls.__module__}'}{line}"


def _in_package(path: Path) -> str:
    """Return the module name of a file in a package, or the stem of a file that is in no package.

    The name of a `__main__.py` always includes its directory, because `__main__` alone would be ambiguous.
    """
    name, directory = path.stem, path.parent
    while directory.name and (name == "__main__" or _is_package(directory)):
        name = directory.name if name == "__init__" else f"{directory.name}.{name}"
        directory = directory.parent
    return name


def _is_package(directory: Path) -> bool:
    return directory.name.isidentifier() and (directory / "__init__.py").is_file()


def _program_of(cls: type) -> Mapping[str, Any]:
    """Return the globals of the program that defines a class.

    Under a profiler, `__main__` in `sys.modules` is the profiler. So the globals of the class's functions
    and of the running frames are tried first.
    """
    main = sys.modules.get(cls.__module__)
    if main is not None and main.__name__ != cls.__module__:  # a child process's copy of the program
        return vars(main)
    candidates = [*(function.__globals__ for function in _functions(cls)), *_globals_of_frames()]
    programs = [names for names in candidates if names.get("__name__") == cls.__module__]
    programs += [vars(main)] if main else []
    defining = (names for names in programs if _look_up(names, cls.__qualname__) is cls)
    return next(defining, programs[0] if programs else {})


def _functions(cls: type) -> Iterator[FunctionType]:
    """Yield the functions in a class's body, except those that a decorator generated from source text."""
    for value in vars(cls).values():
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        if isinstance(value, FunctionType) and value.__code__.co_filename != "<string>":
            yield value


def _globals_of_frames() -> Iterator[dict[str, Any]]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame.f_globals
        frame = frame.f_back


def _look_up(names: Mapping[str, Any], qualname: str) -> Any:
    first, *rest = qualname.split(".")
    found = names.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found
