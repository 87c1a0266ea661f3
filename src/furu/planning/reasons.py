"""Why a missing node has to be computed: what was published before it, and what has changed since.

A missing node replaces an artifact of the same class that is not part of the plan, and whose configuration
is the same except for the nodes in it. Reads records, and imports nothing that they name.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import furu.store.catalog as catalog
from furu._common.origin import class_name
from furu.node.base import Node, artifact_of, configuration
from furu.node.file import File
from furu.node.readable import HIDDEN
from furu.planning.compare import differences, is_node
from furu.settings import Settings
from furu.store.artifact import Status, survey
from furu.store.record import EndedRecord

# Nothing is there; `_validate` rejects the artifact; the last attempt failed, was cancelled, or its process
# died.
_StateReason = Literal["missing", "invalid", "failed", "cancelled", "interrupted"]
# An artifact is there with another `_version`, or with other inputs.
Reason = _StateReason | Literal["version raised", "stale input"]

# The largest number of artifacts of a class that are read to find the replaced one.
_MAX_READ = 2000
_FILE = class_name(File)


@dataclass(frozen=True, slots=True)
class Because:
    """The reason why a node has to be computed, and for a stale input the fields that have changed."""

    reason: Reason
    fields: tuple[str, ...] = ()


class Reasons:
    """Finds the reasons for nodes. Each node must come after its dependencies. `wanted` are the hashes of
    all nodes in the plan, which no other node replaces."""

    def __init__(self, settings: Settings, wanted: set[str]) -> None:
        self._settings = settings
        self._wanted = wanted
        self._before: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        self._changed: set[str] = set()

    def find(self, node: Node[Any]) -> Because:
        """Return why a node that is TODO has to be computed. Raises `FuruStoreError`."""
        because = Because(_why_missing(node))
        if because.reason == "missing":
            because = self._against_before(node) or because
            if because.reason != "missing":
                self._changed.add(node.furu_hash)
        return because

    def _against_before(self, node: Node[Any]) -> Because | None:
        config = configuration(node)
        best: tuple[int, Because] | None = None
        for before in self._of_class(type(node)).get(_outline(config), ()):
            found = differences(before, config)
            if not found:
                if json.dumps(HIDDEN) in json.dumps(config):
                    continue  # they may differ in hidden fields
                return Because("version raised")
            paths = [difference.path for difference in found]
            fields = dict.fromkeys(path.partition("[")[0].partition(".")[0] for path in paths)
            changed = [name for name in fields if self._has_changed(before.get(name), config.get(name))]
            if changed and (best is None or len(found) < best[0]):
                best = (len(found), Because("stale input", tuple(changed)))
        return best[1] if best else None

    def _has_changed(self, before: Any, after: Any) -> bool:
        """Whether a field holds a node that has changed rather than a different one: an input file, a node
        that replaces another, or a list of which some nodes stayed the same."""
        old, new = set(_nodes(before)), set(_nodes(after))
        if old & new and old != new:
            return True
        return any(name == _FILE or node_hash in self._changed for name, node_hash in new - old)

    def _of_class(self, cls: type[Node[Any]]) -> dict[str, list[Mapping[str, Any]]]:
        name = class_name(cls)
        if name not in self._before:
            self._before[name] = self._read(cls)
        return self._before[name]

    def _read(self, cls: type[Node[Any]]) -> dict[str, list[Mapping[str, Any]]]:
        before: dict[str, list[Mapping[str, Any]]] = {}
        artifacts = catalog.walk(self._settings, node_class=class_name(cls))
        unwanted = (artifact for artifact in artifacts if artifact.hash not in self._wanted)
        for artifact in itertools.islice(unwanted, _MAX_READ):
            record = catalog.read_small(artifact)
            if record is not None:
                before.setdefault(_outline(record.config), []).append(record.config)
        return before


def _outline(config: Mapping[str, Any]) -> str:
    """Return a configuration as text, with each node reduced to its class. All lists of nodes of one class
    give the same text, whatever their length."""
    return json.dumps({name: _outlined(value) for name, value in config.items()}, sort_keys=True)


def _outlined(value: Any) -> Any:
    if is_node(value):
        return {"node": value["node"]}
    if isinstance(value, list):
        if value and all(map(is_node, value)):
            return {"nodes": sorted({str(one["node"]) for one in value})}
        return [_outlined(one) for one in value]
    if isinstance(value, dict):
        return {name: _outlined(one) for name, one in value.items()}
    return value


def _nodes(value: Any) -> Iterator[tuple[str, str]]:
    pending = [value]
    while pending:
        one = pending.pop()
        if is_node(one):
            yield str(one["node"]), str(one["hash"])
        elif isinstance(one, dict):
            pending += one.values()
        elif isinstance(one, list):
            pending += one


def _why_missing(node: Node[Any]) -> _StateReason:
    """Return why a node that is TODO is not DONE, from its own attempts."""
    found = survey(artifact_of(node))
    if found.status is Status.DONE:
        return "invalid"
    if isinstance(found.record, EndedRecord):
        return found.record.outcome
    return "interrupted" if found.attempt else "missing"
