"""The status of a node, derived from its files in the store. Nothing here writes to the store.

`done` exists                       DONE
no `done`; the highest try-<n> is
    missing                         TODO
    a record of a failure           FAILED
    a record of a cancellation      TODO
    a link to a live owner          IN_PROGRESS
    a link to a dead owner          TODO; the next claim takes the node over as try-<n+1>
"""

from __future__ import annotations

import enum
import errno
import os
import stat
import time
from pathlib import Path

import msgspec

from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.layout import TRY, NodeFiles, is_directory_of_class, parse_numbered
from furu.store.local import this_process
from furu.store.record import (
    MAX_RECORD_BYTES,
    READ_FLAGS,
    AttemptRecord,
    DoneRecord,
    EndedRecord,
    OwnerRecord,
    decode_attempt,
    read_done,
    read_open,
    store_failed,
    unusable,
)
from furu.store.trust import refuse_shared

# Errors from opening something that is not a regular file, such as a symbolic link or a socket.
_NO_STATE_FILE = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR, errno.ENOTDIR}

# How often to repeat a survey if a listed file is gone, and by how much the pause grows each time.
_MAX_LOOKS = 10
_LOOK_AGAIN_SEC = 0.005


class Status(enum.StrEnum):
    """The status of a node in the store."""

    TODO = "TODO"
    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"
    FAILED = "FAILED"


class Done(enum.Enum):
    """The condition of a node's `done`."""

    ABSENT = enum.auto()
    PUBLISHED = enum.auto()
    # Empty, as after a power cut, or not a regular file. Such a `done` counts as missing, and is replaced.
    DAMAGED = enum.auto()


# Distinguishes a file from a later file with the same name or inode.
FileId = tuple[int, int, int]


def identify(info: os.stat_result) -> FileId:
    """Return values that distinguish a file from a later file with the same name or inode."""
    return info.st_ino, info.st_size, info.st_mtime_ns


