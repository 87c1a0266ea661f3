"""Notices artifacts that were made by other code than the code that is running, and says so.

An artifact was made by other code if its record and its class both have a fingerprint (see
`furu.provenance.fingerprint`) and the fingerprints differ. To read a record costs more than to see that it
exists, so a run does not read the record of every node that it reuses. It compares

    the artifacts whose values are loaded in the run's own process
    of the other reused artifacts of each class, the first 8, and then the 16th, the 32nd, the 64th, ...
    below those that it compares, the artifacts that they were made from, chosen in the same way

So it may miss a few artifacts of other code among many. A plan compares all of them.
"""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from typing import Any

from furu._common.origin import globals_of
from furu.context import EXEC_CONTEXT
from furu.errors import FuruStoreError
from furu.node.base import Node, artifact_of, class_name_of, is_input
from furu.node.dependencies import dependencies
from furu.provenance.fingerprint import is_redefined
from furu.report import CodeChange
from furu.settings import OnCodeChange, current_settings
from furu.store.record import MAX_RECORD_BYTES, DoneRecord

__all__ = ["CODE_CHANGES", "CodeChanges", "is_by_other_code", "note_loaded", "warn_if_redefined"]

logger = logging.getLogger("furu.code")

# All of the first artifacts of a class are compared, and then fewer and fewer.
_ALL_OF_THE_FIRST = 8
# Artifacts are counted by their hashes, up to this number for each class.
_MAX_COUNTED = 100_000


class _OfClass:
    def __init__(self) -> None:
        self.seen = 0
        self.by_other_code: set[str] = set()
        self.commits: dict[str, None] = {}


class CodeChanges:
    """What one run, or one plan, knows about the code that made the artifacts that it reuses. Compares
    them only to warn: all of them if `every` is set, or else a sample. The methods may be called in any
    thread."""

    def __init__(self, on_code_change: OnCodeChange = "warn", *, every: bool = False) -> None:
        self.recomputes = on_code_change == "recompute"
        self._warns = on_code_change == "warn"
        self._every = every
        self._classes: dict[str, _OfClass] = {}
        self._compared: set[str] = set()

    def reused(self, node: Node[Any]) -> None:
        """Count a node that is DONE. If it is in the sample, compare it and nodes that it depends on."""
        pending = [node] if self._is_chosen(node) else []
        while pending:
            chosen = pending.pop()
            self._compared.add(chosen.furu_hash)
            record = _read(chosen)
            if record is not None:
                self.loaded(chosen, record)
            with contextlib.suppress(Exception):  # from `_dependencies`, which the run need not call
                pending += [below for below in dependencies(chosen) if self._is_chosen(below)]

    def _is_chosen(self, node: Node[Any]) -> bool:
        if not self._warns or is_input(node) or node._furu_hash in self._compared:
            return False
        of_class = self._of(node)
        of_class.seen = number = of_class.seen + 1
        return self._every or number <= _ALL_OF_THE_FIRST or number & (number - 1) == 0

    def loaded(self, node: Node[Any], record: DoneRecord) -> None:
        """Compare a record that was read for another reason."""
        if self._warns and is_by_other_code(node, record):
            of_class = self._of(node)
            of_class.commits.setdefault(record.commit)
            if len(of_class.by_other_code) < _MAX_COUNTED:
                of_class.by_other_code.add(record.hash)

    def found(self) -> tuple[CodeChange, ...]:
        """Return the classes with artifacts that were made by other code."""
        return tuple(
            CodeChange(
                name,
                made_by_other_code=len(of_class.by_other_code),
                seen=max(of_class.seen, len(of_class.by_other_code)),
                is_exact=self._every,
                commits=tuple(commit for commit in list(of_class.commits) if commit),
            )
            for name, of_class in sorted(self._classes.copy().items())
            if of_class.by_other_code
        )

    def _of(self, node: Node[Any]) -> _OfClass:
        name = class_name_of(node)
        return self._classes.get(name) or self._classes.setdefault(name, _OfClass())


# What the run of this context knows. None in interactive code and in processes of workers.
CODE_CHANGES: ContextVar[CodeChanges | None] = ContextVar("furu_code_changes", default=None)


def is_by_other_code(node: Node[Any], record: DoneRecord | None = None) -> bool:
    """Whether a node's artifact was made by other code than its class has now. Reads the record unless it
    is given. False if the store or the source does not show it."""
    record = _read(node) if record is None else record
    if record is None or not record.code:
        return False
    code = type(node)._facts.provenance.code
    return bool(code) and code != record.code


def note_loaded(node: Node[Any], record: DoneRecord) -> None:
    """Compare the record of a node whose value is loaded. Interactive code gets a warning, once for each
    class, unless the setting `on_code_change` is ``"ignore"``."""
    changes = CODE_CHANGES.get()
    if changes is not None:
        changes.loaded(node, record)
        return
    facts = type(node)._facts
    if facts.is_compared or EXEC_CONTEXT.get().mode != "interactive":
        return
    if current_settings().on_code_change != "ignore" and is_by_other_code(node, record):
        facts.is_compared = True
        changes = CodeChanges()
        changes.loaded(node, record)
        logger.warning("%s", changes.found()[0])


def warn_if_redefined(cls: type[Node[Any]]) -> None:
    """Log a warning if a class replaces one of the same name that does something else, in a program without
    a file, such as a notebook. Only if the store was asked for nodes of the replaced class."""
    if cls._facts.origin.file or "." in cls.__qualname__:
        return
    old = globals_of(cls).get(cls.__qualname__)
    if not (isinstance(old, type) and issubclass(old, Node)) or old is cls or "_facts" not in vars(old):
        return
    same_name = old._facts.name == cls._facts.name and old._version == cls._version
    if same_name and old._facts.is_used and is_redefined(old, cls):
        logger.warning(
            "%s was defined again with other code. Its nodes reuse the artifacts that the earlier "
            "definition made, because source code is not part of a node's identity. To compute them again, "
            "set another _version in the class.",
            cls._facts.name,
        )


def _read(node: Node[Any]) -> DoneRecord | None:
    """Return a node's record; None if it is missing, very large, or cannot be read."""
    try:
        return artifact_of(node).read(MAX_RECORD_BYTES)
    except FuruStoreError:
        return None
