"""A program that interrupts `get()` in the main thread, and prints as JSON what was left behind.

    python -m tests.faults.interrupts signals KINDS TRIALS [SEED]   real signals at random times
    python -m tests.faults.interrupts lines KINDS [EVERY]           at every line of furu
    python -m tests.faults.interrupts ends KINDS [EVERY]            at the normal end of each `with` block
    python -m tests.faults.interrupts calls KINDS [EVERY]           at the start of each function of furu
    python -m tests.faults.interrupts returns KINDS [EVERY]         at the return of each function of furu
    python -m tests.faults.interrupts twice KINDS [EVERY]           at a line, and again 1 to 8 lines later
    python -m tests.faults.interrupts memory KINDS [EVERY]          each allocation fails in turn
    python -m tests.faults.interrupts depth KINDS [EVERY]           the recursion limit, at every depth

KINDS are names from `interrupt_nodes.KINDS`, separated by commas, or `all`. With EVERY, only each EVERY-th
place is interrupted. Each trial uses a new node. After the trial, a second process must not see the node
IN_PROGRESS, and a later `get()` in this process must return its value in time.

`lines` leaves out the places of `ends`, between the last line of a `with` block and its `__exit__`: there
a trace function is called, but CPython does not handle signals.
"""

from __future__ import annotations

import collections
import contextlib
import dis
import itertools
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self

import furu
from furu import FuruComputeError
from tests.faults.interrupt_nodes import KINDS, expected, make, nodes_of
from tests.faults.observer import HangError, Observer, within

SOURCE = str(Path(furu.__file__).parent) + os.sep
LATER_GET_SEC = 15.0
# After this many trials in a row without an interrupt, all places have been interrupted.
MISSES = 3
MOST_TRIALS = 20_000
# The numbers of lines between the first and the second interrupt.
SECOND_AFTER = (1, 2, 3, 5, 8)
# The number of examples that are printed for each finding.
EXAMPLES = 12
# After this many hanging calls, the program gives up.
MOST_HANGS = 5
# A `get()` in the main thread that takes longer is waiting for a lock that an interrupt left taken.
LOCKED_SEC = 20.0


class LockedError(BaseException):
    """A `get()` of a new node hangs, because an earlier interrupt has left a lock taken."""


class Findings:
    """Runs the trials, and counts what they left behind."""

    def __init__(self, observer: Observer) -> None:
        self.kind = ""
        self.trials = 0
        self.counts: collections.Counter[str] = collections.Counter(
            {"interrupted": 0, "hangs": 0, "in progress": 0, "wrong": 0, "locks left taken": 0}
        )
        self.examples: dict[str, list[str]] = {}
        self._last = "the first"
        self._observer = observer
        self._store = os.environ["FURU_PATH"]

    @property
    def is_hopeless(self) -> bool:
        """Whether so many calls hang that further trials are useless."""
        return self.counts["hangs"] >= MOST_HANGS or self.counts["locks left taken"] > 0

    def get(self, trial: int, around: Any = None) -> BaseException | None:
        """Get a new node in this thread, within a context manager if given. Return what `get()` raised."""
        node = make(self.kind, trial)

        def give_up(*_: object) -> None:
            raise LockedError

        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, LOCKED_SEC)
        try:
            with around or contextlib.nullcontext():
                node.get()
        except LockedError as error:
            # If this trial was interrupted, its own frames hold the lock; otherwise the last trial left it.
            self.note("locks left taken", getattr(around, "place", "") or self._last)
            return error
        except BaseException as error:
            return error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return None

    def check(self, trial: int, place: str) -> None:
        """Check the status of a trial's nodes in the second process, then get them in this process."""
        self._last = place
        node = make(self.kind, trial)
        statuses = self._observer.statuses([(self._store, one) for one in nodes_of(node)])
        for one, status in zip(nodes_of(node), statuses, strict=True):
            if status == "IN_PROGRESS":
                self.note("in progress", f"{place}: {one}")
            elif status not in ("TODO", "DONE", "FAILED"):
                self.note("wrong", f"{place}: status of {one}: {status}")
        try:
            value = within(LATER_GET_SEC, node.get)
        except HangError:
            self.note("hangs", f"{place}: {node}")
            return
        except FuruComputeError as error:
            value = None if self.kind == "failing" else error
        except BaseException as error:
            value = error
        if value != expected(self.kind, trial):
            self.note("wrong", f"{place}: {node}.get() gave {value!r}")

    def next_trial(self) -> int:
        """Return a new trial number."""
        self.trials += 1
        return self.trials

    def note(self, what: str, example: str) -> None:
        """Count a finding, and keep an example."""
        self.counts[what] += 1
        examples = self.examples.setdefault(what, [])
        if len(examples) < EXAMPLES:
            examples.append(example)