class Artifact(msgspec.Struct, frozen=True):
    """One node's place in a store.

    `node_class` is the class's full name, ``module:Class``. If the artifact was found by listing a store,
    `node_class` is only for display: it is derived from the directory's name, in printable form, and a long
    name is cut.
    """

    settings: Settings
    files: NodeFiles
    node_class: str
    hash: str

    def __str__(self) -> str:
        return f"{self.node_class} {self.hash}"

    @property
    def path(self) -> Path:
        """The path of the published document. The paths of the node's other files begin with this path."""
        return Path(self.files.done)

    def status(self) -> Status:
        """Return the node's status. Raises `FuruStoreError` if the store cannot be read."""
        return survey(self).status

    def is_of_class(self, node_class: str) -> bool:
        """Whether nodes of a class are stored in the same directory as this node."""
        if node_class == self.node_class:
            return True
        return is_directory_of_class(self.files.class_directory, node_class)

    def is_done(self) -> bool:
        """Whether the node is published. Costs one `stat` call."""
        return self.look_at_done()[0] is Done.PUBLISHED

    def look_at_done(self) -> tuple[Done, FileId | None]:
        """Return the condition of `done` and its `identify` values (None if `done` is missing)."""
        try:
            info = os.lstat(self.files.done)
        except (FileNotFoundError, NotADirectoryError):
            return Done.ABSENT, None
        except OSError as error:
            raise store_failed("look at", self.files.done, error) from error
        refuse_shared(self.settings, this_process().trusted)
        whole = stat.S_ISREG(info.st_mode) and info.st_size > 0
        return (Done.PUBLISHED if whole else Done.DAMAGED), identify(info)

    def read(self, max_bytes: int | None = None) -> DoneRecord | None:
        """Read the published record, including the result; None if nothing is published.

        Raises `FuruStoreError` if the file is damaged, belongs to another node, or is larger than
        `max_bytes`. The default of `max_bytes` follows from the setting `max_result_bytes`.
        """
        refuse_shared(self.settings, this_process().trusted)
        if max_bytes is None:  # the document contains more than the result
            max_bytes = self.settings.max_result_bytes + MAX_RECORD_BYTES
        record = read_done(self.files.done, max_bytes)
        if record is not None and not (record.hash == self.hash and self.is_of_class(record.node_class)):
            raise unusable(
                self.files.done,
                f"it belongs to {record.node_class} {record.hash}, not {self}",
            )
        return record

    def files_of(self, record: DoneRecord) -> str:
        """Return the directory of a published artifact's files. Raises `FuruStoreError` if the record names
        another directory."""
        if parse_numbered(record.files) is None:
            raise unusable(self.files.done, f"it has no directory of files, but {record.files!r}")
        return f"{self.files.directory}/{record.files}"

    def numbered(self) -> dict[str, tuple[str, int]]:
        """Return the paths of the node's numbered files, each with its kind and number."""
        files = self.files
        first, directory = files.attempt(1), files.directory
        try:
            names = os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            raise store_failed("list", directory, error) from error
        numbered = {f"{directory}/{name}": parsed for name in names if (parsed := parse_numbered(name))}
        numbered.pop(f"{directory}/try-1", None)  # attempt 1 has its file elsewhere
        try:
            os.lstat(first)
        except (FileNotFoundError, NotADirectoryError):
            return numbered
        except OSError as error:
            raise store_failed("look at", first, error) from error
        return {first: (TRY, 1), **numbered}

    def numbers(self) -> list[tuple[str, int]]:
        """Return the kind and number of each of the node's numbered files."""
        return list(self.numbered().values())

    def files_directory(self, number: int) -> str | None:
        """Return the directory with the files of attempt `number`; None if there is none."""
        paths = sorted(path for path, parsed in self.numbered().items() if parsed == ("a", number))
        return paths[0] if paths else None

    def read_attempt(self, number: int) -> Found | None:
        """Read a `try-<n>` file and check whether its owner is alive; None if the file does not exist.

        Raises `FuruStoreError` if the file cannot be read, because its owner may be alive.
        """
        path = self.files.attempt(number)
        try:
            descriptor = os.open(path, READ_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in _NO_STATE_FILE:
                raise store_failed("read", path, error) from error
            try:
                return Found(None, os.lstat(path), alive=False)
            except FileNotFoundError:
                return None
        try:
            info = os.fstat(descriptor)
            record = None
            if stat.S_ISREG(info.st_mode) and info.st_size <= MAX_RECORD_BYTES:
                record = decode_attempt(read_open(descriptor, path, MAX_RECORD_BYTES))
            if isinstance(record, EndedRecord) and record.hash != self.hash:
                record = None
            alive = isinstance(record, OwnerRecord) and this_process().is_alive(
                descriptor,
                info,
                record,
                node=self.files.done,
                number=number,
                lease_sec=self.settings.lease_sec,
            )
            return Found(record, info, alive=alive)
        except OSError as error:
            raise store_failed("look at", path, error) from error
        finally:
            os.close(descriptor)


class Found(msgspec.Struct, frozen=True):
    """A `try-<n>` file: its record (None if damaged or foreign), its stat result, and whether its owner is
    alive.
    """

    record: AttemptRecord | None
    info: os.stat_result
    alive: bool


class Survey(msgspec.Struct, frozen=True):
    """What a node's file names show. `highest` is the highest number in any name. `attempt` is the highest
    number of a `try-<n>` file, or 0 if there is none, and `found` is that file."""

    status: Status
    highest: int = 0
    attempt: int = 0
    found: Found | None = None

    @property
    def record(self) -> AttemptRecord | None:
        """The record of the highest attempt; None if there is none."""
        return self.found.record if self.found else None


def is_being_replaced(artifact: Artifact) -> bool:
    """Whether a live owner computes a node that is published. Raises `FuruStoreError`."""
    attempt = max((number for kind, number in artifact.numbers() if kind == TRY), default=0)
    found = artifact.read_attempt(attempt) if attempt else None
    return found is not None and found.alive


def survey(artifact: Artifact) -> Survey:
    """Derive a node's status from its files. Raises `FuruStoreError`."""
    attempt = 0
    for look in range(_MAX_LOOKS):
        if artifact.is_done():
            return Survey(Status.DONE)
        numbers = artifact.numbers()
        highest = max((number for _, number in numbers), default=0)
        attempt = max((number for kind, number in numbers if kind == TRY), default=0)
        if attempt == 0:
            return Survey(Status.TODO, highest)
        found = artifact.read_attempt(attempt)
        if found is not None:
            return Survey(_status(found), highest, attempt, found)
        # The file was removed after the listing: probably the node was published or removed. Check again.
        time.sleep(look * _LOOK_AGAIN_SEC)
    raise FuruStoreError(
        f"{artifact.files.attempt(attempt)} is listed and cannot be opened. Check the filesystem, or "
        "remove it.",
        path=Path(artifact.files.attempt(attempt)),
    )


def _status(found: Found) -> Status:
    if isinstance(found.record, EndedRecord):
        return Status.FAILED if found.record.outcome == "failed" else Status.TODO
    return Status.IN_PROGRESS if found.alive else Status.TODO
