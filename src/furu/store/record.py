"""The JSON documents in a store, and the functions that read and write them.

`read_state` reads a document. `write_new` writes a document to a temporary path, and `link_new` publishes
the document by linking it to its final name.

A state file may be empty, torn, foreign, huge, a directory, a symbolic link or a FIFO. For such files the
functions here raise `FuruStoreError` or return None. They never import or unpickle what a file names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any, Literal

import msgspec

from furu._common.text import traceback_text
from furu.errors import FuruStoreError

FORMAT = 1
# How a result is stored: as JSON, as JSON with parts in files, in files that `_load` reads, as a pickle.
StoredAs = Literal["json", "parts", "load", "pickle"]
# Most records are far smaller. Tracebacks have their own, lower limit.
MAX_RECORD_BYTES = 2**20
MAX_TRACEBACK_CHARS = 64 * 2**10

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 2**20

_LEFT_OUT = {"left out": "the configuration is too large for this record"}


class OwnerRecord(msgspec.Struct, frozen=True, tag="owner", tag_field="record"):
    """The record of an owner. Owners are compared by `id`, `boot_id` and `device`; `pid` and `host` are
    only shown to people."""

    id: str
    pid: int
    host: str
    boot_id: str
    device: int
    lease_sec: float


class EndedRecord(msgspec.Struct, frozen=True, tag="ended", tag_field="record"):
    """The record of an attempt that failed or was cancelled."""

    format: int
    node_class: str
    hash: str
    attempt: int
    outcome: Literal["failed", "cancelled"]
    error: str
    traceback: list[str]
    config: dict[str, Any]
    started_at: float
    duration_sec: float
    host: str
    pid: int


class DoneRecord(msgspec.Struct, frozen=True, tag="done", tag_field="record", omit_defaults=True):
    """The record of a published artifact. Fields that have their default are not written.

    `result` is the value as JSON, with placeholders for its parts if `codec` is "parts", or null if the
    result is in files. `files` is the name of the directory
    with the attempt's files, or empty if there are none. `source` is the path of the file that defines the
    class. `from_script` is True if that file was run as a script rather than imported. `code` is the
    fingerprint of the class's code, `commit` the commit that was checked out, and `python` and `furu` are
    versions. They are empty if they are unknown. `version` is the `_version` of the class.
    `missing` are the hashes of nodes that had failed, and without which the result was made.
    """

    format: int
    node_class: str
    hash: str
    attempt: int
    codec: StoredAs
    config: dict[str, Any]
    started_at: float
    duration_sec: float
    files: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    source: str = ""
    from_script: bool = False
    code: str = ""
    commit: str = ""
    python: str = ""
    furu: str = ""
    version: int | str = 0
    missing: tuple[str, ...] = ()


AttemptRecord = OwnerRecord | EndedRecord
_attempt_decoder: msgspec.json.Decoder[AttemptRecord] = msgspec.json.Decoder(AttemptRecord)
_done_decoder = msgspec.json.Decoder(DoneRecord)
encode = msgspec.json.Encoder().encode


def encode_done(record: DoneRecord) -> bytes:
    """Encode a published artifact. If the record is longer than `MAX_RECORD_BYTES` without its result, the
    configuration is left out."""
    content = encode(record)
    if len(content) - len(bytes(record.result)) > MAX_RECORD_BYTES:
        content = encode(msgspec.structs.replace(record, config=_LEFT_OUT))
    return content


def encode_ended(record: EndedRecord) -> bytes:
    """Encode an ended attempt in at most `MAX_RECORD_BYTES`. The JSON is indented for human readers."""
    content = msgspec.json.format(encode(record), indent=2) + b"\n"
    if len(content) > MAX_RECORD_BYTES:
        return encode_ended(msgspec.structs.replace(record, config=_LEFT_OUT))
    return content


def traceback_lines(error: BaseException) -> list[str]:
    """Return the lines of an error's traceback for a record. The middle of a long traceback is left out."""
    text = traceback_text(error)
    if len(text) > MAX_TRACEBACK_CHARS:
        half = MAX_TRACEBACK_CHARS // 2
        left_out = f"... {len(text) - 2 * half} characters left out ..."
        text = f"{text[:half]}\n{left_out}\n{text[-half:]}"
    return text.splitlines()


def decode_attempt(content: bytes) -> AttemptRecord | None:
    """Decode the content of a `try-<n>` file; None if the content is not a valid record."""
    try:
        return _attempt_decoder.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def read_done(path: str, max_bytes: int) -> DoneRecord | None:
    """Read a `done` file; None if it does not exist or is empty.

    Raises `FuruStoreError` if the file is damaged, has an unknown format, is larger than `max_bytes`, or
    cannot be read.
    """
    content = read_state(path, max_bytes)
    if not content:
        return None
    try:
        record = _done_decoder.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise unusable(path, f"it is damaged ({error})") from None
    if record.format != FORMAT:
        raise unusable(path, f"it has format {record.format}, this furu reads format {FORMAT}")
    return record


def read_state(path: str, max_bytes: int) -> bytes | None:
    """Return the content of a state file; None if it does not exist.

    Raises `FuruStoreError` if the file is not regular, is larger than `max_bytes`, or cannot be read.
    """
    try:
        descriptor = os.open(path, READ_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise unusable(path, "it is a symbolic link, which furu does not follow") from None
        raise store_failed("read", path, error) from error
    try:
        return read_open(descriptor, path, max_bytes)
    finally:
        os.close(descriptor)


def read_open(descriptor: int, path: str, max_bytes: int) -> bytes:
    """Like `read_state`, but for a file that is already open."""
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise unusable(path, "it is not a regular file")
        if info.st_size > max_bytes:
            raise unusable(path, f"it has {info.st_size} bytes, more than the {max_bytes} allowed")
        content = os.read(descriptor, info.st_size + 1)
        if len(content) < info.st_size:  # one read returns at most 2 GiB, or less on a network
            chunks = [content]
            while chunks[-1]:
                chunks.append(os.read(descriptor, _CHUNK_BYTES))
            content = b"".join(chunks)
        return content
    except OSError as error:
        raise store_failed("read", path, error) from error


def write_new(path: str, content: bytes, *, sync: bool = False) -> None:
    """Create a file with this content. If writing fails, the new file is removed. Raises `OSError`, also if
    the file exists already."""
    descriptor = os.open(path, _WRITE, 0o666)
    try:
        try:
            write_all(descriptor, content)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def link_new(path: str, name: str) -> bool:
    """Link a file to a new name. Returns False if the name is taken. Raises `OSError`."""
    try:
        os.link(path, name)
    except FileExistsError:
        # A network filesystem may send a link request twice: the first request succeeds, and the second
        # reports that the name is taken. So check whether the name leads to this file.
        info = os.lstat(path)
        try:
            return os.path.samestat(info, os.lstat(name))
        except FileNotFoundError:
            return False
    return True


def write_all(descriptor: int, content: bytes) -> None:
    """Write all content, in several writes if necessary. Raises `OSError`."""
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, memoryview(content)[written:])


def store_failed(doing: str, path: str, error: OSError) -> FuruStoreError:
    """Return the error for a failed store operation, with the path, the reason and a suggestion."""
    return FuruStoreError(
        f"cannot {doing} {path}: {error.strerror or error}. "
        "Check the disk and the permissions there, or name another store with FURU_PATH.",
        path=Path(path),
    )


def unusable(path: str, why: str) -> FuruStoreError:
    """Return the error for a state file that cannot be used."""
    return FuruStoreError(
        f"{path} cannot be used: {why}. To compute the node again, remove it.",
        path=Path(path),
    )
