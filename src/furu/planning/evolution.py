"""Finds artifacts that a class lost when it was edited, and the line of code with which it would keep them.

A field that is added or renamed, and a class that is renamed or moved, changes the hashes of all its nodes.
The records of the store show what happened: they have the same values under the old names.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import furu.store.catalog as catalog
from furu._common.annotations import type_text
from furu.node.base import Node
from furu.node.names import stored_name
from furu.node.readable import HIDDEN, readable
from furu.settings import Settings

__all__ = ["Configurations", "Edit", "EditKind", "Edits", "by_names"]

EditKind = Literal["field added", "field renamed", "looks renamed"]

# The largest number of artifacts of classes without a living class that are read.
_MAX_READ = 2000
_MAX_DEFAULT_CHARS = 60

# Recorded configurations as text, by the names of their fields.
Configurations = Mapping[frozenset[str], AbstractSet[str]]


def by_names(configs: Iterable[Mapping[str, Any]]) -> Configurations:
    """Group recorded configurations by the names of their fields."""
    grouped: dict[frozenset[str], set[str]] = {}
    for config in configs:
        grouped.setdefault(frozenset(config), set()).add(_text(config))
    return grouped


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """How a class was edited. `names` are the new fields, the old and the new name of a field, or the old
    name of the class. `line` would keep the artifacts if it were written in the class."""

    kind: EditKind
    names: tuple[str, ...]
    line: str


class Edits:
    """Finds the edits of classes. `wanted` contains the hashes of all nodes in the plan, which are still
    needed, so that their records are no remains of an older class."""

    def __init__(self, settings: Settings, wanted: set[str]) -> None:
        self._settings = settings
        self._wanted = wanted
        self._lost: dict[str, list[_Lost]] | None = None

    def find(self, node: Node[Any], config: Mapping[str, Any], before: Configurations) -> Edit | None:
        """Return the edit that separates a node from one of the recorded configurations `before` of its
        class, or from the node of a class that no longer exists; None if there is no such edit."""
        text = _text(config)
        if HIDDEN in text:  # hidden fields may differ
            return None
        if not before:
            return self._renamed(node, config, text)
        now = config.keys()
        for names, texts in before.items():
            added, removed = now - names, names - now
            if added and not removed and _text({name: config[name] for name in names}) in texts:
                if not all(_is_default(node, name, config[name]) for name in added):
                    continue
                new = tuple(name for name in config if name in added)
                return Edit("field added", new, "; ".join(_added_line(node, name) for name in new))
            if len(added) == len(removed) == 1:
                [new_name], [old] = added, removed
                renamed = {old if name == new_name else name: value for name, value in config.items()}
                if _text(renamed) in texts:
                    return Edit("field renamed", (old, new_name), _renamed_line(node, old, new_name))
        return None

    def _renamed(self, node: Node[Any], config: Mapping[str, Any], text: str) -> Edit | None:
        if self._lost is None:
            self._lost = {}
            for config_text, lost in self._read_lost():
                self._lost.setdefault(config_text, []).append(lost)
        for lost in self._lost.get(text, ()):
            if lost.may_be(type(node)):
                return Edit("looks renamed", (lost.node_class,), f'_name = "{lost.node_class}"')
        return None

    def _read_lost(self) -> Iterator[tuple[str, _Lost]]:
        """Yield the configurations in the store whose class is not among the classes of this process."""
        living = {stored_name(cls) for cls in _classes(Node)}
        artifacts = (
            artifact
            for name, _ in catalog.class_directories(self._settings.store)
            if name not in living
            for artifact in catalog.walk(self._settings, node_class=name)
            if artifact.hash not in self._wanted
        )
        for artifact in itertools.islice(artifacts, _MAX_READ):
            record = catalog.read_small(artifact)
            if record is not None and record.node_class not in living:
                yield _text(record.config), _Lost(record.node_class, record.code, record.source)


@dataclasses.dataclass(frozen=True, slots=True)
class _Lost:
    """What a record says about a class that is not among the classes of this process: its name, the
    fingerprint of its code, and its source file."""

    node_class: str
    code: str
    source: str

    def may_be(self, cls: type[Node[Any]]) -> bool:
        """Whether the class is probably the same, under another name.

        A class that merely is not imported here may have the same fields. So its source file must not
        define it any more, and its code or its name within the module must be the same.
        """
        qualname = self.node_class.partition(":")[2]
        if self.source and _defines(self.source, qualname):
            return False
        has_same_code = bool(self.code) and self.code == cls._facts.provenance.code
        return has_same_code or (bool(self.source) and qualname == cls.__qualname__)


def _defines(source: str, qualname: str) -> bool:
    """Whether a source file defines a class of this name, as far as its text shows."""
    name = qualname.rpartition(".")[2]
    try:
        text = Path(source).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    except OSError:  # it may well define the class
        return True
    return re.search(rf"^\s*class\s+{re.escape(name)}\b", text, re.MULTILINE) is not None


def _is_default(node: Node[Any], name: str, recorded: Any) -> bool:
    """Whether the recorded value of a field is the field's default."""
    field = _field(node, name)
    has_default = not (field.default is field.default_factory is dataclasses.MISSING)
    return has_default and _text(readable(type(node)._facts.default(field))) == _text(recorded)


def _added_line(node: Node[Any], name: str) -> str:
    return (
        f"{name}: {_annotation(node, name)} = furu.field({_default_text(_field(node, name))}, added=True)"
    )


def _renamed_line(node: Node[Any], old: str, new: str) -> str:
    default = _default_text(_field(node, new))
    return (
        f'{new}: {_annotation(node, new)} = furu.field({default}{", " if default else ""}known_as="{old}")'
    )


def _default_text(field: dataclasses.Field[Any]) -> str:
    """Return how source code gives a field its default; empty if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        name = getattr(field.default_factory, "__qualname__", "...")
        return f"default_factory={name if name.isidentifier() else '...'}"
    if field.default is dataclasses.MISSING:
        return ""
    default = field.default
    if isinstance(default, enum.Enum):
        return f"default={type(default).__qualname__}.{default.name}"
    text = repr(default)
    return f"default={text if len(text) <= _MAX_DEFAULT_CHARS and _is_source(text) else '...'}"


def _is_source(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


def _field(node: Node[Any], name: str) -> dataclasses.Field[Any]:
    return next(field for field in dataclasses.fields(node) if field.name == name)


def _annotation(node: Node[Any], name: str) -> str:
    annotation = _field(node, name).type
    return annotation if isinstance(annotation, str) else type_text(annotation)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _classes(base: type) -> Iterator[type]:
    pending = [base]
    while pending:
        cls = pending.pop()
        yield cls
        pending += cls.__subclasses__()
