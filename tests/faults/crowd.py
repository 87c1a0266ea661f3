"""Run as a program: forks processes that share a store, and says as JSON what they did to each other.

    python crowd.py race PROCESSES NODES     all run the same nodes, each in an order of its own
    python crowd.py waiters PROCESSES        all wait for a node whose owner is killed
    python crowd.py paused same|another      the owner is stopped for longer than its lease
    python crowd.py forked                   the node forks a child that outlives its killed parent
    python crowd.py interrupted NODES        two run the same nodes, one of them is interrupted

The store and the log that each computation appends a line to are in FURU_PATH and FURU_LOG.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable

from furu import Furu, FuruInProgressError, Status, run_local, use_settings
from furu.node.base import artifact_of
from furu.store.claim import claim
from furu.store.local import Process, acting_as, this_process

# Everybody's lease where one has to run out.
LEASE_SEC = 0.3
LIMIT_SEC = 60
# What the processes tell this one: one byte each time.
told, tell = os.pipe()
# Blocked processes read here until this process releases them by closing the other end.
gate, opener = os.pipe()
# The process that is held up in its node.
held_up: int | None = None


def say() -> None:
    os.write(tell, b".")


def hear(count: int) -> None:
    """Wait for this number of reports from the processes."""
    for _ in range(count):
        assert os.read(told, 1) == b".", "all of them ended"


def note() -> None:
    """Append a line for each time that a node is computed."""
    with open(os.environ["FURU_LOG"], "a") as file:
        file.write(f"{os.getpid()}\n")


class Numbered(Furu[int]):
    number: int

    def _create(self) -> int:
        with open(os.environ["FURU_LOG"], "a") as file:
            file.write(f"{self.number}\n")
        return self.number


class Told(Furu[int]):
    number: int

    def _create(self) -> int:
        with open(os.environ["FURU_LOG"], "a") as file:
            file.write(f"{self.number}\n")
        say()
        time.sleep(0.002)  # long enough to be interrupted in
        return self.number


class HeldUp(Furu[int]):
    """Its value is the process that computed it."""

    def _create(self) -> int:
        note()
        if os.getpid() == held_up:
            say()
            os.close(opener)
            os.read(gate, 1)
        return os.getpid()


class Forking(Furu[int]):
    """Leaves a child behind that lives until this program ends."""

    def _create(self) -> int:
        note()
        if os.getpid() == held_up:
            if os.fork() == 0:
                os.close(opener)
                say()
                os.read(gate, 1)
                os._exit(0)
            os.close(opener)
            os.read(gate, 1)
        return os.getpid()


def start(function: Callable[[], object]) -> int:
    """Run a function in a fork of this process; it ends with 0 if that returned, 3 if interrupted."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(LIMIT_SEC)
    code = 1
    try:
        function()
        code = 0
    except KeyboardInterrupt:
        code = 3
    except BaseException as error:
        os.write(2, f"{os.getpid()}: {error!r}\n".encode())
    finally:
        with contextlib.suppress(BaseException):
            this_process().end()
        os._exit(code)


