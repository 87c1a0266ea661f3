"""What this process remembers about its stores: its owners, the attempts it makes, who waits for them.

One object holds all of it, with one hook after a fork: the child starts anew, and keeps of its parent's
attempts only where their files lie. A test gets a second process by making a second object.

    owner in use -> idle (no attempt is linked to it) -> ended after a while, or when others are idle too
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

logger = logging.getLogger("furu.store")

# Six beats in a lease: an observer misses five before it may call a live owner dead.
_BEATS_PER_LEASE = 6
# On a filesystem that other machines may reach, an owner of this boot whose lock is free is dead if it
# misses two beats: it may live in a copy of this virtual machine, where its lock is not seen.
_BEATS_OF_A_COPY = 2
# A store that is not in use holds no descriptor and no heartbeat. Between two nodes it is in use.
IDLE_SEC = 5.0
_MAX_IDLE_OWNERS = 4
# How many files of `owners/` a new owner looks at for those that killed processes left.
_SWEPT_OWNERS = 64
_MAX_LEASES = 4096


# Guards the memory of this process. Re-entrant, because a signal handler may look at a node while its
# thread is in here, and because the thread that forks holds it in the child too.
_lock = threading.RLock()


class Running(Protocol):
    """An attempt, as far as the process's memory looks at it."""

    number: int
    owner: Owner | None
    sequence: int

    @property
    def directory(self) -> str: ...


