"""Finds the nodes that MODULE:NAME names. Imports only modules that the user names on the command line."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from furu._common.origin import FILE_MARK, SCRIPTS
from furu._common.text import a_type
from furu.cli.output import showing_user_errors
from furu.execution.discovery import check_root
from furu.node.furu import Furu

HELP = "MODULE:NAME, or FILE.py:NAME: a node, an iterable of nodes, or a function that returns them."
_MISSING = object()


def load_roots(target: str) -> list[Furu[Any]]:
    """Return the nodes that `target` names. Raises `typer.BadParameter` if it does not name nodes."""
    module_name, colon, name = target.rpartition(":")
    if not colon or not module_name or not name:
        raise typer.BadParameter(f"{target!r} is not MODULE:NAME, such as train:models")
    module = _import_file(module_name) if module_name.endswith(".py") else _import_module(module_name)
    value = _look_up(module, name, target)
    if callable(value) and not isinstance(value, (Furu, type)):
        with showing_user_errors(target):
            value = value()
    return _nodes(value, target)


def _import_module(name: str) -> ModuleType:
    with contextlib.suppress(FileNotFoundError):  # the working directory was deleted
        _search_first(os.getcwd())
        SCRIPTS.add(os.path.abspath(f"{name}.py"))
    with showing_user_errors(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise
    raise typer.BadParameter(f"there is no module {name!r} in this directory or installed")


def _import_file(name: str) -> ModuleType:
    """Import a file by its path, as `import` does if the file's directory is first in the search path. If
    another imported module has the same name, a mark and the path are appended to the file's module name.
    """
    if not os.path.isfile(name):
        raise typer.BadParameter(f"there is no file {name}")
    path = Path(name).resolve()
    SCRIPTS.add(str(path))
    _search_first(str(path.parent))
    name = path.stem
    if name in sys.modules and not _is_from(sys.modules[name], path):
        name = f"{name}{FILE_MARK}{path}"
    return sys.modules.get(name) or _load_file(name, path)


def _load_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise typer.BadParameter(f"{path} cannot be imported as Python source")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with showing_user_errors(str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).resolve() == path


def _search_first(directory: str) -> None:
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)


def _look_up(module: ModuleType, name: str, target: str) -> Any:
    value: Any = module
    for part in name.split("."):
        with showing_user_errors(target):
            value = getattr(value, part, _MISSING)
        if value is _MISSING:
            raise typer.BadParameter(f"{target}: {module.__name__.partition(FILE_MARK)[0]} has no {name!r}")
    return value


def _nodes(value: Any, target: str) -> list[Furu[Any]]:
    if isinstance(value, Furu):
        return [value]
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        what = f"the class {value.__qualname__}" if isinstance(value, type) else a_type(value)
        raise typer.BadParameter(
            f"{target} is {what}: name a node, an iterable of nodes, or a function that returns them"
        )
    with showing_user_errors(target):
        nodes = list(value)
    for number, node in enumerate(nodes):
        check_root(node, number)
    return nodes
