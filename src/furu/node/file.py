"""`File`: an input file as a node without dependencies. The file's content is its identity."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import time
from dataclasses import field
from pathlib import Path

from furu.errors import FuruError, FuruIdentityError, FuruSettingsError
from furu.node.furu import Furu
from furu.node.identity import DIGEST_BYTES
from furu.settings import current_settings, project_of
from furu.store.digests import Stamp, keep_digest, known_digest, stamp_of

__all__ = ["File"]

# Two writes within one tick of a filesystem's clock leave the same stamp. So the digest of a file is not
# cached if the file changed more recently than this.
_SETTLED_NS = 2 * 10**9
# How many times to try to read a file that changes during the read.
_MAX_READS = 3
# Smaller files are hashed again in each process, because that is as fast as reading a digest from a store.
_KEPT_BYTES = 2**20


class File(Furu[Path]):
    """An input file. `get()` returns its path. Only the file's content counts in identity, not its path.

    The content is read when the node is created. If the file changes later, a new node for it has another
    identity, and everything that depends on the file is computed again. A relative path is made absolute
    when the node is created. Nothing is computed: a `File` is always DONE.

    Messages and records show the path relative to the project: the nearest directory above the file with a
    `pyproject.toml`. They show the absolute path of a file that is in no project. If the store exists, it
    keeps the digests of files of at least 1 MiB, so that other processes need not read these files unless
    they change. A program that writes to a file through a memory mapping should flush the mapping first:
    until then the times of the file do not show the change.

    Raises `FuruIdentityError` if the path is not a readable regular file. `get()` raises `FuruError` if the
    content has changed since the node was created.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "data.csv")
    >>> _ = path.write_text("a,b")
    >>> File(path=path).get() == path
    True
    """

    path: str | os.PathLike[str] = field(compare=False)
    content: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            path = Path(self.path).absolute()
            content, stamp = _read(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise FuruIdentityError(
                f"File(path={str(self.path)!r}) cannot be read: {_reason(error)}. "
                "A file must be there when its node is made.",
                field_path="File.path",
            ) from error
        vars(self).update(path=path, content=content, _stamp=stamp, _furu_path=_shown_path(str(path)))

    def __repr__(self) -> str:
        return f"File(path={self._furu_path!r})"  # inside another node too, so that messages name the file

    def _read_input(self) -> Path:
        path = Path(self.path)
        try:
            if stamp_of(os.stat(path)) != vars(self)["_stamp"]:
                content, stamp = _read(path)
                if content != self.content:
                    raise FuruError(
                        f"{self!r} has changed since its node was made. Make the node again, so that nodes "
                        "that depend on it are computed for the new content."
                    )
                vars(self)["_stamp"] = stamp
        except FileNotFoundError as error:
            raise FuruError(f"{self!r} is gone: {_reason(error)}") from error
        except OSError as error:
            raise FuruError(f"{self!r} cannot be read: {_reason(error)}") from error
        return path


def _shown_path(path: str) -> str:
    """Return an absolute path relative to the file's project, or unchanged if the file is in no project."""
    project = project_of(os.path.dirname(path))
    return path if project is None else path.removeprefix(project).lstrip("/")


def _read(path: Path) -> tuple[str, Stamp | None]:
    """Return a file's digest and stamp. The stamp is None if the file is so new that another write could
    leave the same stamp.

    Raises `OSError` if the path is not a regular file, or if the file keeps changing.
    """
    for _ in range(_MAX_READS):
        info = os.stat(path)
        _refuse_special(info)  # before opening, because that can disturb a device or a pipe
        stamp = stamp_of(info)
        is_settled = time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > _SETTLED_NS
        try:
            digest = (_digest_of_settled if is_settled else _digest)(path, stamp)
        except _ChangedError:
            continue
        return digest, stamp if is_settled else None
    raise OSError("it changes while it is read")


def _digest(path: Path, stamp: Stamp) -> str:
    with open(path, "rb", opener=_open_without_waiting) as file:
        info = os.fstat(file.fileno())
        _refuse_special(info)
        hasher = functools.partial(hashlib.blake2b, digest_size=DIGEST_BYTES)
        digest = hashlib.file_digest(file, hasher).hexdigest()
        if not stamp == stamp_of(info) == stamp_of(os.fstat(file.fileno())):
            raise _ChangedError
        return digest


# Cached, because a sweep may use one large file in thousands of nodes.
@functools.lru_cache(maxsize=4096)
def _digest_of_settled(path: Path, stamp: Stamp) -> str:
    if stamp[2] < _KEPT_BYTES:
        return _digest(path, stamp)
    try:
        settings = current_settings()
    except FuruSettingsError:  # reported where a store is needed
        return _digest(path, stamp)
    digest = known_digest(settings, stamp)
    if digest is None:
        digest = _digest(path, stamp)
        keep_digest(settings, path, stamp, digest)
    return digest


class _ChangedError(Exception):
    """The file was replaced or written during the read."""


def _refuse_special(info: os.stat_result) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise OSError("it is a directory")
    if not stat.S_ISREG(info.st_mode):
        raise OSError("it is not a regular file")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
