"""Why a missing node has to be computed: which published node it replaces, and what has changed since.

A missing node replaces a published node of the same class if the published node is not part of the plan,
and their configurations differ only in nodes that have changed. This module reads records, but does not
import the classes that the records name.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import furu.store.catalog as catalog
from furu.execution.again import Again
from furu.node.base import Node, artifact_of, configuration
from furu.node.changes import is_by_other_code
from furu.node.file import File
from furu.node.names import stored_name
from furu.node.readable import HIDDEN
from furu.planning.compare import differences
from furu.planning.evolution import Configurations, EditKind, Edits, by_names
from furu.settings import Settings
from furu.store.artifact import Status, survey
from furu.store.partial import is_partial
from furu.store.record import EndedRecord
from furu.store.references import is_reference, references_within

# "missing": there is no artifact and no attempt. "invalid": `_validate` rejects the artifact. The others
# say how the last attempt ended; "interrupted" means that its process died.
_StateReason = Literal["missing", "invalid", "failed", "cancelled", "interrupted"]
# "version raised": there is an artifact with another `_version`. "stale input": one with other inputs.
# "made by other code", "again", "partial": there is an artifact, which the run replaces. The kinds of edits
# say how the class was edited, so that it lost its artifacts.
_Replaced = Literal["again", "partial", "made by other code"]
Reason = _StateReason | _Replaced | Literal["version raised", "stale input"] | EditKind

# The largest number of artifacts of a class that are read to find the node that is replaced.
_MAX_READ = 2000
_FILE = stored_name(File)


@dataclass(frozen=True, slots=True)
class Because:
    """The reason why a node has to be computed. For a stale input, `fields` names the changed fields. For
    an edited class, `fields` are the names of the `Edit`, and `advice` is its line."""

    reason: Reason
    fields: tuple[str, ...] = ()
    advice: str = ""


class Reasons:
    """Finds the reason for each node. Nodes must be passed after their dependencies. `wanted` contains the
    hashes of all nodes in the plan: these nodes are still needed, so they do not count as replaced."""

    def __init__(self, settings: Settings, wanted: set[str], again: Again | None = None) -> None:
        self._settings = settings
        self._wanted = wanted
        self._again = again
        self._edits = Edits(settings, wanted)
        self._by_names: dict[str, Configurations] = {}
        self._before: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        self._changed: set[str] = set()

    def find(self, node: Node[Any], *, replaced: bool = False) -> Because:
        """Return why a TODO node must be computed. A `replaced` node has an artifact that is not reused.
        Raises `FuruStoreError` if the store cannot be read."""
        if replaced and self._again is not None and self._again.includes(node):
            return Because("again")
        if replaced and is_partial(artifact_of(node)):
            return Because("partial")
        if replaced:
            return Because("made by other code" if is_by_other_code(node) else "stale input")
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
                    continue  # the configurations may differ in hidden fields
                return Because("version raised")
            paths = [difference.path for difference in found]
            fields = dict.fromkeys(path.partition("[")[0].partition(".")[0] for path in paths)
            changed = [name for name in fields if self._has_changed(before.get(name), config.get(name))]
            if changed and (best is None or len(found) < best[0]):
                best = (len(found), Because("stale input", tuple(changed)))
        return best[1] if best else self._edited(node, config)

    def _edited(self, node: Node[Any], config: Mapping[str, Any]) -> Because | None:
        name = stored_name(type(node))
        if name not in self._by_names:
            self._by_names[name] = by_names(
                itertools.chain.from_iterable(self._of_class(type(node)).values())
            )
        edit = self._edits.find(node, config, self._by_names[name])
        return Because(edit.kind, edit.names, edit.line) if edit else None

    def _has_changed(self, before: Any, after: Any) -> bool:
        """Whether the nodes in a field are changed versions of the earlier nodes, not unrelated nodes. This
        is so if only some of the nodes differ, or if a new node is an input file or replaces another."""
        old, new = set(_nodes(before)), set(_nodes(after))
        if old & new and old != new:
            return True
        return any(name == _FILE or node_hash in self._changed for name, node_hash in new - old)

    def _of_class(self, cls: type[Node[Any]]) -> dict[str, list[Mapping[str, Any]]]:
        name = stored_name(cls)
        if name not in self._before:
            self._before[name] = self._read(cls)
        return self._before[name]

    def _read(self, cls: type[Node[Any]]) -> dict[str, list[Mapping[str, Any]]]:
        before: dict[str, list[Mapping[str, Any]]] = {}
        artifacts = catalog.walk(self._settings, node_class=stored_name(cls))
        unwanted = (artifact for artifact in artifacts if artifact.hash not in self._wanted)
        for artifact in itertools.islice(unwanted, _MAX_READ):
            record = catalog.read_small(artifact)
            if record is not None:
                before.setdefault(_outline(record.config), []).append(record.config)
        return before


def _outline(config: Mapping[str, Any]) -> str:
    """Return a configuration as text in which each node is reduced to its class. A list of nodes is reduced
    to the set of their classes, so its length does not matter."""
    return json.dumps({name: _outlined(value) for name, value in config.items()}, sort_keys=True)


def _outlined(value: Any) -> Any:
    if is_reference(value):
        return {"node": value["node"]}
    if isinstance(value, list):
        if value and all(map(is_reference, value)):
            return {"nodes": sorted({str(one["node"]) for one in value})}
        return [_outlined(one) for one in value]
    if isinstance(value, dict):
        return {name: _outlined(one) for name, one in value.items()}
    return value


def _nodes(value: Any) -> Iterator[tuple[str, str]]:
    return ((str(found["node"]), found["hash"]) for found in references_within(value))


def _why_missing(node: Node[Any]) -> _StateReason:
    """Return why a TODO node is not DONE, according to its own artifact and attempts."""
    found = survey(artifact_of(node))
    if found.status is Status.DONE:
        return "invalid"
    if isinstance(found.record, EndedRecord):
        return found.record.outcome
    return "interrupted" if found.attempt else "missing"
