"""`File`: an input file as a leaf of the graph. Its identity is its content."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from dataclasses import field
from pathlib import Path

from furu.core import Fetched, Furu
from furu.errors import FuruError, FuruIdentityError
from furu.identity import DIGEST_BYTES
from furu.loops import in_thread
from furu.store.artifact import Status

# Two writes within a filesystem's clock tick leave the same mtime, so a file this young may change
# without a trace: its digest is not remembered.
_SETTLED_NS = 2 * 10**9


class File(Furu[Path]):
    """An input file. `get()` returns its path; its identity is its content, wherever it lies.

    The content is read when the node is made, so a changed file gives another node, and everything
    that depends on it is computed anew. Nothing is stored: a file is always DONE.

    Raises `FuruIdentityError` if the file cannot be read. `get()` raises `FuruError` if the file has
    changed since the node was made.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "data.csv")
    >>> _ = path.write_text("a,b")
    >>> File(path=path).get() == path
    True
    """

    path: str | os.PathLike[str] = field(compare=False)
    content: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        path = Path(self.path)
        try:
            stamp = _stamp(path)
            digest = _digest_of_settled if time.time_ns() - stamp[3] > _SETTLED_NS else _digest
            content = digest(path.absolute(), stamp)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise FuruIdentityError(
                f"File(path={str(path)!r}) cannot be read: {getattr(error, 'strerror', None) or error}. "
                "A file must be there when its node is made.",
                field_path="File.path",
            ) from error
        vars(self).update(path=path, content=content, _stamp=stamp)

    def status(self) -> Status:
        """Always DONE: an input is there, or its node could not have been made."""
        return Status.DONE

    def _look(self) -> Status:
        return Status.DONE

    def _fetch(self, force: bool) -> Fetched[Path]:
        path = Path(self.path)
        try:
            changed = _stamp(path) != vars(self)["_stamp"]
        except OSError as error:
            raise FuruError(f"{self!r} is gone: {error.strerror or error}") from error
        if changed:
            raise FuruError(
                f"{self!r} has changed since its node was made. Make the node again, so that what "
                "depends on it is computed for the new content."
            )
        return Fetched(path, computed=False)

    async def _afetch(self, force: bool) -> Fetched[Path]:
        return await in_thread(self._fetch, force)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    info = os.stat(path)
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _digest(path: Path, stamp: tuple[int, int, int, int]) -> str:
    with open(path, "rb") as file:
        hasher = functools.partial(hashlib.blake2b, digest_size=DIGEST_BYTES)
        return hashlib.file_digest(file, hasher).hexdigest()


# A sweep names one large file in thousands of nodes.
_digest_of_settled = functools.lru_cache(maxsize=4096)(_digest)
