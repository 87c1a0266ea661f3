"""MODULE:NAME to nodes. Imports what the user of the command names, and nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from furu.core import Furu
from furu.execution.discovery import check_root

HELP = "MODULE:NAME, or FILE.py:NAME: a node, an iterable of nodes, or a function that returns them."


def load_roots(target: str) -> list[Furu[Any]]:
    """Return the nodes that `target` names. Raises `typer.BadParameter` if it names none."""
    module_name, colon, name = target.rpartition(":")
    if not colon or not module_name or not name:
        raise typer.BadParameter(f"{target!r} is not MODULE:NAME, such as train:models")
    value = _look_up(_import(module_name), name, target)
    if callable(value) and not isinstance(value, (Furu, type)):
        value = value()
    return _nodes(value, target)


def _import(name: str) -> Any:
    directory = "."
    if name.endswith(".py"):
        path = Path(name)
        directory, name = str(path.parent), path.stem
    sys.path.insert(0, str(Path(directory).resolve()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise typer.BadParameter(
                f"there is no module {name!r} here or among what is installed"
            ) from None
        raise


def _look_up(module: Any, name: str, target: str) -> Any:
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise typer.BadParameter(f"{target}: {module.__name__} has no {name!r}")
        value = getattr(value, part)
    return value


def _nodes(value: Any, target: str) -> list[Furu[Any]]:
    if isinstance(value, Furu):
        return [value]
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        what = f"the class {value.__qualname__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise typer.BadParameter(
            f"{target} is {what}: name a node, an iterable of nodes, or a function that returns them"
        )
    nodes = list(value)
    for number, node in enumerate(nodes):
        check_root(node, number)
    return nodes
