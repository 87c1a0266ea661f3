"""Lists the nodes in a store, and describes each node in detail, for people who inspect a store.

These functions do not change the store, import anything that it names, or follow symbolic links. Files in a
store may be damaged, foreign or hostile. Entries that are not node directories are skipped. A file that
cannot be read is reported as a `problem` of its node, and the walk continues.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from furu._common.text import printable
from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.artifact import Artifact, Status
from furu.store.layout import INTERNAL, LOG, TRY, NodeFiles, class_directory, is_identifier, parse_hash
from furu.store.leftovers import checkpoints
from furu.store.record import (
    MAX_RECORD_BYTES,
    READ_FLAGS,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    store_failed,
)
from furu.store.references import references_within

__all__ = [
    "AttemptInfo",
    "AttemptState",
    "LogText",
    "MadeBy",
    "MAX_LOG_BYTES",
    "MAX_SIZED_FILES",
    "NodeInfo",
    "changed_at",
    "class_directories",
    "find",
    "inspect",
    "read_log",
    "read_small",
    "size_bytes",
    "walk",
]

# At most this much of a log is read, because a log may be larger than memory.
MAX_LOG_BYTES = 2**16
# After this many files of a node, no further directories are counted. Most artifacts have a handful.
MAX_SIZED_FILES = 100_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PREFIX = re.compile(r"[0-9a-f]{1,32}\Z")

AttemptState = Literal["running", "interrupted", "failed", "cancelled", "published", "unreadable"]


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """One attempt at a node. `owner` describes the owner in words. `error` and `traceback` are set if the
    attempt failed or was cancelled."""

    number: int
    state: AttemptState
    owner: str = ""
    error: str = ""
    traceback: tuple[str, ...] = ()
    started_at: float | None = None
    duration_sec: float | None = None


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What made an artifact: the source file of the class, the fingerprint of its code, the commit that was
    checked out, and versions. Unknown values are empty."""

    source: str
    code: str
    commit: str
    python: str
    furu: str

    def __str__(self) -> str:
        parts = {"code": self.code, "commit": self.commit, "Python": self.python, "furu": self.furu}
        return ", ".join(f"{name} {printable(value)}" for name, value in parts.items() if value)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """Everything that the store knows about one node.

    `config` is the recorded configuration, with each nested node as ``{"node": class, "hash": hash}``, and
    with the ``"path"`` of a nested file too. It comes from the published artifact, or else from the last
    attempt that ended; None if neither exists. `result` is the stored JSON; None if the result is in files
    or nothing is published. If `codec` is ``"parts"``, the JSON has placeholders for the parts that are in
    files. `made_by` describes the code of the published artifact. `problem` names the files that could not
    be read, and the reasons. `missing` are the hashes of nodes that had failed, and without which the
    artifact was made.
    """

    artifact: Artifact
    status: Status
    node_class: str
    config: dict[str, Any] | None
    attempts: tuple[AttemptInfo, ...]
    codec: str | None = None
    result: bytes | None = None
    started_at: float | None = None
    duration_sec: float | None = None
    problem: str = ""
    made_by: MadeBy | None = None
    missing: tuple[str, ...] = ()

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The hashes of the nodes in the configuration, in order, without duplicates."""
        return tuple(dict.fromkeys(found["hash"] for found in references_within(self.config)))


@dataclass(frozen=True, slots=True)
class LogText:
    """The last part of an attempt's log. The first `left_out_bytes` of the log were not read."""

    text: str
    left_out_bytes: int


def walk(
    settings: Settings,
    *,
    node_class: str | None = None,
    prefix: str = "",
    problems: list[str] | None = None,
) -> Iterator[Artifact]:
    """Yield the nodes of a store, sorted by class and then by hash.

    With `node_class` (``module:Class``), yields only nodes of that class. With `prefix`, yields only nodes
    whose hash begins with `prefix`. If `prefix` is a whole hash, the nodes of a class are not listed.

    A store that does not exist counts as empty. Directories that cannot be listed are skipped and reported
    in `problems`. Raises `FuruStoreError` if the store itself cannot be listed.
    """
    for name, directory in class_directories(settings.store, node_class, problems):
        for node_hash in _hashes(directory, prefix, problems):
            yield Artifact(settings, NodeFiles(f"{directory}/{node_hash}"), name, node_hash)


