"""Owners: locked files that represent processes, and the check whether an owner is alive.

A process keeps its file `owners/<id>` locked while it computes, and an attempt is a hard link to that file.
So one lock and one heartbeat serve all nodes that the process computes, and any process can check an
attempt's file to see whether the owner is alive. `local.py` keeps track of this process's owners.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import random
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from furu.errors import FuruStoreError
from furu.store.layout import is_identifier, owners_directory
from furu.store.record import (
    READ_FLAGS,
    OwnerRecord,
    decode_attempt,
    encode,
    read_open,
    store_failed,
    write_all,
)

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
# An owner's record is a few hundred bytes long.
_MAX_OWNER_BYTES = 2**16
# The age at which unfinished files in `owners/` are removed; writing such a file takes milliseconds. Only
# files on local filesystems are removed, because their mtimes come from this machine's clock.
_HALF_MADE_SEC = 3600.0
# Filesystems that only one kernel can mount at a time, so this kernel sees every lock on their files.
_LOCAL_FILESYSTEMS = {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "nilfs2"}
_LOCAL_FILESYSTEMS |= {"overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"}


class Descriptor:
    """A file descriptor that is closed exactly once: by `close`, or when the object is deleted.

    The system may reuse the number of a closed descriptor for another file immediately. So a thread that is
    writing keeps a reference to this object, which keeps the file open. Nothing else closes the number.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Close the descriptor now. No other thread may be using it."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


@dataclass(eq=False, slots=True)
class Owner:
    """An owner that represents this process.

    `file` is the locked file in the directory `<place>/owners`. `attempts` counts the attempts that are
    links to this file. A `retired` owner gets no new attempts.
    """

    place: Path
    record: OwnerRecord
    file: Descriptor
    inode: tuple[int, int]
    attempts: int = 0
    idle_since: float = 0.0
    retired: bool = False
    path: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = f"{owners_directory(self.place)}/{self.record.id}"

    @property
    def has_its_file(self) -> bool:
        """Whether the descriptor still refers to the owner's file. A node may close any descriptor."""
        try:
            info = os.fstat(self.file.number)
        except OSError as error:
            return error.errno != errno.EBADF
        return self.is_linked_at(info)

    def is_linked_at(self, info: os.stat_result) -> bool:
        """Whether `info` is the stat result of this owner's file."""
        return (info.st_dev, info.st_ino) == self.inode

    def document(self, claim: int) -> str:
        """Return the path at which a claim's document is written before it gets its final name."""
        return f"{self.path}.{claim:x}"

    def end(self) -> None:
        """Remove the file and release the lock. Attempts that are still links to the file are then dead."""
        try:
            with contextlib.suppress(OSError):
                if self.is_linked_at(os.lstat(self.path)):
                    os.unlink(self.path)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file, unless the descriptor's number now belongs to another file."""
        if self.has_its_file:
            with contextlib.suppress(OSError):  # a failed close releases the lock too
                self.file.close()
        self.file.number = -1


def make_owner(place: Path, lease_sec: float, boot: str) -> Owner:
    """Create an owner's file in `<place>/owners`. The place is a store, or a class's directory on another
    filesystem.

    Raises `FuruStoreError` if the place cannot be used: it must be a writable directory on a filesystem
    with hard links and locks.
    """
    directory = owners_directory(place)
    try:
        # Whatever the umask is, do not let every user write: `refuse_shared` would refuse the store later.
        os.makedirs(place, mode=0o775, exist_ok=True)
        os.makedirs(directory, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FuruStoreError(
            f"the store {place} cannot be used: it, or its {directory}, is a file. "
            "Name a directory with FURU_PATH or use_settings(store=...).",
            path=place,
        ) from None
    except OSError as error:
        raise _unwritable(place, error) from error
    identifier = secrets.token_hex(16)
    path = f"{directory}/{identifier}"
    unnamed = f"{directory}/new-{identifier}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = Descriptor(os.open(unnamed, flags, 0o644))
    except OSError as error:
        raise _unwritable(place, error) from error
    try:
        # Lock and write the file before it gets its final name, so that an unlocked file has a dead owner.
        info = os.fstat(file.number)
        record = OwnerRecord(
            id=identifier,
            pid=os.getpid(),
            host=socket.gethostname(),
            boot_id=boot,
            device=info.st_dev,
            lease_sec=lease_sec,
        )
        _lock(file.number, unnamed, place)
        write_all(file.number, encode(record))
        _link(unnamed, path, place)
    except OSError as error:
        file.close()
        raise store_failed("write", unnamed, error) from error
    except BaseException:
        file.close()
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unnamed)
    return Owner(place, record, file, (info.st_dev, info.st_ino))