# ---- real signals ----


def signals(findings: Findings, trials: int, seed: int = 1) -> None:
    """Raise KeyboardInterrupt at random times."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.default_int_handler)
    findings.get(findings.next_trial())
    signal.signal(signal.SIGALRM, interrupt)
    started = time.perf_counter()
    for _ in range(20):
        with contextlib.suppress(FuruComputeError):
            make(findings.kind, findings.next_trial()).get()
    longest = (time.perf_counter() - started) / 20 * 1.3
    chance = random.Random(seed)
    for _ in range(trials):
        trial = findings.next_trial()
        node = make(findings.kind, trial)
        after = chance.uniform(5e-6, longest)
        hit = False
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, after)
                node.get()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            hit = True
        except FuruComputeError:
            pass
        except BaseException as error:
            findings.note("other errors", f"after {after * 1e6:.0f} us: {error!r}")
            hit = True
        if hit:
            findings.counts["interrupted"] += 1
            findings.check(trial, f"after {after * 1e6:.0f} us")
        if findings.is_hopeless:
            break


# ---- at every line ----


class Tracer:
    """Raises SIGINT in this thread at the n-th event of a kind in furu's frames, and optionally once more.

    The interpreter removes a trace function that raises. A profile function stays, and restores the trace
    function for the second interrupt.
    """

    def __init__(self, event: str, number: int, then_after: int | None = None) -> None:
        self.place = ""
        self.second_place = ""
        self._event = event
        self._left = number
        self._then_after = then_after

    def __enter__(self) -> Self:
        if self._then_after is not None:
            sys.setprofile(self._restore)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCE):
            return None
        if event == "line" and _is_at_end_of_with(frame):
            event = "end"
        if event == self._event and self._left > 0:
            self._left -= 1
            if self._left == 0:
                self._interrupt(frame)
        return self._trace

    def _interrupt(self, frame: FrameType) -> None:
        name = frame.f_code.co_filename.removeprefix(SOURCE)
        place = f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
        if self.place:
            self.second_place = place
        else:
            self.place = place
            self._left = self._then_after or 0
        signal.raise_signal(signal.SIGINT)

    def _restore(self, frame: FrameType, event: str, _: object) -> None:
        if not self.place or self._left <= 0 or sys.gettrace() is not None:
            return
        furus = []
        above: FrameType | None = frame
        while above is not None:
            if above.f_code.co_filename.startswith(SOURCE):
                furus.append(above)
            above = above.f_back
        if furus and event in ("call", "c_call"):
            for one in furus:
                one.f_trace = self._trace
            sys.settrace(self._trace)


def _is_at_end_of_with(frame: FrameType) -> bool:
    """Whether `__exit__(None, None, None)` is called next: the code loads the same constant three times."""
    code, at = frame.f_code.co_code, frame.f_lasti
    three = code[at : at + 6]
    return three[:1] == bytes([dis.opmap["LOAD_CONST"]]) and three == three[:2] * 3


def places(
    findings: Findings, event: str, every: int, then_after: tuple[int | None, ...] = (None,)
) -> None:
    """Interrupt at each place in turn, until `get()` returns before it is interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    findings.get(findings.next_trial())
    misses = 0
    for number in itertools.count(1, every):
        hits = 0
        for after in then_after:
            trial = findings.next_trial()
            tracer = Tracer(event, number, after)
            error = findings.get(trial, tracer)
            if isinstance(error, LockedError):
                return
            if not tracer.place:
                continue
            hits += 1
            findings.counts["interrupted"] += 1
            if tracer.second_place:
                findings.counts["interrupted twice"] += 1
            if not isinstance(error, KeyboardInterrupt | FuruComputeError | None):
                findings.note("other errors", f"{tracer.place}: {error!r}")
            error = None
            findings.check(trial, f"{event} {number} {tracer.place} {tracer.second_place}".strip())
        misses = 0 if hits else misses + 1
        if misses >= MISSES or findings.is_hopeless or number > MOST_TRIALS:
            return


# ---- memory and depth ----


