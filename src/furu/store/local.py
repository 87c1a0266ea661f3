"""What this process remembers about its stores: owners, running attempts, and callbacks that wait for them;
also the values that it has loaded.

One `Process` object contains all of this. After a fork, a hook gives the child a new object, which knows
the parent's attempts only in order to find their files. A test uses a second object as a second process.

    owner in use -> idle (no attempt is linked to it) -> ended, after a while or when many owners are idle
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from furu.errors import FuruStoreError
from furu.store.memory import Memory
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

# Six heartbeats in a lease: an observer considers an owner dead only after it has missed five in a row.
_BEATS_PER_LEASE = 6
# On a filesystem that other machines can reach, an owner with this boot id and a free lock may be alive in
# a copy of this virtual machine, because the copy's locks are invisible here. Such an owner counts as dead
# after two missed heartbeats.
_BEATS_OF_A_COPY = 2
# An owner that is idle for this long is ended, so an unused store has no open descriptor and no heartbeat.
IDLE_SEC = 5.0
_MAX_IDLE_OWNERS = 4
# How many files in `owners/` are checked for dead owners when a new owner is created.
_SWEPT_OWNERS = 64
_MAX_LEASES = 4096


# Guards the `Process` object. Re-entrant for two reasons: a signal handler may check a node while its
# thread holds the lock, and after a fork the forking thread still holds the lock in the child.
_lock = threading.RLock()


class Running(Protocol):
    """The attributes of an attempt that `Process` uses."""

    number: int
    owner: Owner | None
    sequence: int

    @property
    def node(self) -> str: ...


class Leases:
    """Remembers when this process last saw the file of each owner on another machine change. Times are from
    this process's monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[int, int], tuple[int, float]] = {}

    def is_alive(self, info: os.stat_result, lease_sec: float) -> bool:
        """Whether a change of the file was seen less than a lease ago. A first look counts as a change."""
        now = self._clock()
        key = (info.st_dev, info.st_ino)
        mtime_ns, since = self._seen.get(key, (-1, now))
        if mtime_ns != info.st_mtime_ns:
            if len(self._seen) >= _MAX_LEASES:  # a forgotten owner only costs another lease of waiting
                self._seen.clear()
            self._seen[key] = (info.st_mtime_ns, now)
            return True
        # The entry is kept until the file changes, so one lease is enough for all nodes of a dead owner.
        return now - since < lease_sec


class Process:
    """What one process remembers. `lock` guards this object. The lock is held during a fork, and while an
    owner is created or ended, so a child never inherits an owner's file that this object does not know.
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
        self.loaded = Memory()
        # Where the owner's file is, for each class directory that is a symbolic link to another filesystem.
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
        """Return this process's owner in `place`, created if necessary, and count one more attempt.

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
        """Give back an owner that an attempt no longer needs."""
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
        """Give an owner no new attempts, and end the owner after its last attempt.

        Call this if the owner's file was removed, or if an attempt's link to it cannot be removed: once the
        owner has ended, all processes see that the attempt is dead.
        """
        with self.lock:
            owner.retired = True
            if self._current.get(owner.place) is owner:
                del self._current[owner.place]

    def owns(self, record: OwnerRecord, info: os.stat_result) -> Owner | None:
        """Return this process's owner with this record and this file; None if there is none."""
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
                # Start in an empty context: a copy of the current context would keep a node alive.
                contextvars.Context().run(heart.start)
            except RuntimeError as error:
                if locks_are_all_here(os.fspath(owner.place)):
                    return  # other processes check the lock, so heartbeats are not needed
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
        """Touch the owners' files and end idle owners, until no owner is left."""
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
            del beating  # otherwise the file of an owner that ends during the wait stays open
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
        except Exception as error:  # the application's logging filters and handlers may raise
            with contextlib.suppress(Exception):
                logger.warning("heartbeat of %s failed: %s", owner.path, error)

    # ---- attempts ----

    def enter(self, attempt: Running) -> Running | None:
        """Register an attempt before it claims its node, and give it a `sequence` number that is unique in
        this process. If this process already has an attempt at the node, only returns that attempt."""
        node = attempt.node
        with self.lock:
            other = self._attempts.get(node)
            if other is None:
                self._attempts[node] = attempt
                attempt.sequence = next(self._claims)
            return other

    def leave(self, attempt: Running, owner: Owner | None, *, retire: bool) -> None:
        """Forget an attempt, give back its owner, and call the callbacks that wait for its node.

        Does nothing if the attempt was never entered, or has already left.
        """
        node = attempt.node
        waiters: Sequence[Callable[[], object]] = ()
        with self.lock:
            if self._attempts.get(node) is not attempt:
                return
            try:
                if owner is not None:
                    if retire:
                        self.retire(owner)
                    self.give_back(owner)
            finally:
                del self._attempts[node]
                waiters = self._waiters.pop(node, waiters)
        for tell in tuple(waiters):
            try:
                tell()
            except Exception:
                logger.exception("a waiter for %s failed", attempt.node)

    def attempt_at(self, node: str) -> Running | None:
        """Return this process's attempt at a node, or in a forked child, the parent's."""
        return self._attempts.get(node) or self._inherited.get(node)

    def when_released(self, node: str, tell: Callable[[], object]) -> Callable[[], None] | None:
        """Call `tell`, in any thread, when this process releases a node, whether or not it was published.

        Returns a function that cancels this call. If this process does not hold the node, returns None, and
        `tell` is never called.
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

        An attempt of this process is alive if this object knows the attempt. An attempt of another process
        on this machine is alive if that process holds the lock. Any other attempt is dead only if the mtime
        of its file has not *changed* for a lease, or for two heartbeats in a copy of this virtual machine,
        by this process's own clock. Raises `OSError` if the check fails.
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
        """Whether this process is running attempt `number` at a node, perhaps under another path."""
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
        """End all owners, so that other processes do not have to find out whether they are dead."""
        with self.lock:
            for owner in tuple(self.owners):
                self._end(owner)

    def forked(self) -> Process:
        """Close the owners' files in a forked child, and return a new `Process` for the child.

        The child's descriptors share the parent's locks. If they stayed open, the parent's attempts would
        look alive after the parent's death.
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
    """Return the `Process` object of this process."""
    return _process


@contextlib.contextmanager
def acting_as(process: Process) -> Iterator[None]:
    """Use another `Process` object inside a `with` block. For tests."""
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
    """Register a finalizer that ends the owners, because a multiprocessing worker exits without calling
    `atexit` functions."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=0)


atexit.register(_at_exit)
# Python calls `before` hooks in reverse order of registration, and `after` hooks in order. The lock's hooks
# are built-in functions, because a KeyboardInterrupt cannot stop a built-in function halfway.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release)
os.register_at_fork(after_in_parent=_count_fork, after_in_child=_after_fork_in_child)
os.register_at_fork(after_in_child=_lock.release)