def find(settings: Settings, prefix: str, *, node_class: str | None = None) -> Artifact:
    """Return the node whose hash begins with `prefix`, which may be the whole hash. With `node_class`
    (``module:Class``), looks only among the nodes of that class.

    Raises `FuruStoreError` if no node matches, or if several match. The error names the first matches.
    """
    text = prefix.strip().lower()
    if not _PREFIX.match(text):
        raise FuruStoreError(
            f"{printable(prefix)[:80]!r} is not a hash: give 1 to 32 hexadecimal digits, such as 3fa9",
            path=settings.store,
        )
    problems: list[str] = []
    nodes = list(walk(settings, node_class=node_class, prefix=text, problems=problems))
    if len(nodes) == 1:
        return nodes[0]
    if not nodes:
        unread = "".join(f"; {problem}" for problem in problems[:5])
        kind = f" of {printable(node_class)}" if node_class else ""
        raise FuruStoreError(
            f"the store {settings.store} has no node{kind} whose hash begins with {text}{unread}",
            path=settings.store,
        )
    named = ", ".join(f"{node}" for node in nodes[:5])
    more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
    raise FuruStoreError(
        f"{len(nodes)} nodes have a hash that begins with {text}: {named}{more}. Give more digits.",
        path=settings.store,
    )


def inspect(artifact: Artifact) -> NodeInfo:
    """Return everything that the store knows about a node. `problem` names unreadable files."""
    problems: list[str] = []
    done: DoneRecord | None = None
    status = Status.TODO
    try:
        status = artifact.status()
        done = artifact.read()
    except FuruStoreError as error:
        problems.append(str(error))
    attempts, ended = _read_attempts(artifact, problems)
    if done is not None:
        published = AttemptInfo(
            done.attempt, "published", started_at=done.started_at, duration_sec=done.duration_sec
        )
        attempts = [attempt for attempt in attempts if attempt.number != done.attempt] + [published]
    known = done or ended
    return NodeInfo(
        artifact,
        status,
        node_class=known.node_class if known else artifact.node_class,
        config=known.config if known else None,
        attempts=tuple(sorted(attempts, key=lambda attempt: attempt.number)),
        codec=done.codec if done else None,
        result=bytes(done.result) if done and done.codec in ("json", "parts") else None,
        started_at=done.started_at if done else None,
        duration_sec=done.duration_sec if done else None,
        problem="; ".join(problems),
        made_by=MadeBy(done.source, done.code, done.commit, done.python, done.furu) if done else None,
        missing=done.missing if done else (),
    )


def read_log(artifact: Artifact, attempt: int, max_bytes: int = MAX_LOG_BYTES) -> LogText | None:
    """Return the last `max_bytes` of an attempt's log; None if there is no log that can be opened. Does not
    follow links or read devices. Raises `FuruStoreError` if reading the opened log fails."""
    files = artifact.files_directory(attempt)
    if files is None:
        return None
    path = f"{files}/{LOG}"
    try:
        directory = os.open(files, _DIRECTORY)
    except OSError:
        return None
    try:
        descriptor = os.open(LOG, READ_FLAGS, dir_fd=directory)
    except OSError:
        return None
    finally:
        os.close(directory)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return None
        start = max(info.st_size - max_bytes, 0)
        content = os.pread(descriptor, min(max_bytes, info.st_size), start)
    except OSError as error:
        raise store_failed("read", path, error) from error
    finally:
        os.close(descriptor)
    return LogText(content.decode("utf-8", "replace"), start)


def read_small(artifact: Artifact) -> DoneRecord | None:
    """Return the published record; None if it cannot be read or is longer than `MAX_RECORD_BYTES`. For
    callers that read many nodes and can do without some of them."""
    try:
        return artifact.read(MAX_RECORD_BYTES)
    except FuruStoreError:
        return None


