"""Tracks the nodes of a run that other owners are computing, and when to look at each node again.

    held      another part of this process computes the node, and reports its release
    polled    another process computes the node, and does not report when it finishes
    due       to be looked at next: the node was released, or a worker has just found it taken
    looking   discovery is looking at the node

          add ──> held ──> due ──> looking ──> held or polled; or forgotten, if no other owner computes it
                   │        ^
            polled └────────┘ after poll_interval_sec

A node is never looked at twice at the same time, and a round of polling begins `poll_interval_sec` after
the last look of the previous round. So looks never pile up, even on a slow disk.

All methods are called on the run's loop, except `_report_release`.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from furu._common.loops import Waker
from furu.execution.workers.base import Job
from furu.node.base import Node, artifact_of
from furu.node.waiting import Wait
from furu.store.claim import when_released


class Elsewhere:
    """The nodes of a run that other owners compute. `changed` is called on the loop after a release."""

    def __init__(self, poll_interval_sec: float, changed: Callable[[], object]) -> None:
        self._poll_interval_sec = poll_interval_sec
        self._changed = changed
        self._jobs: dict[str, Job] = {}
        # For each held node, two functions that end the wait for it.
        self._held: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}
        self._polled: dict[str, Job] = {}
        self._due: dict[str, Job] = {}
        self._round: set[str] = set()  # polled nodes that are being checked in this round
        self._next_round = 0.0
        self._released: deque[str] = deque()
        self._waker = Waker(self._take_released)

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: str) -> bool:
        return key in self._jobs

    @property
    def next_look(self) -> float:
        """The time at which the next round of polling begins, by the loop's clock."""
        return self._next_round if self._polled and not self._round else math.inf

    def add(self, job: Job) -> None:
        """Add a node that a worker found taken. Raises `FuruCycleError` if its owner waits for this run."""
        self._jobs[job.key] = job
        if not self._hold(job):
            self._due[job.key] = job  # its owner may have finished since the worker tried to claim it

    def still(self, job: Job) -> None:
        """Record a node that discovery found taken. Raises `FuruCycleError` if its owner waits for this
        run."""
        self._jobs[job.key] = job
        self._looked_at(job.key)
        if not self._hold(job):
            if not self._polled and not self._round:
                self._next_round = anyio.current_time() + self._poll_interval_sec
            self._polled[job.key] = job

    def take_due(self) -> list[Node[Any]]:
        """Return the nodes that discovery must look at now. After each look, call `still` or `forget`."""
        if anyio.current_time() >= self.next_look:
            self._due |= self._polled
            self._round, self._polled = set(self._polled), {}
        due, self._due = self._due, {}
        return [job.node for job in due.values()]

    def forget(self, key: str) -> None:
        """Drop a node that no other owner computes any more, or that the run no longer needs."""
        if self._jobs.pop(key, None) is not None:
            self._end_wait(key)
            self._polled.pop(key, None)
            self._due.pop(key, None)
            self._looked_at(key)

    def close(self) -> None:
        """End all waits, so that nothing in this process keeps a reference to the run."""
        for key in list(self._jobs):
            self.forget(key)

    def _hold(self, job: Job) -> bool:
        """Request a call when this process releases a node. Returns False if another process owns it."""
        released = functools.partial(self._report_release, job.key)
        take_back = when_released(artifact_of(job.node), released)
        if take_back is None:
            return False
        try:
            wait = Wait()
            wait.begin(job.node)
            self._held[job.key] = take_back, wait.end
        except BaseException:
            take_back()
            raise
        return True

    def _end_wait(self, key: str) -> None:
        for end in self._held.pop(key, ()):
            end()

    def _looked_at(self, key: str) -> None:
        if key in self._round:
            self._round.remove(key)
            if not self._round:
                self._next_round = anyio.current_time() + self._poll_interval_sec

    def _report_release(self, key: str) -> None:
        """Report a release to the loop. May be called in any thread."""
        self._released.append(key)
        self._waker.wake()

    def _take_released(self) -> None:
        while self._released:
            key = self._released.popleft()
            if key in self._held:
                self._end_wait(key)
                self._due[key] = self._jobs[key]
        self._changed()
