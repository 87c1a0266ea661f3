"""This process as the owner of attempts, and whether the owner of another attempt is alive.

An owner is a file `owners/<id>` that its process keeps locked for as long as it lives; an attempt is a
hard link to that file. So one lock and one heartbeat cover every node that the process is computing,
and an attempt's owner can be judged from the attempt's own file.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from furu.errors import FuruStoreError
from furu.store.layout import is_identifier, owners_directory
from furu.store.record import READ_FLAGS, OwnerRecord, encode, store_failed, write_all

logger = logging.getLogger("furu.store")

# Six beats in a lease: an observer misses five before it may call a live owner dead.
_BEATS_PER_LEASE = 6
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@dataclass(eq=False, slots=True)
class Owner:
    """This process, as it is known in one store. `descriptor` holds the lock: never close it early."""

    store: Path
    record: OwnerRecord
    descriptor: int

    @property
    def path(self) -> str:
        return f"{owners_directory(self.store)}/{self.record.id}"


class _Process:
    """The owners of this process. A fork child starts with none; see `_after_fork`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_store: dict[Path, Owner] = {}
        self.all: list[Owner] = []
        self.heart: threading.Thread | None = None
        self.changed = threading.Event()


_process = _Process()

# The node directories at which this process is, with the number of the attempt.
CLAIMING = 0
running: dict[str, int] = {}


def current_owner(store: Path, lease_sec: float) -> Owner:
    """Return this process's owner in a store, made on the first call.

    Making it proves that the store can be used: that it is a directory which can be written, on a
    filesystem with hard links and locks. Raises `FuruStoreError` otherwise.
    """
    owner = _process.by_store.get(store)
    if owner is not None:
        return owner
    with _process.lock:
        owner = _process.by_store.get(store)
        if owner is None:
            owner = _make_owner(store, lease_sec)
            _process.by_store[store] = owner
            if not _process.all:
                _remove_at_exit_of_worker()
            _process.all.append(owner)
            _start_heart()
    return owner


def forget_owner(owner: Owner) -> None:
    """Stop using an owner whose file somebody removed; what it is computing keeps its lock."""
    with _process.lock:
        if _process.by_store.get(owner.store) is owner:
            del _process.by_store[owner.store]


