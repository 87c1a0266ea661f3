"""Digests of large input files, kept in a store, so that a file is hashed once per change, not per process.

<store>/files/<device>-<inode>      the digest of one file, with the stamp that the file had
              tmp-<nonce>           a digest that is being written

A digest is used only if the file still has exactly the recorded stamp: device, inode, size, mtime and
ctime. A program can set the mtime back, but not the ctime. A file has one entry, which is replaced after a
change. Losing an entry only costs time, so every problem is a miss: an entry that is damaged, a link or of
another file, or a store that does not exist, is read-only or full, or that every user may write to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

import msgspec

from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.layout import DIGESTS, is_identifier
from furu.store.local import this_process
from furu.store.record import encode, read_open, write_all
from furu.store.trust import refuse_shared

__all__ = ["Stamp", "keep_digest", "known_digest", "remove_stale_digests", "stamp_of"]

# Device, inode, size, mtime and ctime.
Stamp = tuple[int, int, int, int, int]

_MAX_BYTES = 2**14
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = "tmp-"


class _Entry(msgspec.Struct, frozen=True):
    """The digest of a file. `path` is one of its names. `check` is a digest of the other fields."""

    path: str
    stamp: Stamp
    digest: str
    check: str = ""

    def sealed(self) -> _Entry:
        """Return the entry with its `check`."""
        content = encode((self.path, self.stamp, self.digest))
        return msgspec.structs.replace(self, check=hashlib.blake2b(content, digest_size=8).hexdigest())


_decoder = msgspec.json.Decoder(_Entry)


def stamp_of(info: os.stat_result) -> Stamp:
    """Return the values that differ if a file was replaced or written."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def known_digest(settings: Settings, stamp: Stamp) -> str | None:
    """Return the digest that the store has for a file with this stamp; None if it has none."""
    try:
        refuse_shared(settings, this_process().trusted)
        directory = os.open(f"{settings.store}/{DIGESTS}", _DIRECTORY)
    except (OSError, FuruStoreError):
        return None
    try:
        entry = _read(directory, _name(stamp))
    finally:
        os.close(directory)
    return entry.digest if entry is not None and entry.stamp == stamp else None


def keep_digest(settings: Settings, path: Path, stamp: Stamp, digest: str) -> None:
    """Record a file's digest. Does nothing if the store does not exist, or cannot be written."""
    store = os.fspath(settings.store)
    recorded = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    content = encode(_Entry(recorded, stamp, digest).sealed())
    try:
        refuse_shared(settings, this_process().trusted)
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{store}/{DIGESTS}")
        directory = os.open(f"{store}/{DIGESTS}", _DIRECTORY)
    except (OSError, FuruStoreError):
        return
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    try:
        _write(directory, temporary, content)
        os.rename(temporary, _name(stamp), src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
    finally:
        os.close(directory)


def remove_stale_digests(settings: Settings) -> int:
    """Remove the digests of files that are gone or have changed, and what killed processes left. Returns
    the number of removed entries. Raises `OSError` if an entry cannot be removed."""
    try:
        directory = os.open(f"{settings.store}/{DIGESTS}", _DIRECTORY)
    except OSError:
        return 0
    removed = 0
    try:
        for name in os.listdir(directory):
            if not _is_current(_read(directory, name), name):
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(name, dir_fd=directory)
                    removed += 1
    finally:
        os.close(directory)
    return removed


def _name(stamp: Stamp) -> str:
    return f"{stamp[0]:x}-{stamp[1]:x}"


def _is_current(entry: _Entry | None, name: str) -> bool:
    if entry is None or name != _name(entry.stamp):
        return False
    try:
        return stamp_of(os.stat(entry.path)) == entry.stamp
    except (OSError, ValueError):
        return False


def _read(directory: int, name: str) -> _Entry | None:
    """Return the entry in a file; None if the file is missing, damaged or not a regular file."""
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except OSError:
        return None
    try:
        entry = _decoder.decode(read_open(descriptor, name, _MAX_BYTES))
    except (FuruStoreError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    return entry if entry == entry.sealed() and is_identifier(entry.digest) else None


def _write(directory: int, name: str, content: bytes) -> None:
    descriptor = os.open(name, _WRITE, 0o666, dir_fd=directory)
    try:
        write_all(descriptor, content)
    finally:
        os.close(descriptor)
