"""What this process remembers about its stores: its owners, its running attempts, and who waits for them.

One object holds all of it, with one hook after a fork: the child starts with a new object, which knows its
parent's attempts only to find their files. A test gets a second process by making a second object.

    owner in use -> idle (no attempt is linked to it) -> ended after a while, or when many are idle
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from furu.errors import FuruStoreError
from furu.store.owner import (
    Owner,
    boot_id,
    is_locked,
    is_of_this_machine,
    locks_are_all_here,
    make_owner,
    remove_dead_owners,
)
from furu.store.record import OwnerRecord
from furu.store.sync import DirectorySyncs
from furu.store.trust import Trusted

logger = logging.getLogger("furu.store")

# Six heartbeats in a lease: an observer has to miss five before it may take a live owner for dead.
_BEATS_PER_LEASE = 6
# On a filesystem that other machines may reach, an owner of this boot whose lock is free is dead if it
# misses two heartbeats: it may live in a copy of this virtual machine, whose locks are not seen here.
_BEATS_OF_A_COPY = 2
# A store that has not been used for this long has no open descriptor and no heartbeat.
IDLE_SEC = 5.0
_MAX_IDLE_OWNERS = 4
# How many files in `owners/` a new owner checks for those that killed processes left.
_SWEPT_OWNERS = 64
_MAX_LEASES = 4096


# Guards the memory of this process. Re-entrant, because a signal handler may look at a node while its
# thread holds the lock, and because a thread that forks holds it in the child too.
_lock = threading.RLock()


class Running(Protocol):
    """The part of an attempt that the memory of the process uses."""

    number: int
    owner: Owner | None
    sequence: int

    @property
    def node(self) -> str: ...


class Leases:
    """When each owner of another machine was last seen to change its file, by this process's monotonic
    clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[int, int], tuple[int, float]] = {}

    def is_alive(self, info: os.stat_result, lease_sec: float) -> bool:
        """Whether the file was last seen to change less than a lease ago."""
        now = self._clock()
        key = (info.st_dev, info.st_ino)
        mtime_ns, since = self._seen.get(key, (-1, now))
        if mtime_ns != info.st_mtime_ns:
            if len(self._seen) >= _MAX_LEASES:  # forgetting an owner only means to wait for it again
                self._seen.clear()
            self._seen[key] = (info.st_mtime_ns, now)
            return True
        # The answer stays until the file changes: one lease is enough for all nodes of a dead owner.
        return now - since < lease_sec


