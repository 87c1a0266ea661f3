"""Turns recorded configurations back into nodes.

A recorded configuration is JSON for people, and does not contain everything. So the values are restored by
the declared types of the fields, the node is made by its class, and it counts only if it has the recorded
hash. Only classes that the program has imported are used: nothing that a record names is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, TypeVar, cast

from furu.errors import FuruStoreError
from furu.node.base import Node
from furu.node.fields import field_types
from furu.node.marks import counting_name
from furu.node.readable import HIDDEN
from furu.node.restore import restore
from furu.settings import Settings, project_of
from furu.store.artifact import Artifact
from furu.store.layout import NodeFiles
from furu.store.references import references_within

N = TypeVar("N", bound=Node[Any])


def living_classes() -> dict[str, type[Node[Any]]]:
    """Return the node classes of this program by their full names. If a class was defined again, as in a
    notebook cell, returns the last one."""
    found: dict[str, type[Node[Any]]] = {}
    pending: list[type[Node[Any]]] = [Node]
    while pending:
        for cls in pending.pop().__subclasses__():
            pending.append(cls)
            if "_facts" in vars(cls):
                known = found.get(cls._facts.name)
                if known is None or known._facts.number < cls._facts.number:
                    found[cls._facts.name] = cls
    return found


@dataclass(slots=True)
class _Visit:
    """A node whose dependencies are being rebuilt. `left` yields references to the remaining ones."""

    cls: type[Node[Any]]
    hash: str
    config: dict[str, Any]
    left: Iterator[dict[str, Any]]


class Rebuilder:
    """Rebuilds nodes of one store. Remembers the nodes that it has rebuilt, by hash."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._classes = living_classes()
        self._nodes: dict[str, Node[Any] | None] = {}
        self._types: dict[type[Node[Any]], dict[str, Any]] = {}

    def rebuild(self, cls: type[N], node_hash: str, config: dict[str, Any]) -> N | None:
        """Return the node of a class with this hash; None if the configuration does not give it.

        Nodes inside the configuration are rebuilt from their own records. The walk does not recurse, so
        that it works for long chains of nodes.
        """
        path = [] if node_hash in self._nodes else [self._visit(cls, node_hash, config)]
        while path:
            visit = path[-1]
            for reference in visit.left:
                if reference["hash"] not in self._nodes:
                    below = self._begin(reference)
                    if below is not None:
                        path.append(below)
                        break
            else:
                path.pop()
                self._nodes[visit.hash] = self._make(visit)
        return cast(N | None, self._nodes[node_hash])  # the hash includes the name of the class

    def _visit(self, cls: type[Node[Any]], node_hash: str, config: dict[str, Any]) -> _Visit:
        self._nodes[node_hash] = None  # until it is made; a node inside itself cannot be made
        return _Visit(cls, node_hash, config, references_within(config))

    def _begin(self, reference: dict[str, Any]) -> _Visit | None:
        """Begin with a node inside a configuration. Returns None if nothing below it has to be rebuilt."""
        node_hash = reference["hash"]
        self._nodes[node_hash] = None
        cls = self._classes.get(str(reference["node"]))
        if cls is None:
            return None
        if cls._facts.is_input:
            paths = _paths(self._settings, str(reference.get("path", "")))
            self._nodes[node_hash] = _first_equal(cls, node_hash, ({"path": path} for path in paths))
            return None
        directory = cls._facts.directory(self._settings)
        artifact = Artifact(
            self._settings, NodeFiles(f"{directory}/{node_hash}"), cls._facts.name, node_hash
        )
        try:
            record = artifact.read()
        except FuruStoreError:
            return None
        return None if record is None else self._visit(cls, node_hash, record.config)

    def _make(self, visit: _Visit) -> Node[Any] | None:
        declared = self._types.get(visit.cls)
        if declared is None:
            declared = self._types[visit.cls] = field_types(visit.cls)
        readings = [_given(visit, declared, self._nodes, prefer_counting=later) for later in (False, True)]
        return _first_equal(visit.cls, visit.hash, [given for given in readings if given is not None])


def _given(
    visit: _Visit, declared: Mapping[str, Any], nodes: Mapping[str, Any], *, prefer_counting: bool
) -> dict[str, Any] | None:
    """Return the arguments for a node's constructor; None if a field cannot be restored.

    A recorded name may be the present name of one field and the former name of another, so there are two
    readings.
    """
    given: dict[str, Any] = {}
    for field in fields(visit.cls):
        written = recorded(field, visit.config, prefer_counting=prefer_counting)
        if not field.init or written == HIDDEN:  # the default may be what the node had
            continue
        try:
            given[field.name] = restore(declared[field.name], written, nodes)
        except Exception:  # from the class of a value
            if field.compare:
                return None
    return given


def recorded(field: Field[Any], config: Mapping[str, Any], *, prefer_counting: bool = False) -> Any:
    """Return the recorded value of a field, perhaps under its former name; `HIDDEN` if there is none."""
    names = [field.name, counting_name(field)]
    first, second = reversed(names) if prefer_counting else names
    return config.get(first, config.get(second, HIDDEN))


def _first_equal(
    cls: type[Node[Any]], node_hash: str, candidates: Iterable[dict[str, Any]]
) -> Node[Any] | None:
    """Return the first node that has this hash."""
    for given in candidates:
        node = _made(cls, given)
        if node is not None and node._furu_hash == node_hash:
            return node
    return None


def _made(cls: type[Node[Any]], given: dict[str, Any]) -> Node[Any] | None:
    try:
        return cls(**given)
    except Exception:  # from the class's `__post_init__`, or a file that is gone
        return None


def _paths(settings: Settings, path: str) -> Iterator[str]:
    """Yield the paths at which a recorded input file may be: in the project of the working directory, or
    in that of the store."""
    if not path or os.path.isabs(path):
        yield path
        return
    try:
        starts = [os.getcwd(), os.fspath(settings.store)]
    except OSError:
        starts = [os.fspath(settings.store)]
    for project in dict.fromkeys(map(project_of, starts)):
        if project is not None:
            yield os.path.join(project, path)
