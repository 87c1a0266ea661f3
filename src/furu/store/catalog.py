"""What is in a store, for people who look at it: every node by class and state, and all that is known of
one. Changes nothing, imports nothing that a store names, and follows no symbolic link.

Whatever stands in a store may be damaged, foreign or hostile. Entries that are not node directories are
skipped; a file that cannot be read is reported as a `problem` of its node, and never ends the walk.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from furu._common.text import printable
from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.artifact import Artifact, Status, survey
from furu.store.layout import LOG, OWNERS, NodeFiles, encode_component, is_identifier, node_files
from furu.store.record import (
    MAX_RECORD_BYTES,
    READ_FLAGS,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    read_done,
    store_failed,
)

__all__ = [
    "AttemptInfo",
    "AttemptState",
    "Entry",
    "LogText",
    "MAX_LOG_BYTES",
    "MAX_SIZED_FILES",
    "NodeInfo",
    "directories_of_classes",
    "find",
    "find_class",
    "find_node",
    "inspect",
    "read_log",
    "read_small_done",
    "recorded_duration_sec",
    "walk",
]

# What people read of a log at once; a log may be larger than memory.
MAX_LOG_BYTES = 2**16
# An artifact is a handful of files; more than this is counted no further.
MAX_SIZED_FILES = 100_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PREFIX = re.compile(r"[0-9a-f]{1,32}\Z")

AttemptState = Literal["running", "interrupted", "failed", "cancelled", "published", "unreadable"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One node's place in a store. `module` and `class_name` are its directory's names, made printable;
    they are for people, and a name that was too long for a directory stays cut."""

    settings: Settings
    files: NodeFiles
    module: str
    class_name: str
    hash: str

    @property
    def name(self) -> str:
        """The class, as ``module:Class``."""
        return f"{self.module}:{self.class_name}"

    @property
    def directory(self) -> Path:
        """The node's directory."""
        return Path(self.files.directory)

    def status(self) -> Status:
        """Return what the store says of the node. Raises `FuruStoreError` where it cannot be read."""
        return survey(self._artifact()).status

    def size_bytes(self) -> int:
        """Return the size of all regular files of the node. Counts at most `MAX_SIZED_FILES` files; what
        cannot be looked at counts nothing."""
        return _size_below(self.files.directory)

    def read_done(self) -> DoneRecord | None:
        """Read what is published, its result included; None where nothing is. Raises `FuruStoreError` for
        a file that is damaged, foreign or too large."""
        limit = self.settings.max_result_bytes + MAX_RECORD_BYTES
        return read_done(self.files.done, node_class=None, node_hash=self.hash, max_bytes=limit)

    def _artifact(self) -> Artifact:
        return Artifact(self.settings, self.files, self.name, self.hash)


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """One attempt at a node. `owner` is for people; `error` and `traceback` are of one that failed or
    was cancelled. The published attempt has no file of its own any more."""

    number: int
    state: AttemptState
    owner: str = ""
    error: str = ""
    traceback: tuple[str, ...] = ()
    started_at: float | None = None
    duration_sec: float | None = None


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """All that the store knows of one node.

    `config` is as it was written for people: nested nodes are ``{"node": class, "hash": hash}``. It is
    that of the published artifact, else of the last attempt that ended; None where there is neither.
    `result` is the stored JSON, None where files hold it or nothing is published. `problem` says why a
    file could not be read.
    """

    entry: Entry
    status: Status
    node_class: str
    config: dict[str, Any] | None
    attempts: tuple[AttemptInfo, ...]
    codec: str | None = None
    result: bytes | None = None
    started_at: float | None = None
    duration_sec: float | None = None
    problem: str = ""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The hashes of the nodes inside the configuration, each once, in their order."""
        return tuple(dict.fromkeys(_hashes_within(self.config)))


@dataclass(frozen=True, slots=True)
class LogText:
    """The end of an attempt's log. `left_out_bytes` before it were not read."""

    text: str
    left_out_bytes: int