def memory(findings: Findings, every: int) -> None:
    """Let each allocation fail in turn, each in a fork, because the interpreter itself may crash."""
    findings.get(findings.next_trial())
    unhurt = 0
    for number in range(1, MOST_TRIALS, every):
        reading, writing = os.pipe()
        trial, _ = findings.next_trial(), findings.next_trial()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _one_failed_allocation(findings, number, trial, writing)
        os.close(writing)
        with open(reading, "rb") as file:
            said = file.read()
        os.waitpid(pid, 0)
        if not said:
            findings.counts["interpreters that crashed"] += 1
            continue
        counts, examples = json.loads(said)
        unhurt = 0 if counts["interrupted"] else unhurt + 1
        findings.counts.update(counts)
        for what, texts in examples.items():
            findings.examples[what] = [*findings.examples.get(what, ()), *texts][:EXAMPLES]
        if unhurt > max(300 // every, 5) or findings.is_hopeless:
            return


def _one_failed_allocation(findings: Findings, number: int, trial: int, writing: int) -> None:
    """In a fork, let one allocation fail, check the node, and report the findings."""
    import _testcapi  # part of CPython, but not of every build

    try:
        findings.get(trial + 1)  # creates an owner for the fork
        findings.counts.clear()
        findings.examples.clear()
        node = make(findings.kind, trial)
        error: BaseException | None = None
        _testcapi.set_nomemory(number, number + 1)
        try:
            node.get()
        except BaseException as raised:
            error = raised
        finally:
            _testcapi.remove_mem_hooks()
        hurt = not (error is None or (findings.kind == "failing" and "bad split" in str(error)))
        error = None
        findings.counts["interrupted"] = int(hurt)
        findings.check(trial, f"allocation {number}")
        os.write(writing, json.dumps([findings.counts, findings.examples]).encode())
    finally:
        os._exit(0)


class RecursionLimit:
    """Sets the recursion limit to a number of frames above the current depth."""

    def __init__(self, more: int) -> None:
        self._more, self._usual = more, sys.getrecursionlimit()

    def __enter__(self) -> None:
        frame, depth = sys._getframe(), 0
        while frame.f_back is not None:
            frame, depth = frame.f_back, depth + 1
        sys.setrecursionlimit(depth + self._more)

    def __exit__(self, *_: object) -> None:
        sys.setrecursionlimit(self._usual)


def depth(findings: Findings, every: int) -> None:
    """Lower the recursion limit to every depth that is too small for `get()`."""
    findings.get(findings.next_trial())
    misses = 0
    for more in itertools.count(3, every):
        trial = findings.next_trial()
        error = findings.get(trial, RecursionLimit(more))
        if isinstance(error, LockedError):
            return
        if error is None or (findings.kind == "failing" and "bad split" in str(error)):
            misses += 1
        else:
            misses = 0
            findings.counts["interrupted"] += 1
        error = None
        findings.check(trial, f"{more} frames")
        if misses > 20 or findings.is_hopeless:
            return


def kinds_of(word: str) -> list[str]:
    """Return the kinds of nodes that an argument names."""
    return list(KINDS) if word == "all" else word.split(",")


@contextlib.contextmanager
def _store() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="furu-interrupts-", ignore_cleanup_errors=True) as directory:
        os.environ["FURU_PATH"] = directory
        yield


def main() -> None:
    """Run the trials that the arguments select, and print the findings."""
    how, kinds, *numbers = sys.argv[1:]
    every = int(numbers[0]) if numbers else 1
    ways: dict[str, Callable[[Findings], None]] = {
        "signals": lambda findings: signals(findings, *map(int, numbers)),
        "lines": lambda findings: places(findings, "line", every),
        "ends": lambda findings: places(findings, "end", every),
        "calls": lambda findings: places(findings, "call", every),
        "returns": lambda findings: places(findings, "return", every),
        "twice": lambda findings: places(findings, "line", every, SECOND_AFTER),
        "memory": lambda findings: memory(findings, every),
        "depth": lambda findings: depth(findings, every),
    }
    logging.disable(logging.CRITICAL)
    with _store(), Observer() as observer:
        findings = Findings(observer)
        for kind in kinds_of(kinds):
            findings.kind = kind
            if not findings.is_hopeless:
                ways[how](findings)
        print(json.dumps({"counts": findings.counts, "examples": findings.examples}), flush=True)
        # Threads that hang after a fault must not keep the process alive.
        observer.close()
    os._exit(0)


if __name__ == "__main__":
    main()