class Leases:
    """When each owner of another machine was last seen to change its file, on my monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[int, int], tuple[int, float]] = {}

    def is_alive(self, info: os.stat_result, lease_sec: float) -> bool:
        """Whether the file has changed within a lease of looking at it."""
        now = self._clock()
        key = (info.st_dev, info.st_ino)
        mtime_ns, since = self._seen.get(key, (-1, now))
        if mtime_ns != info.st_mtime_ns:
            if len(self._seen) >= _MAX_LEASES:  # a forgotten owner is only waited for once more
                self._seen.clear()
            self._seen[key] = (info.st_mtime_ns, now)
            return True
        # The verdict stands until the file changes: one lease decides for every node of a dead owner.
        return now - since < lease_sec


class Process:
    """The memory of one process. `lock` guards all of it, and is held while an owner is made or ended,
    and by a fork: so no child inherits an owner's file that this object does not know.
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
        self.synced_above: set[Path] = set()
        self.trusted: set[Path] = set()
        # Where owners are for the directories of classes that are links to another filesystem.
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
        """Return this process's owner in a place, made if there is none, for one more attempt.

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
        """An attempt of an owner has ended."""
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

        For an owner whose file was removed, and for one that is linked to a name which cannot be removed:
        that attempt is dead to everyone as soon as the owner ends.
        """
        with self.lock:
            owner.retired = True
            if self._current.get(owner.place) is owner:
                del self._current[owner.place]

    def owns(self, record: OwnerRecord, info: os.stat_result) -> Owner | None:
        """Return the owner of this process that a record and a file are of, if any."""
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
                # In an empty context: the node that is computed here is not to live as long.
                contextvars.Context().run(heart.start)
            except RuntimeError as error:
                if locks_are_all_here(os.fspath(owner.place)):
                    return  # no other machine looks for a beat
                raise FuruStoreError(
                    f"cannot compute in {owner.place}: the thread that shows other processes that this "
                    f"one is alive cannot be started ({error}). Raise the limit of threads, or end some.",
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
        """Touch the owners' files, and end those that are idle; return when there is none left."""
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
            del beating  # or an owner that ends while this thread waits would not be closed
            self._changed.wait(wait_sec)

    def _touch(self, owner: Owner, number: int) -> None:
        try:
            if owner.has_its_file:
                os.utime(number)
            elif not owner.retired:
                self.retire(owner)
                logger.error(
                    "something in this process has closed the lock of %s: other processes may compute its "
                    "nodes at the same time. Do not close descriptors that you have not opened.",
                    owner.path,
                )
        except Exception as error:  # a filter or handler of the host's may raise too
            with contextlib.suppress(Exception):
                logger.warning("heartbeat of %s failed: %s", owner.path, error)

    # ---- attempts ----

    def enter(self, attempt: Running) -> Running | None:
        """Register an attempt before it claims; return the one that is at the node already, if any. The
        attempt gets a `sequence` that no other attempt of this process has."""
        directory = attempt.directory
        with self.lock:
            other = self._attempts.get(directory)
            if other is None:
                self._attempts[directory] = attempt
                attempt.sequence = next(self._claims)
            return other

    def leave(self, attempt: Running, owner: Owner | None, *, retire: bool) -> None:
        """Forget an attempt, give back the owner that it had, and call those that wait for its node."""
        directory = attempt.directory
        waiters: list[Callable[[], object]] = []
        with self.lock:
            try:
                if owner is not None:
                    if retire:
                        self.retire(owner)
                    self.give_back(owner)
            finally:
                if self._attempts.get(directory) is attempt:
                    del self._attempts[directory]
                    waiters = self._waiters.pop(directory, waiters)
        for tell in tuple(waiters):
            try:
                tell()
            except Exception:
                logger.exception("a waiter for %s failed", attempt.directory)

    def attempt_at(self, directory: str) -> Running | None:
        """Return the attempt that this process makes at a node, or in a fork, that its parent made."""
        return self._attempts.get(directory) or self._inherited.get(directory)

    def when_released(self, directory: str, tell: Callable[[], object]) -> Callable[[], None] | None:
        """Register `tell` to be called, in any thread, when this process releases a node, published or not.

        Returns a function that takes the registration back; None, and `tell` is not called, if this process
        does not hold the node.
        """
        with self.lock:
            if directory not in self._attempts:
                return None
            waiters = self._waiters.setdefault(directory, [])
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
        directory: str,
        number: int,
        lease_sec: float,
    ) -> bool:
        """Whether attempt `number` in a node's `directory`, open as `descriptor`, is being made.

        An attempt of this process: whether this object knows it. Seen from the owner's own machine:
        whether its process holds the lock. Seen from elsewhere: dead only if the file's mtime has not
        *changed* for a lease on this process's own clock. Raises `OSError` where that cannot be found
        out.
        """
        own = self.owns(record, info)
        if own is not None:
            return self._is_at(own, directory, number)
        if is_of_this_machine(record, info, directory, self._boot()):
            return is_locked(descriptor)
        longest_sec = max(lease_sec, record.lease_sec)
        if record.boot_id and record.boot_id == self._boot() and record.device == info.st_dev:
            if is_locked(descriptor):
                return True
            longest_sec = record.lease_sec / _BEATS_PER_LEASE * _BEATS_OF_A_COPY
        return self.leases.is_alive(info, longest_sec)

    def _is_at(self, owner: Owner, directory: str, number: int) -> bool:
        """Whether this process makes an attempt, whose store it may know by another path."""
        found = self._attempts.get(directory)
        if found is not None and found.number == number and found.owner is owner:
            return True
        name = os.path.basename(directory)
        for path, attempt in tuple(self._attempts.items()):
            same = attempt.number == number and attempt.owner is owner and os.path.basename(path) == name
            if same and path != directory and os.path.samefile(path, directory):
                return True
        return False

    # ---- the end of the process, forks ----

    def end(self) -> None:
        """Remove the owners' files, so that no other process has to find out that they are dead."""
        with self.lock:
            for owner in tuple(self.owners):
                self._end(owner)

    def forked(self) -> Process:
        """In a fork's child: close the owners' files, and return the child's own memory.

        The copies share their locks with the parent's: kept open, they would keep the parent's attempts
        alive after its death.
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
    """Act as another process for a block; for tests."""
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
    """Such a worker leaves without calling what `atexit` has, but calls this."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=0)


atexit.register(_at_exit)
# Hooks after a fork are called in the order in which they are registered, those before it in reverse. That
# of the lock is a built-in, which no interrupt cuts in two.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release)
os.register_at_fork(after_in_parent=_count_fork, after_in_child=_after_fork_in_child)
os.register_at_fork(after_in_child=_lock.release)