def walk(settings: Settings, problems: list[str] | None = None) -> Iterator[Entry]:
    """Yield every node of a store, by class and then by hash.

    A store that does not exist is empty. Directories that cannot be listed are skipped, and named in
    `problems`. Raises `FuruStoreError` if the store itself cannot be listed.
    """
    for module, cls, directory in directories_of_classes(settings.store, problems):
        for node_hash in _directories(directory, problems):
            if is_identifier(node_hash):
                yield Entry(settings, NodeFiles(f"{directory}/{node_hash}"), module, cls, node_hash)


def find(settings: Settings, prefix: str) -> Entry:
    """Return the node whose hash begins with `prefix`, which may be the whole hash.

    Raises `FuruStoreError` if there is none, or more than one, naming them.
    """
    text = prefix.strip().lower()
    if not _PREFIX.match(text):
        raise FuruStoreError(
            f"{printable(prefix)[:80]!r} is not a hash: give 1 to 32 hexadecimal digits, such as 3fa9",
            path=settings.store,
        )
    problems: list[str] = []
    found = list(_with_prefix(settings, text, problems))
    if len(found) == 1:
        return found[0]
    if not found:
        unread = "".join(f"; {problem}" for problem in problems[:5])
        raise FuruStoreError(
            f"the store {settings.store} has no node whose hash begins with {text}{unread}",
            path=settings.store,
        )
    named = ", ".join(f"{entry.name} {entry.hash}" for entry in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise FuruStoreError(
        f"{len(found)} nodes have a hash that begins with {text}: {named}{more}. Give more digits.",
        path=settings.store,
    )


def find_class(settings: Settings, module: str, qualname: str) -> Iterator[Entry]:
    """Yield the nodes of one class, by hash."""
    files = node_files(settings.store, module, qualname, "0" * 32)
    directory = os.path.dirname(files.directory)
    if _is_directory(os.path.dirname(directory)) and _is_directory(directory):
        for node_hash in _directories(directory):
            if is_identifier(node_hash):
                files = NodeFiles(f"{directory}/{node_hash}")
                yield Entry(settings, files, printable(module), printable(qualname), node_hash)


def find_node(settings: Settings, module: str, qualname: str, node_hash: str) -> Entry | None:
    """Return the node of a class with a whole hash, if the store has a directory for it."""
    if not is_identifier(node_hash):
        return None
    files = node_files(settings.store, module, qualname, node_hash)
    parents = (os.path.dirname(os.path.dirname(files.directory)), os.path.dirname(files.directory))
    if not all(map(_is_directory, (*parents, files.directory))):
        return None
    return Entry(settings, files, printable(module), printable(qualname), node_hash)


def inspect(entry: Entry) -> NodeInfo:
    """Return all that the store knows of a node; what cannot be read is told in `problem`."""
    problems: list[str] = []
    done: DoneRecord | None = None
    status = Status.TODO
    try:
        status = entry.status()
        done = entry.read_done()
        if done is not None and not _is_class_of(entry, done.node_class):
            problems.append(f"{entry.files.done} says that it is a {printable(done.node_class)}")
            done = None
    except FuruStoreError as error:
        problems.append(str(error))
    attempts, ended = _read_attempts(entry, problems)
    if done is not None:
        published = AttemptInfo(
            done.attempt, "published", started_at=done.started_at, duration_sec=done.duration_sec
        )
        attempts = [one for one in attempts if one.number != done.attempt] + [published]
    known = done or ended
    return NodeInfo(
        entry,
        status,
        node_class=known.node_class if known else entry.name,
        config=known.config if known else None,
        attempts=tuple(sorted(attempts, key=lambda one: one.number)),
        codec=done.codec if done else None,
        result=bytes(done.result) if done and done.codec == "json" else None,
        started_at=done.started_at if done else None,
        duration_sec=done.duration_sec if done else None,
        problem="; ".join(problems),
    )


def read_log(entry: Entry, attempt: int, max_bytes: int = MAX_LOG_BYTES) -> LogText | None:
    """Return the last `max_bytes` of an attempt's log; None where it has none. Follows no link and reads
    no device. Raises `FuruStoreError` where the file is there and cannot be read."""
    files = entry._artifact().files_directory(attempt)
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


def read_small_done(entry: Entry) -> DoneRecord | None:
    """Read what is published, where that is readable and of at most `MAX_RECORD_BYTES`: for what looks at
    many nodes, and can do without one."""
    try:
        limit = MAX_RECORD_BYTES
        record = read_done(entry.files.done, node_class=None, node_hash=entry.hash, max_bytes=limit)
    except FuruStoreError:
        return None
    return record if record is not None and _is_class_of(entry, record.node_class) else None


def recorded_duration_sec(entry: Entry) -> float | None:
    """Return how long the published attempt took, if `read_small_done` can tell."""
    record = read_small_done(entry)
    return record.duration_sec if record else None


# ---- names in the store ----


def directories_of_classes(
    store: Path, problems: list[str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield the directories of classes: module and class, for people, and the path. See `walk`."""
    root = os.fspath(store)
    try:
        modules = sorted(_scan(root))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise store_failed("list", root, error) from error
    for module in modules:
        if module != OWNERS:
            for cls in _directories(f"{root}/{module}", problems):
                yield _readable_name(module), _readable_name(cls), f"{root}/{module}/{cls}"


def _with_prefix(settings: Settings, prefix: str, problems: list[str]) -> Iterator[Entry]:
    if len(prefix) < 32:
        yield from (entry for entry in walk(settings, problems) if entry.hash.startswith(prefix))
        return
    for module, cls, directory in directories_of_classes(settings.store, problems):
        files = NodeFiles(f"{directory}/{prefix}")
        if _is_directory(files.directory):
            yield Entry(settings, files, module, cls, prefix)


def _directories(path: str, problems: list[str] | None = None) -> list[str]:
    """The names of the directories in a directory, sorted; none of one that is gone or cannot be listed."""
    try:
        return sorted(_scan(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if problems is not None:
            problems.append(str(store_failed("list", path, error)))
        return []


def _scan(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _readable_name(component: str) -> str:
    """Undo the encoding of a path component, for people; what cannot be shown stays encoded."""
    return printable(unquote(component, errors="replace"))


def _is_class_of(entry: Entry, node_class: str) -> bool:
    """Whether the class that a record names is one whose nodes lie where this one does."""
    parent, cls = os.path.split(os.path.dirname(entry.files.directory))
    module, _, qualname = node_class.partition(":")
    return (encode_component(module), encode_component(qualname)) == (os.path.basename(parent), cls)


def _size_below(directory: str) -> int:
    total = files = 0
    pending = [directory]
    while pending and files < MAX_SIZED_FILES:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
                files += 1
    return total


# ---- attempts ----


def _read_attempts(entry: Entry, problems: list[str]) -> tuple[list[AttemptInfo], EndedRecord | None]:
    """Read every `try-<n>`; and return the last one that ended."""
    artifact = entry._artifact()
    try:
        numbers = sorted({number for kind, number in artifact.numbers() if kind == "try-"})
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
        if isinstance(record, EndedRecord) and _is_class_of(entry, record.node_class):
            ended = record
            attempts.append(_ended(number, record))
        elif isinstance(record, OwnerRecord):
            state: AttemptState = "running" if found.alive else "interrupted"
            owner = f"pid {record.pid} on {record.host}"
            attempts.append(AttemptInfo(number, state, owner))
        elif found.info.st_size or not stat.S_ISREG(found.info.st_mode):  # an empty one keeps a name
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


def _hashes_within(value: Any) -> Iterator[str]:
    """The hashes of the nodes that a configuration names, however deep."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            node_hash = value.get("hash")
            if set(value) == {"node", "hash"} and isinstance(node_hash, str) and is_identifier(node_hash):
                yield node_hash
            else:
                pending += reversed(value.values())
        elif isinstance(value, list):
            pending += reversed(value)
