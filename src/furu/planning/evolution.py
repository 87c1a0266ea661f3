"""Finds artifacts that a class lost when it was edited, and the line of code with which it would keep them.

A field that is added or renamed, and a class that is renamed or moved, changes the hashes of all its nodes.
The records of the store show what happened: they have the same values under the old names.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import furu.store.catalog as catalog
from furu._common.annotations import type_text
from furu.node.base import Node
from furu.node.names import stored_name
from furu.node.readable import HIDDEN
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
        self._lost: dict[str, str] | None = None

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
            self._lost = dict(self._read_lost())
        name = self._lost.get(text)
        qualname = type(node).__qualname__
        if name is None or not (config or name.partition(":")[2] == qualname):
            return None
        return Edit("looks renamed", (name,), f'_name = "{name}"')

    def _read_lost(self) -> Iterator[tuple[str, str]]:
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
                yield _text(record.config), record.node_class


def _added_line(node: Node[Any], name: str) -> str:
    field = _field(node, name)
    if field.default_factory is not dataclasses.MISSING:
        factory = getattr(field.default_factory, "__qualname__", "...")
        default = f"default_factory={factory}"
    else:
        value = getattr(node, name) if field.default is dataclasses.MISSING else field.default
        text = repr(value)
        default = f"default={text if len(text) <= _MAX_DEFAULT_CHARS else '...'}"
    return f"{name}: {_annotation(node, name)} = furu.field({default}, added=True)"


def _renamed_line(node: Node[Any], old: str, new: str) -> str:
    field = _field(node, new)
    default = "" if field.default is dataclasses.MISSING else f"default={field.default!r}, "
    return f'{new}: {_annotation(node, new)} = furu.field({default}known_as="{old}")'


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