def _lock(descriptor: int, path: str, store: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe = os.open(path, READ_FLAGS)
        try:
            held = is_locked(probe)
        finally:
            os.close(probe)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            held = False
        else:
            raise
    if not held:
        raise FuruStoreError(
            f"the store {store} cannot be used: file locks do not work on its filesystem. "
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
        f"the store {store} cannot be written: {error.strerror or error}. Existing artifacts can be "
        "loaded, but nothing can be computed. Name another store with FURU_PATH or "
        "use_settings(store=...).",
        path=store,
    )


# ---- checking other owners ----


def is_locked(descriptor: int) -> bool:
    """Whether another open file holds the lock. To find out, this takes a shared lock for a moment."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


@functools.cache
def boot_id() -> str:
    """Return a string that identifies this machine's current boot; empty if the system provides none."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return answer.stdout.strip()
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


@functools.lru_cache(maxsize=256)
def locks_are_all_here(directory: str) -> bool:
    """Whether a directory is on a local filesystem, so that this kernel sees every lock on its files.

    A copy of a virtual machine has the boot id and device numbers of the original. If both machines can
    reach a filesystem, each may be unable to see the other's locks.
    """
    if sys.platform == "darwin":
        return True
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return False
    path = os.path.realpath(directory)
    kind, longest = "", -1
    for fields in mounts:
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # a later mount at the same path hides an earlier mount
            kind, longest = fields[fields.index("-") + 1], len(point)
    return kind in _LOCAL_FILESYSTEMS


def remove_dead(place: Path, identifier: str, info: os.stat_result) -> None:
    """Remove a dead owner's file, if its path still leads to the file with the stat result `info`."""
    if not is_identifier(identifier):
        return
    path = f"{owners_directory(place)}/{identifier}"
    with contextlib.suppress(OSError):
        if os.path.samestat(os.lstat(path), info):
            os.unlink(path)


def remove_dead_owners(place: Path, boot: str, most: int) -> None:
    """Remove files that killed processes of this machine left in `owners/`. Checks at most `most` files.

    Files that cannot be read or that belong to another machine are kept.
    """
    directory = owners_directory(place)
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return
    for name in random.sample(names, min(most, len(names))):
        with contextlib.suppress(OSError, FuruStoreError):
            _remove_if_dead(f"{directory}/{name}", boot)


def _remove_if_dead(path: str, boot: str) -> None:
    file = Descriptor(os.open(path, READ_FLAGS))
    info = os.fstat(file.number)
    name = os.path.basename(path)
    if name.startswith("new-") or "." in name:  # unfinished: its process is still writing, or was killed
        is_old = time.time() - info.st_mtime > _HALF_MADE_SEC
        of_this_machine = is_old and locks_are_all_here(os.path.dirname(path))
    else:
        record = decode_attempt(read_open(file.number, path, _MAX_OWNER_BYTES))
        of_this_machine = (
            isinstance(record, OwnerRecord)
            and record.id == name
            and is_of_this_machine(record, info, path, boot)
        )
    if of_this_machine and not is_locked(file.number) and os.path.samestat(os.lstat(path), info):
        os.unlink(path)


def is_of_this_machine(record: OwnerRecord, info: os.stat_result, path: str, boot: str) -> bool:
    """Whether an owner belongs to this boot of this machine. If so, its lock shows whether it is alive."""
    same_boot = bool(record.boot_id) and record.boot_id == boot and record.device == info.st_dev
    return same_boot and locks_are_all_here(os.path.dirname(path))