def ended(pids: list[int]) -> list[int]:
    """Wait for processes; return how they ended."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def held(function: Callable[[], object]) -> int:
    """Start a process that will be held up in its node, and wait until it is."""

    def run() -> None:
        global held_up
        held_up = os.getpid()
        function()

    pid = start(run)
    hear(1)
    return pid


def computed() -> list[str]:
    with open(os.environ["FURU_LOG"]) as file:
        return file.read().split()


def race(processes: int, count: int) -> dict[str, object]:
    def run(seed: int) -> None:
        nodes = [Numbered(number=number) for number in range(count)]
        random.Random(seed).shuffle(nodes)
        os.read(gate, 1)
        run_local(nodes, max_workers=2, poll_interval_sec=0.01)
        assert all(node.get() == node.number for node in nodes)

    def waiting(seed: int) -> Callable[[], None]:
        def go() -> None:
            os.close(opener)
            run(seed)

        return go

    pids = [start(waiting(seed)) for seed in range(processes)]
    os.close(opener)  # now all at once
    codes = ended(pids)
    times = collections.Counter(computed())
    return {"codes": codes, "nodes": len(times), "twice": [one for one, n in times.items() if n > 1]}


def waiters(processes: int) -> dict[str, object]:
    owner = held(lambda: run_local([HeldUp()]))

    def run() -> None:
        assert HeldUp().status() is Status.IN_PROGRESS
        say()
        run_local([HeldUp()], poll_interval_sec=0.05)

    pids = [start(run) for _ in range(processes)]
    hear(processes)
    os.kill(owner, signal.SIGKILL)
    started = time.monotonic()
    ended([owner])
    codes = ended(pids)
    return {"codes": codes, "computed": len(computed()), "sec": time.monotonic() - started}


def paused(machine: str) -> dict[str, object]:
    values: list[int] = []

    def owner() -> None:
        process = Process(boot=lambda: "another machine") if machine == "another" else this_process()
        with acting_as(process), use_settings(lease_sec=LEASE_SEC):
            report = run_local([HeldUp()])
        # What another one published, it has loaded: that counts as reused.
        expected = (1, 0) if machine == "same" else (0, 1)
        assert expected == (report.computed, report.reused), report

    pid = held(owner)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    taken = 0
    if machine == "same":
        taken = claims_within(HeldUp(), 3 * LEASE_SEC)
        os.kill(pid, signal.SIGCONT)
        os.close(opener)
        values, codes = [pid], ended([pid])
    else:

        def taker() -> None:
            with use_settings(lease_sec=LEASE_SEC):
                run_local([HeldUp()], poll_interval_sec=0.02)

        pids = [start(taker) for _ in range(4)]
        codes = ended(pids)
        values = [HeldUp().get()]
        assert values[0] in pids
        os.kill(pid, signal.SIGCONT)
        os.close(opener)
        codes += ended([pid])
    return {
        "codes": codes,
        "taken": taken,
        "computed": len(computed()),
        "stays": HeldUp().get() == values[0],
    }


def claims_within(node: Furu[int], sec: float) -> int:
    """Try to claim for some time; return how often that went well."""
    taken = 0
    until = time.monotonic() + sec
    with use_settings(lease_sec=LEASE_SEC):
        while time.monotonic() < until:
            with contextlib.suppress(FuruInProgressError):
                claim(artifact_of(node))
                taken += 1
            time.sleep(LEASE_SEC / 20)
    return taken


def forked() -> dict[str, object]:
    owner = held(lambda: run_local([Forking()]))
    os.kill(owner, signal.SIGKILL)
    ended([owner])
    started = time.monotonic()
    codes = ended([start(lambda: run_local([Forking()], poll_interval_sec=0.05))])
    took = time.monotonic() - started
    # The child still lives: it holds the pipe through which it reports.
    os.set_blocking(told, False)
    os.close(tell)
    try:
        lives = os.read(told, 1) != b""
    except BlockingIOError:
        lives = True
    return {"codes": codes, "computed": len(computed()), "sec": took, "child_lives": lives}


def interrupted(count: int) -> dict[str, object]:
    def run() -> None:
        report = run_local([Told(number=n) for n in range(count)], max_workers=2, poll_interval_sec=0.02)
        assert report.failed == 0

    first, second = start(run), start(run)
    hear(5)
    os.kill(first, signal.SIGINT)
    codes = ended([first, second])
    done = sum(Told(number=number).exists() for number in range(count))
    times = collections.Counter(computed())
    return {"codes": codes, "done": done, "twice": [one for one, n in times.items() if n > 1]}


def main() -> None:
    """Do as the arguments say."""
    commands: dict[str, Callable[..., dict[str, object]]] = {
        "race": race,
        "waiters": waiters,
        "paused": paused,
        "forked": forked,
        "interrupted": interrupted,
    }
    arguments = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    print(json.dumps(commands[sys.argv[1]](*arguments)))


if __name__ == "__main__":
    main()
