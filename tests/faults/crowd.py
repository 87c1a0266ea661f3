"""A program that forks processes that share a store, and prints as JSON what they did.

    python crowd.py race PROCESSES NODES     all run the same nodes, each in its own order
    python crowd.py waiters PROCESSES        all wait for a node whose owner is killed
    python crowd.py paused same|another      the owner is stopped for longer than its lease
    python crowd.py forked                   the node forks a child that outlives its killed parent
    python crowd.py interrupted NODES        two processes run the same nodes, one is interrupted

FURU_PATH names the store. FURU_LOG names the log, to which each computation appends a line.
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

# The lease of all processes if a lease has to expire.
LEASE_SEC = 0.3
LIMIT_SEC = 60
# The pipe on which the processes report to this process, one byte each time.
told, tell = os.pipe()
# Blocked processes read from this pipe until this process closes the other end.
gate, opener = os.pipe()
# The id of the process that blocks in its node.
held_up: int | None = None


def say() -> None:
    os.write(tell, b".")


def hear(count: int) -> None:
    """Wait for this number of reports from the processes."""
    for _ in range(count):
        assert os.read(told, 1) == b".", "all of them ended"


def note() -> None:
    """Append a line to the log of computations."""
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
        time.sleep(0.002)  # long enough for an interrupt
        return self.number


class HeldUp(Furu[int]):
    """Its value is the id of the process that computed it."""

    def _create(self) -> int:
        note()
        if os.getpid() == held_up:
            say()
            os.close(opener)
            os.read(gate, 1)
        return os.getpid()


class Forking(Furu[int]):
    """Leaves a child process behind that lives until this program ends."""

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
    """Run a function in a fork, which exits with 0 if the function returned, or 3 if it was interrupted."""
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
    """Wait for processes, and return their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def held(function: Callable[[], object]) -> int:
    """Start a process that blocks in its node, and wait until it is blocked."""

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
    os.close(opener)  # release all processes at once
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
        # A value that another process published has been loaded, which counts as reused.
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
    """Try to claim the node repeatedly for some time, and return the number of successful claims."""
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
    # If the child still lives, it holds the other end of the pipe.
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
    """Run the command that the arguments name, and print its report."""
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
