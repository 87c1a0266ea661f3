"""A program that forks a child for each fault, which runs a small graph, and another child that recovers.

This process has one thread and has not used a store, so that a fork is cheap and clean. It prints one line
of JSON: the number of injected faults, and the problems, of which there should be none.

    python zygote.py [again] kill [every]
    python zygote.py [again] error ERRNO once|always [every]

With `again`, the graph is done before, and the run with the fault computes a part of it once more.

With `every`, faults are injected only at each `every`-th call.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from furu import Furu, FuruComputeError, FuruError, Status, run_local, use_settings

sys.path.insert(0, str(Path(__file__).parent))
from syscalls import AtNumber, Syscalls, fail_with, kill  # found beside this program

from furu.node.base import artifact_of

# The exit codes of children.
FINISHED, FAILED_CLEARLY, WRONG = 0, 3, 4
LIMIT_SEC = 20.0
AGAIN = sys.argv[1] == "again"


class Leaf(Furu[int]):
    number: int

    def _create(self) -> int:
        note(self)
        (self.checkpoint_dir / "half").write_text("half")
        (self.furu_dir / "data").write_text(str(self.number) * 100)
        return self.number


class Grows(Furu[int]):
    """Depends on another leaf, which only the value of the first one shows."""

    first: Furu[int]

    def _dependencies(self) -> list[Furu[int]]:
        return [Leaf(number=self.first.get() + 2)]

    def _create(self) -> int:
        note(self)
        return sum(leaf.get() for leaf in self._dependencies())


class Sum(Furu[int]):
    leaves: tuple[Furu[int], ...]

    def _create(self) -> int:
        note(self)
        self.logger.info("adding up")
        return sum(leaf.get() for leaf in self.leaves)


class Breaks(Furu[int]):
    """Fails in the first run, so that the next run finds the record of a failure."""

    below: Furu[int]

    def _create(self) -> int:
        note(self)
        if not os.environ.get("FURU_MENDED"):
            raise ValueError("bad split")
        return self.below.get()


def graph() -> list[Furu[int]]:
    """Return two leaves, their sum, a node that grows, and a node that fails at first."""
    leaves = (Leaf(number=1), Leaf(number=2))
    total = Sum(leaves=leaves)
    return [*leaves, total, Grows(first=leaves[0]), Breaks(below=total)]


VALUES = [1, 2, 3, 3, 3]


def note(node: Furu[int]) -> None:
    """Append a line to the log of computations."""
    with open(os.environ["FURU_LOG"], "a") as file:
        file.write(f"{node.furu_hash}\n")


def again() -> list[Furu[int]]:
    """Return the leaf that is computed once more, if the program was asked for that."""
    return [Leaf(number=1)] if AGAIN else []


def first_run(act: AtNumber, store: str) -> int:
    """In a child, run the graph with a fault."""
    syscalls = Syscalls(store, act)
    syscalls.install()
    try:
        run_local(graph(), max_workers=1, on_failure="continue", again=again())
    except FuruComputeError as error:
        return check_errors(error, store)
    except FuruError as error:
        return FAILED_CLEARLY if names_a_path(error, store) else wrong(f"no path in: {error}")
    except BaseException as error:
        return wrong(f"not an error of furu's: {error!r}")
    finally:
        syscalls.uninstall()
    return FINISHED if AGAIN else wrong("the node that fails did not fail")


def check_errors(error: FuruComputeError, store: str) -> int:
    """Check that every failure names a path in the store, and that the node's own error is reported."""
    clear = FINISHED
    for failure in error.failures:
        if isinstance(failure.node, Breaks):
            if not isinstance(failure.error, (ValueError, FuruError)):
                return wrong(f"the node's error is {failure.error!r}")
        else:
            clear = FAILED_CLEARLY
        if failure.state_path is None or not str(failure.state_path).startswith(store):
            return wrong(f"no state path in {failure}")
    return clear


def names_a_path(error: FuruError, store: str) -> bool:
    return store in str(error)


def second_run(done_before: dict[str, tuple[int, int]], log: str) -> int:
    """In a child, finish the graph like a new process."""
    os.environ["FURU_MENDED"] = "1"
    computed_before = Path(log).read_text() if os.path.exists(log) else ""
    started = time.monotonic()
    report = run_local(graph(), max_workers=2)
    took = time.monotonic() - started
    computed = Path(log).read_text()[len(computed_before) :].split()
    nodes = graph()
    if report.failed or any(node.status() is not Status.DONE for node in nodes):
        return wrong(f"not finished: {report}")
    if again := set(done_before) & set(computed):
        return wrong(f"computed again though DONE: {again}")
    if len(computed) != len(set(computed)):
        return wrong("a node was computed twice by one run")
    if VALUES != [node.get() for node in nodes]:
        return wrong(f"results are {[node.get() for node in nodes]}")
    if any((node.furu_dir / "data").read_text() != str(node.get()) * 100 for node in nodes[:2]):
        return wrong("files are torn")
    if took > LIMIT_SEC:
        return wrong(f"took {took:.1f} s")
    os.write(2, f"took {took:.3f}\n".encode())
    return FINISHED