class Process:
    """The memory of one process. `lock` guards it, and is held while an owner is made or ended and during a
    fork, so that a child never inherits an owner's file that this object does not know.
    """

    def __init__(
        self,
        *,
        boot: Callable[[], str] = boot_id,
        leases: Leases | None = None,
        beats: bool = True,
        idle_sec: float = IDLE_SEC,
        lock: threading.RLock | None = None,
    ) -> None:
        self.lock = lock or threading.RLock()
        self.is_parents = False
        self.leases = leases or Leases()
        self.forks = 0
        self.directory_syncs = DirectorySyncs()
        self.trusted = Trusted()
        # The owner's place for each class whose directory is a link to another filesystem.
        self.places: dict[str, Path] = {}
        self.owners: list[Owner] = []
        self._boot = boot
        self._beats = beats
        self._idle_sec = idle_sec
        self._current: dict[Path, Owner] = {}
        self._attempts: dict[str, Running] = {}
        self._waiters: dict[str, list[Callable[[], object]]] = {}
        self._claims = itertools.count(1)
        self._inherited: dict[str, Running] = {}
        self._heart: threading.Thread | None = None
        self._changed = threading.Event()
        self._ends_with_worker = False

    # ---- owners ----

    def take_owner(self, place: Path, lease_sec: float) -> Owner:
        """Return this process's owner in a place for one more attempt, and make it if there is none.

        Raises `FuruStoreError` if the place cannot be used.
        """
        with self.lock:
            owner = self._current.get(place)
            if owner is None:
                owner = make_owner(place, lease_sec, self._boot())
                remove_dead_owners(place, self._boot(), _SWEPT_OWNERS)
                try:
                    self._add(owner)
                except BaseException:
                    self._end(owner)
                    raise
            owner.attempts += 1
            return owner

    def give_back(self, owner: Owner) -> None:
        """Note that an attempt of an owner has ended."""
        with self.lock:
            owner.attempts -= 1
            if owner.attempts:
                return
            owner.idle_since = time.monotonic()
            if owner.retired:
                self._end(owner)
                return
            if len(self.owners) > _MAX_IDLE_OWNERS:
                self._end_longest_idle()

    def retire(self, owner: Owner) -> None:
        """Give an owner no new attempts, and end it after its last one.

        This is for an owner whose file was removed, or with a link that cannot be removed: ending the owner
        makes that attempt dead for all observers.
        """
        with self.lock:
            owner.retired = True
            if self._current.get(owner.place) is owner:
                del self._current[owner.place]

    def owns(self, record: OwnerRecord, info: os.stat_result) -> Owner | None:
        """Return the owner of this process to which a record and a file belong, if there is one."""
        for owner in tuple(self.owners):
            if owner.record.id == record.id and owner.is_linked_at(info):
                return owner
        return None

    def _add(self, owner: Owner) -> None:
        if not self._ends_with_worker:
            self._ends_with_worker = True
            _end_with_worker_of_multiprocessing()
        self.owners.append(owner)
        self._current[owner.place] = owner
        if not self._beats:
            return
        self._changed.set()
        if self._heart is None or not self._heart.is_alive():
            heart = threading.Thread(target=self._beat, name="furu-heartbeat", daemon=True)
            try:
                # In an empty context, so that the thread does not keep the current node alive.
                contextvars.Context().run(heart.start)
            except RuntimeError as error:
                if locks_are_all_here(os.fspath(owner.place)):
                    return  # other processes look at the lock, not at heartbeats
                raise FuruStoreError(
                    f"cannot compute in {owner.place}: the heartbeat thread, which shows other machines "
                    f"that this process is alive, cannot be started ({error}). Raise the limit of threads.",
                    path=owner.place,
                ) from error
            self._heart = heart

    def _end_longest_idle(self) -> None:
        idle = [owner for owner in self.owners if not owner.attempts]
        if len(idle) > _MAX_IDLE_OWNERS:
            self._end(min(idle, key=lambda owner: owner.idle_since))

    def _end(self, owner: Owner) -> None:
        self.retire(owner)
        with contextlib.suppress(ValueError):
            self.owners.remove(owner)
        owner.end()

    def _beat(self) -> None:
        """Touch the owners' files and end idle owners, until there are none left."""
        while True:
            with self.lock:
                self._changed.clear()
                now = time.monotonic()
                for owner in tuple(self.owners):
                    if not owner.attempts and now - owner.idle_since >= self._idle_sec:
                        self._end(owner)
                if not self.owners:
                    self._heart = None
                    return
                beating = [(owner, owner.file) for owner in self.owners]
                shortest_sec = min(owner.record.lease_sec for owner in self.owners) / _BEATS_PER_LEASE
                wait_sec = min(shortest_sec, self._idle_sec)
            for owner, file in beating:
                self._touch(owner, file.number)
            del beating  # or the file of an owner that ends during the wait would stay open
            self._changed.wait(wait_sec)

    def _touch(self, owner: Owner, number: int) -> None:
        try:
            if owner.has_its_file:
                os.utime(number)
            elif not owner.retired:
                self.retire(owner)
                logger.error(
                    "this process has closed the lock of %s: other processes may compute its nodes at the "
                    "same time. Do not close descriptors that you have not opened.",
                    owner.path,
                )
        except Exception as error:  # the host's logging filters and handlers may raise too
            with contextlib.suppress(Exception):
                logger.warning("heartbeat of %s failed: %s", owner.path, error)

    # ---- attempts ----

    def enter(self, attempt: Running) -> Running | None:
        """Register an attempt before its claim. If this process has an attempt at the node already, return
        that one; otherwise give the new one a `sequence` number that is unique in this process."""
        node = attempt.node
        with self.lock:
            other = self._attempts.get(node)
            if other is None:
                self._attempts[node] = attempt
                attempt.sequence = next(self._claims)
            return other

    def leave(self, attempt: Running, owner: Owner | None, *, retire: bool) -> None:
        """Forget an attempt, give back its owner, and call the functions that wait for its node."""
        node = attempt.node
        waiters: list[Callable[[], object]] = []
        with self.lock:
            try:
                if owner is not None:
                    if retire:
                        self.retire(owner)
                    self.give_back(owner)
            finally:
                if self._attempts.get(node) is attempt:
                    del self._attempts[node]
                    waiters = self._waiters.pop(node, waiters)
        for tell in tuple(waiters):
            try:
                tell()
            except Exception:
                logger.exception("a waiter for %s failed", attempt.node)

    def attempt_at(self, node: str) -> Running | None:
        """Return this process's attempt at a node, or in a fork, its parent's."""
        return self._attempts.get(node) or self._inherited.get(node)

    def when_released(self, node: str, tell: Callable[[], object]) -> Callable[[], None] | None:
        """Register `tell` to be called, in any thread, when this process releases a node, published or not.

        Returns a function that takes the registration back; None, and `tell` is not called, if this process
        does not hold the node.
        """
        with self.lock:
            if node not in self._attempts:
                return None
            waiters = self._waiters.setdefault(node, [])
            waiters.append(tell)

        def take_back() -> None:
            with self.lock, contextlib.suppress(ValueError):
                waiters.remove(tell)

        return take_back

    def is_alive(
        self,
        descriptor: int,
        info: os.stat_result,
        record: OwnerRecord,
        *,
        node: str,
        number: int,
        lease_sec: float,
    ) -> bool:
        """Whether attempt `number` at a node is running. `descriptor` is its open `try-<n>` file.

        An attempt of this process is alive if this object knows it. One of this machine is alive if its
        process holds the lock. Any other is dead only if the file's mtime has not *changed* for a lease on
        this process's own clock. Raises `OSError` if that cannot be determined.
        """
        own = self.owns(record, info)
        if own is not None:
            return self._is_at(own, node, number)
        if is_of_this_machine(record, info, node, self._boot()):
            return is_locked(descriptor)
        longest_sec = max(lease_sec, record.lease_sec)
        if record.boot_id and record.boot_id == self._boot() and record.device == info.st_dev:
            if is_locked(descriptor):
                return True
            longest_sec = record.lease_sec / _BEATS_PER_LEASE * _BEATS_OF_A_COPY
        return self.leases.is_alive(info, longest_sec)

    def _is_at(self, owner: Owner, node: str, number: int) -> bool:
        """Whether this process runs an attempt, whose store it may know by another path."""
        found = self._attempts.get(node)
        if found is not None and found.number == number and found.owner is owner:
            return True
        above, name = os.path.split(node)
        for path, attempt in tuple(self._attempts.items()):
            other, its_name = os.path.split(path)
            same = attempt.number == number and attempt.owner is owner and its_name == name
            if same and path != node and os.path.samefile(other, above):
                return True
        return False

    # ---- the end of the process, forks ----

    def end(self) -> None:
        """Remove the owners' files, so that other processes need not find out that they are dead."""
        with self.lock:
            for owner in tuple(self.owners):
                self._end(owner)

    def forked(self) -> Process:
        """In the child after a fork: close the owners' files, and return a new memory for the child.

        The child's descriptors share their locks with the parent's. If they stayed open, the parent's
        attempts would look alive after the parent's death.
        """
        child = Process(boot=self._boot, lock=_lock)
        child.forks = self.forks + 1
        child._inherited = {**self._inherited, **self._attempts}
        self.is_parents = True
        for owner in self.owners:
            owner.close()
        return child


_process = Process(lock=_lock)


def this_process() -> Process:
    """Return the memory of this process."""
    return _process


@contextlib.contextmanager
def acting_as(process: Process) -> Iterator[None]:
    """Act as another process in a block; for tests."""
    global _process
    before, _process = _process, process
    try:
        yield
    finally:
        _process = before


def _count_fork() -> None:
    _process.forks += 1


def _after_fork_in_child() -> None:
    global _process
    _process = _process.forked()


def _at_exit() -> None:
    _process.end()


def _end_with_worker_of_multiprocessing() -> None:
    """Such a worker exits without calling `atexit` functions, but calls finalizers."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=0)


atexit.register(_at_exit)
# Hooks after a fork are called in the order of registration, hooks before it in reverse. The lock's hooks
# are built-in functions, which an interrupt cannot split.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release)
os.register_at_fork(after_in_parent=_count_fork, after_in_child=_after_fork_in_child)
os.register_at_fork(after_in_child=_lock.release)