def size_bytes(artifact: Artifact) -> int:
    """Return the total size of a node's regular files. Skips files that cannot be read, and enters no more
    directories after `MAX_SIZED_FILES` files."""
    total = files = 0
    for path in (artifact.files.done, artifact.files.attempt(1)):
        with contextlib.suppress(OSError):
            info = os.lstat(path)
            total += info.st_size if stat.S_ISREG(info.st_mode) else 0
    pending = [artifact.files.directory]
    while pending and files < MAX_SIZED_FILES:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
                files += 1
    return total


def changed_at(artifact: Artifact) -> float:
    """Return the time at which the node's files last changed, in seconds since the epoch; infinity if it is
    unknown. A checkpoint that is being written counts."""
    times: list[float] = []
    kept = checkpoints(artifact)
    for path in (*artifact.files.all, *kept):
        with contextlib.suppress(OSError):
            times.append(os.lstat(path).st_mtime)
    for path in kept:
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            times += [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
    return max(times, default=math.inf)


# ---- names in the store ----


def class_directories(
    store: Path, node_class: str | None = None, problems: list[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the name and the directory of each class in a store, or only of `node_class`. See `walk`.

    Names are made printable. A long name is cut if it was cut in the directory's name.
    """
    if node_class is not None:
        module, _, qualname = node_class.partition(":")
        directory = class_directory(store, module, qualname)
        if _is_directory(os.path.dirname(directory)) and _is_directory(directory):
            yield printable(node_class), directory
            return
    root = os.fspath(store)
    try:
        modules = _directories(root)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise store_failed("list", root, error) from error
    for module in modules:
        if module not in INTERNAL:
            for cls in _list(_directories, f"{root}/{module}", problems):
                name = f"{_readable_name(module)}:{_readable_name(cls)}"
                if node_class in (None, name):
                    yield name, f"{root}/{module}/{cls}"


def _hashes(directory: str, prefix: str, problems: list[str] | None) -> list[str]:
    if is_identifier(prefix):
        paths = NodeFiles(f"{directory}/{prefix}").all
        return [prefix] if any(map(os.path.lexists, paths)) else []
    names = _list(os.listdir, directory, problems)
    hashes = {parse_hash(name) for name in names if name.startswith(prefix)}
    return sorted(node_hash for node_hash in hashes if node_hash is not None)


def _list(names: Callable[[str], list[str]], path: str, problems: list[str] | None) -> list[str]:
    """Return the names in a directory; an empty list if the directory is missing or cannot be listed."""
    try:
        return names(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if problems is not None:
            problems.append(str(store_failed("list", path, error)))
        return []


def _directories(path: str) -> list[str]:
    """Return the sorted names of a directory's subdirectories. Raises `OSError`."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _readable_name(component: str) -> str:
    """Decode a path component for people. Unprintable characters stay encoded."""
    return printable(unquote(component, errors="replace"))


# ---- attempts ----


def _read_attempts(artifact: Artifact, problems: list[str]) -> tuple[list[AttemptInfo], EndedRecord | None]:
    """Return all attempts that have a file, and the record of the last attempt that ended."""
    try:
        numbers = sorted({number for kind, number in artifact.numbers() if kind == TRY})
    except FuruStoreError as error:
        problems.append(str(error))
        return [], None
    attempts: list[AttemptInfo] = []
    ended: EndedRecord | None = None
    for number in numbers:
        try:
            found = artifact.read_attempt(number)
        except FuruStoreError as error:
            problems.append(str(error))
            attempts.append(AttemptInfo(number, "unreadable"))
            continue
        if found is None:
            continue
        record = found.record
        if isinstance(record, EndedRecord) and artifact.is_of_class(record.node_class):
            ended = record
            attempts.append(_ended(number, record))
        elif isinstance(record, OwnerRecord):
            state: AttemptState = "running" if found.alive else "interrupted"
            owner = f"pid {record.pid} on {record.host}"
            attempts.append(AttemptInfo(number, state, owner))
        elif found.info.st_size or not stat.S_ISREG(found.info.st_mode):  # an empty file is not an attempt
            attempts.append(AttemptInfo(number, "unreadable"))
    return attempts, ended


def _ended(number: int, record: EndedRecord) -> AttemptInfo:
    return AttemptInfo(
        number,
        record.outcome,
        f"pid {record.pid} on {record.host}",
        record.error,
        tuple(record.traceback),
        record.started_at,
        record.duration_sec,
    )