def run_again(log: str) -> int:
    """In a child, after a fault while a part of a finished graph was computed again: all values are there,
    and the part can be computed again."""
    if VALUES != [node.get() for node in graph()] or run_local(graph()).computed:
        return wrong("a value was lost")
    before = Path(log).read_text()
    report = run_local(graph(), again=again())
    computed = Path(log).read_text()[len(before) :].split()
    if report.computed != 4 or len(computed) != 4:
        return wrong(f"not computed again: {report}")
    if VALUES != [node.get() for node in graph()]:
        return wrong(f"results are {[node.get() for node in graph()]}")
    if any((node.furu_dir / "data").read_text() != str(node.get()) * 100 for node in graph()[:2]):
        return wrong("files are torn")
    return FINISHED


def wrong(what: str) -> int:
    os.write(2, f"wrong: {what}\n".encode())
    return WRONG


def in_child(function: Callable[[], int]) -> tuple[int, str]:
    """Run a function in a forked child. Return its exit code, and what it wrote to stderr."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.dup2(writing, 2)
        signal.alarm(int(LIMIT_SEC) + 10)
        code = WRONG
        try:
            code = function()
        except BaseException as error:
            os.write(2, f"wrong: raised {error!r}\n".encode())
        finally:
            os._exit(code)
    os.close(writing)
    said = b""
    while chunk := os.read(reading, 65536):
        said += chunk
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode(errors="replace")


def done_nodes() -> dict[str, tuple[int, int]]:
    """Return the DONE nodes, with values that identify their artifacts. Does not read or claim them."""
    found: dict[str, tuple[int, int]] = {}
    for node in graph():
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(artifact_of(node).files.done)
            if info.st_size:
                found[node.furu_hash] = (info.st_ino, info.st_mtime_ns)
    return found


def inject(number: int, fault: Any, from_then_on: bool) -> tuple[bool, list[str], float]:
    """Run with a fault at one call, and recover. Return whether the call was reached, and the problems."""
    directory = tempfile.mkdtemp(prefix="furu-fault-")
    store, log = f"{directory}/store", f"{directory}/log"
    os.environ["FURU_LOG"] = log
    os.environ.pop("FURU_MENDED", None)
    problems: list[str] = []
    with use_settings(store=store):
        if AGAIN:
            os.environ["FURU_MENDED"] = "1"
            code, said = in_child(lambda: wrong("not done") if run_local(graph()).failed else FINISHED)
            if code != FINISHED:
                problems.append(f"the run before the fault: exit {code}: {said}")

        def run() -> int:
            act = AtNumber(number, fault, from_then_on=from_then_on)
            code = first_run(act, store)
            os.write(2, f"calls {len(act.calls)}\n".encode())
            return code

        code, said = in_child(run)
        calls = int(said.rpartition("calls ")[2].split()[0]) if "calls " in said else number
        if code not in (FINISHED, FAILED_CLEARLY, -signal.SIGKILL):
            problems.append(f"run with a fault at call {number}: exit {code}: {said}")
        before = done_nodes()
        code, said = in_child(lambda: run_again(log) if AGAIN else second_run(before, log))
        if code != FINISHED:
            problems.append(f"run after a fault at call {number}: exit {code}: {said}")
        for node_hash, identity in before.items():
            if not AGAIN and done_nodes().get(node_hash) != identity:
                problems.append(f"after a fault at call {number} a DONE artifact was replaced")
    took = float(said.rpartition("took ")[2].split()[0]) if "took " in said else 0.0
    shutil.rmtree(directory)
    return calls >= number, problems, took


def main() -> None:
    """Inject a fault at call 1, 2, 3 … until the run makes no more calls."""
    kind, *rest = sys.argv[1 + AGAIN :]
    from_then_on = False
    fault = kill
    if kind == "error":
        fault = fail_with(getattr(errno, rest[0]))
        from_then_on = rest[1] == "always"
        rest = rest[2:]
    every = int(rest[0]) if rest else 1
    anyio.run(anyio.sleep, 0)  # imports the backend once here, instead of in every child
    number, injected, problems, longest = 1, 0, list[str](), 0.0
    while True:
        reached, found, took = inject(number, fault, from_then_on)
        problems += found
        longest = max(longest, took)
        if not reached:
            break
        injected += 1
        number += every
    print(json.dumps({"injected": injected, "problems": problems, "longest_recovery_sec": longest}))


if __name__ == "__main__":
    main()
