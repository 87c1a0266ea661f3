"""Runs claimers as if each were a separate process, one filesystem call at a time, in a chosen order.

Every claimer is a thread that runs the real code of the store, with its own owner and its own claims. One
claimer runs at a time. A *plan* says before which calls another claimer continues, and where one crashes:

    "3>1 7x"    before call 3 (counted over all claimers) claimer 1 continues; at call 7 the running
    claimer crashes

A crashed claimer makes no more calls and has lost its lock, as after SIGKILL. A plan can be written as
text, so that a plan that found a fault can be run again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

from furu.store.local import Leases
from tests.store.processes import OtherProcess

STEPS = ("link", "listdir", "lstat", "mkdir", "open", "rename", "replace", "unlink", "write")

# What happens before a call: the claimer that continues, or None if the running claimer crashes.
Plan = Mapping[int, "int | None"]


class Crashed(BaseException):
    """Unwinds the stack of a dead claimer. The calls of its cleanup have no effect."""


def parse_plan(text: str) -> dict[int, int | None]:
    """Parse the text that `write_plan` returned."""
    plan: dict[int, int | None] = {}
    for word in text.split():
        step, switch, number = word.partition(">")
        plan[int(step.rstrip("x"))] = int(number) if switch else None
    return plan


def write_plan(plan: Plan) -> str:
    """Return a plan as text."""
    return " ".join(f"{step}x" if to is None else f"{step}>{to}" for step, to in sorted(plan.items()))


@dataclass
class Interleaved:
    """What the claimers returned or raised, and the number of calls of all claimers."""

    results: list[Any]
    steps: int


class _Claimer(threading.Thread):
    """Runs a function as if in another process, and only while it has its turn."""

    def __init__(self, work: Callable[[], Any], process: OtherProcess) -> None:
        super().__init__(daemon=True)
        self.result: Any = None
        self.turn = threading.Semaphore(0)
        self.crashed = False
        self.process = process
        self.ended: Callable[[], None] = lambda: None
        self._work = work
        self._inside = ExitStack()

    def run(self) -> None:
        self._begin_turn()
        try:
            self.result = self._work()
        except BaseException as error:
            self.result = error
        self._inside.close()
        self.ended()

    def give_way_to(self, other: _Claimer) -> None:
        self._inside.close()
        other.turn.release()
        self._begin_turn()

    def _begin_turn(self) -> None:
        self.turn.acquire()
        self._inside.enter_context(self.process.running())


class _Expired(Leases):
    """Leases that have always just expired."""

    def is_alive(self, info: os.stat_result, lease_sec: float) -> bool:
        return False


class Interleaver:
    """Runs claimers one at a time. Only the running claimer uses the attributes of this object.

    If `expired`, each claimer is on a separate machine, and every lease has just expired, so that any
    claimer may take any other for dead at any time.
    """

    def __init__(self, *, expired: bool = False) -> None:
        self._expired = expired
        self._claimers: list[_Claimer] = []
        self._left: list[_Claimer] = []
        self._idle: list[OtherProcess] = []
        self._plan: Plan = {}
        self._watch: Callable[[], None] = lambda: None
        self._watching = False
        self._steps = 0
        self._over = threading.Event()

    def run(
        self, work: Sequence[Callable[[], Any]], plan: Plan, watch: Callable[[], None] = lambda: None
    ) -> Interleaved:
        """Run all claimers to their end, the first one first. `watch` is called between any two calls."""
        claimers = [_Claimer(one, self._make_process(number)) for number, one in enumerate(work)]
        self._claimers, self._left = claimers, list(claimers)
        self._plan, self._watch, self._steps = plan, watch, 0
        self._over.clear()
        for claimer in claimers:
            claimer.ended = lambda claimer=claimer: self._ended(claimer)  # type: ignore[misc]
            claimer.start()
        claimers[0].turn.release()
        assert self._over.wait(10), "the claimers wait for each other"
        for claimer in claimers:
            claimer.join()
        self._idle += [claimer.process for claimer in claimers]
        return Interleaved([claimer.result for claimer in claimers], self._steps)

    def _make_process(self, number: int) -> OtherProcess:
        process = OtherProcess(
            f"machine-{number}" if self._expired else None, _Expired() if self._expired else None
        )
        process.owner_path()  # create the owner now, not in a step
        return process

    def let_die(self) -> None:
        """Let the ended claimers die with their locks. Until then they count as alive, without claims."""
        for process in self._idle:
            process.die()
        self._idle.clear()

    def step(self) -> None:
        claimer = threading.current_thread()
        if claimer not in self._left or self._watching:
            return  # the thread of the test, or the heartbeat
        assert isinstance(claimer, _Claimer)
        if claimer.crashed:
            raise Crashed
        self._look()
        self._steps += 1
        if self._steps not in self._plan:
            return
        following = self._plan[self._steps]
        if following is None:
            claimer.crashed = True
            claimer.process.die()
            raise Crashed
        other = self._claimers[following]
        if other is not claimer and other in self._left:
            claimer.give_way_to(other)

    def _look(self) -> None:
        self._watching = True
        try:
            self._watch()
        finally:
            self._watching = False

    def _ended(self, claimer: _Claimer) -> None:
        following = self._left[(self._left.index(claimer) + 1) % len(self._left)]
        self._left.remove(claimer)
        self._look()
        if self._left:
            following.turn.release()
        else:
            self._over.set()


@contextlib.contextmanager
def interleaver(*, expired: bool = False) -> Iterator[Interleaver]:
    """Return an interleaver whose calls are stepped until the end of the block."""
    made = Interleaver(expired=expired)

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.step()
            return real(*args, **kwargs)

        return call

    with ExitStack() as stack:
        stack.callback(made.let_die)
        for name in STEPS:
            stack.enter_context(mock.patch.object(os, name, stepping(getattr(os, name))))
        yield made