def _make_owner(store: Path, lease_sec: float) -> Owner:
    directory = owners_directory(store)
    try:
        # Whatever the umask says: not one that `refuse_shared` would refuse next time.
        os.makedirs(store, mode=0o775, exist_ok=True)
        os.makedirs(directory, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FuruStoreError(
            f"the store {store} cannot be used: it, or its {directory}, is a file. "
            "Name a directory with FURU_PATH or use_settings(store=...).",
            path=store,
        ) from None
    except OSError as error:
        raise _unwritable(store, error) from error
    identifier = secrets.token_hex(16)
    path = f"{directory}/{identifier}"
    unnamed = f"{directory}/new-{identifier}"
    try:
        descriptor = os.open(
            unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
    except OSError as error:
        raise _unwritable(store, error) from error
    try:
        # Locked and written before it gets its name: whoever finds the name finds a live owner.
        record = OwnerRecord(
            id=identifier,
            pid=os.getpid(),
            host=socket.gethostname(),
            boot_id=boot_id(),
            device=os.fstat(descriptor).st_dev,
            lease_sec=lease_sec,
        )
        _lock(descriptor, unnamed, store)
        write_all(descriptor, encode(record))
        _link(unnamed, path, store)
    except FuruStoreError:
        os.close(descriptor)
        raise
    except OSError as error:
        os.close(descriptor)
        raise store_failed("write", unnamed, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unnamed)
    return Owner(store, record, descriptor)


def _lock(descriptor: int, path: str, store: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe = os.open(path, READ_FLAGS)
        try:
            held = _is_locked(probe)
        finally:
            os.close(probe)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            held = False
        else:
            raise
    if not held:
        raise FuruStoreError(
            f"the store {store} cannot be used: its filesystem has no file locks that hold. "
            "Put the store on a local disk, or on a network filesystem with locking.",
            path=store,
        )


def _link(source: str, target: str, store: Path) -> None:
    try:
        os.link(source, target)
        same = os.path.samefile(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        same = False
    if not same:
        with contextlib.suppress(OSError):
            os.unlink(target)
        raise FuruStoreError(
            f"the store {store} cannot be used: its filesystem has no hard links. "
            "Put the store on a filesystem with them (ext4, xfs, btrfs, zfs, APFS, NFS, Lustre).",
            path=store,
        )


def _unwritable(store: Path, error: OSError) -> FuruStoreError:
    return FuruStoreError(
        f"the store {store} cannot be written: {error.strerror or error}. Artifacts that are there can "
        "be loaded, none can be computed. Name another store with FURU_PATH or use_settings(store=...).",
        path=store,
    )


# ---- is another owner alive? ----


def is_alive(
    descriptor: int,
    record: OwnerRecord,
    *,
    store: Path,
    directory: str,
    number: int,
    lease_sec: float,
) -> bool:
    """Whether attempt `number` in a node's `directory`, open as `descriptor`, is being made.

    An attempt of this process: whether it is at it. Seen from the owner's own machine: whether its
    process holds the lock. Seen from another one: dead only if the file's mtime has not *changed* for a
    lease on this process's own clock. Raises `OSError` where that cannot be found out.
    """
    info = os.fstat(descriptor)
    own = next((owner for owner in _process.all if owner.record.id == record.id), None)
    if own is not None and os.path.samestat(info, os.fstat(own.descriptor)):
        # This process lives, which says nothing of its attempt: an interrupt may have ended that before
        # it was written down, or the disk was full. It may know the store by another path.
        there = f"{own.store}{directory.removeprefix(os.fspath(store))}"
        if running.get(there) == CLAIMING:
            return there != directory  # who asks by the same path is the claimer itself
        return running.get(there) == number
    if record.boot_id and record.boot_id == boot_id() and record.device == info.st_dev:
        return _is_locked(descriptor)
    return _leases.is_alive(info, max(lease_sec, record.lease_sec))


def remove_dead(store: Path, record: OwnerRecord, info: os.stat_result) -> None:
    """Remove the file of an owner found dead, if the name still belongs to it."""
    if not is_identifier(record.id) or any(record.id == own.record.id for own in _process.all):
        return
    path = f"{owners_directory(store)}/{record.id}"
    with contextlib.suppress(OSError):
        named = os.lstat(path)
        if (named.st_dev, named.st_ino) == (info.st_dev, info.st_ino):
            os.unlink(path)


def _is_locked(descriptor: int) -> bool:
    """Whether another open file holds the lock; takes a shared one for a moment to find out."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


class _Leases:
    """When each owner of another machine was last seen to change its file, on my monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[int, float]] = {}

    def is_alive(self, info: os.stat_result, lease_sec: float) -> bool:
        now = time.monotonic()
        key = (info.st_dev, info.st_ino)
        mtime_ns, since = self._seen.get(key, (-1, now))
        if mtime_ns != info.st_mtime_ns:
            self._seen[key] = (info.st_mtime_ns, now)
            return True
        # The verdict stands until the file changes: every node of a dead owner is told by one lease.
        return now - since < lease_sec


_leases = _Leases()


@functools.cache
def boot_id() -> str:
    """Return what tells this boot of this machine from every other; empty where it cannot be told."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return answer.stdout.strip()
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


# ---- the heartbeat, the end of the process, forks ----


def _start_heart() -> None:
    """Wake the heartbeat for a new owner, or start it. The lock is held."""
    _process.changed.set()
    if _process.heart is None:
        _process.heart = threading.Thread(
            target=_beat, args=(_process,), name="furu-heartbeat", daemon=True
        )
        _process.heart.start()


def _beat(process: _Process) -> None:
    while True:
        interval = min(owner.record.lease_sec for owner in process.all) / _BEATS_PER_LEASE
        process.changed.wait(interval)
        process.changed.clear()
        for owner in list(process.all):
            try:
                os.utime(owner.descriptor)
            except OSError as error:
                logger.warning("heartbeat of %s failed: %s", owner.path, error)


def _at_exit() -> None:
    for owner in _process.all:
        with contextlib.suppress(OSError):
            os.unlink(owner.path)


def _after_fork() -> None:
    """In the child: drop the parent's owners. Closing the copies leaves the parent's locks alone, while
    keeping them open would keep the parent's attempts alive after its death."""
    global _process
    inherited, _process = _process.all, _Process()
    running.clear()
    for owner in inherited:
        with contextlib.suppress(OSError):
            os.close(owner.descriptor)


def _remove_at_exit_of_worker() -> None:
    """A worker of multiprocessing leaves without running what `atexit` has, but not without this."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=0)


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
