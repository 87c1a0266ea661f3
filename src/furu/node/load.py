"""The status of nodes, and loading of their values."""

from __future__ import annotations

import contextvars
from pathlib import Path
from typing import Any, TypeVar, cast

from furu._common.origin import Origin, is_other_script
from furu._common.text import describe_error, sentence
from furu.codecs.json import decode_json
from furu.codecs.typed import decode_parts
from furu.errors import FuruLoadError, FuruMissingArtifactError, FuruStoreError, FuruUsageError
from furu.node.base import Node, artifact_of, describe, overrides
from furu.node.cache import load_shared
from furu.node.changes import note_loaded
from furu.node.hooks import VALIDATING, ask, call_method
from furu.store.artifact import Artifact, Status, survey
from furu.store.layout import PICKLE
from furu.store.record import DoneRecord

T = TypeVar("T")


def exists(node: Node[Any]) -> bool:
    """Whether the node is published, and not rejected by `_validate`."""
    return look(node) is Status.DONE


def status(node: Node[Any]) -> Status:
    """Return the exact status of the node."""
    if type(node)._facts.is_input:
        return Status.DONE
    artifact = artifact_of(node)
    found = survey(artifact)
    if found.status is not Status.DONE:
        return found.status
    facts = type(node)._facts
    if facts.origin.is_script and facts.checked is not artifact.settings:
        check_script(node, artifact)
    return Status.TODO if is_rejected(node) else Status.DONE


def look(node: Node[Any]) -> Status:
    """Return DONE or TODO. Costs one stat, but unlike `status()` does not detect IN_PROGRESS and FAILED."""
    facts = type(node)._facts
    if facts.is_input:
        return Status.DONE
    artifact = artifact_of(node)
    if not artifact.is_done():
        return Status.TODO
    if facts.origin.is_script and facts.checked is not artifact.settings:
        check_script(node, artifact)
    return Status.TODO if is_rejected(node) else Status.DONE


def is_rejected(node: Node[Any]) -> bool:
    """Whether the class's `_validate` rejects the published artifact."""
    if not overrides(type(node), "_validate") or node._furu_hash in VALIDATING.get():
        return False
    return not ask(node, "_validate")


def load(node: Node[T]) -> T:
    """Return the value of a published node. Raises `FuruMissingArtifactError` or `FuruLoadError`."""
    artifact = artifact_of(node)

    def read() -> T:
        record = artifact.read()
        if record is None:
            raise FuruMissingArtifactError(f"{describe(node)} has no artifact any more", node=node)
        try:
            return decode(node, artifact, record)
        except FuruLoadError:
            newer = artifact.read()
            if newer is None or (newer.attempt, newer.started_at) == (record.attempt, record.started_at):
                raise
            return decode(node, artifact, newer)  # it was computed again meanwhile

    return load_shared(node, artifact, read)


def decode(node: Node[T], artifact: Artifact, record: DoneRecord) -> T:
    """Return the value from a record, or from the artifact's files. Raises `FuruLoadError`."""
    cls = type(node)
    if record.source != cls._facts.origin.file:
        refuse_other_script(node, artifact, record)
    note_loaded(node, record)
    try:
        if record.codec == "load":
            return cast(T, contextvars.copy_context().run(call_method, node, "_load"))
        if record.codec == "json":
            value: T = decode_json(cls, cls._facts.result_type, record.result)
            return value
        if record.codec == "parts":
            whole: T = decode_parts(
                cls._facts.result_type, record.result, lambda: artifact.files_of(record)
            )
            return whole
        if cls._codec != "pickle":
            raise FuruUsageError("it is stored as a pickle, and the class does not set _codec = 'pickle'")
        from furu.codecs.pickle import decode_pickle  # imports pickle, which few classes need

        unpickled: T = decode_pickle(f"{artifact.files_of(record)}/{PICKLE}")
        return unpickled
    except Exception as error:
        raise FuruLoadError(
            f"{describe(node)} is stored but could not be read back: {sentence(describe_error(error))} "
            f"Artifact: {artifact.files.done}. If the class has changed, raise its _version; to compute "
            "it again, remove that file",
            path=Path(artifact.files.done),
            node=node,
        ) from error


def check_script(node: Node[Any], artifact: Artifact) -> None:
    """Check that the first artifact found for a script's class does not belong to another script, so that a
    run that loads nothing does not reuse another script's artifacts. Loading checks every artifact."""
    try:
        record = artifact.read()
    except FuruStoreError:  # loading will report what is wrong with the file
        return
    if record is not None:
        refuse_other_script(node, artifact, record)
        type(node)._facts.checked = artifact.settings


def refuse_other_script(node: Node[Any], artifact: Artifact, record: DoneRecord) -> None:
    """Raise `FuruLoadError` if an artifact was computed by another script with the same file name."""
    facts = type(node)._facts
    if "_name" in vars(type(node)):  # the class claims the artifacts of that name, wherever they were made
        return
    own, other = facts.origin, Origin(facts.origin.module, record.source, record.from_script)
    if record.source != facts.accepted and is_other_script(own, other):
        raise FuruLoadError(
            f"{describe(node)} was computed by another file of the same name: {record.source}. The class "
            f"here is in {own.file}, and both are called {facts.name} in the store. Rename one "
            "of the files, give one of them another store (FURU_PATH or use_settings), or move the class "
            f"into a module that both import. Artifact: {artifact.files.done}",
            path=Path(artifact.files.done),
            node=node,
        )
    facts.accepted = record.source
