"""A program whose processes do random work on one store while they are killed, stopped and interrupted.

    python -m tests.faults.storm [SECONDS] [SEED]

Prints the injected faults and the findings. Exits with 1 if a value was wrong, an artifact torn or lost, a
node computed twice at the same time, a call stuck, or an error not explained by an injected fault.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import functools
import io
import itertools
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORKERS = 8
# A call must return within this time, although stopped processes block nodes.
STUCK_SEC = 60
# A node that no process has claimed is computed within this time.
GET_SEC = 30
STOP_SEC = (0.02, 1.5)
BETWEEN_SEC = (0.02, 0.2)
# The texts that explain a failure of a sturdy node: files were removed while the node ran.
REMOVED = ("FileNotFoundError", "FuruMissingArtifactError", "has no artifact", "No such file or directory")
REMOVED += ("was removed from the store",)

if len(sys.argv) > 2 and __name__ == "__main__":
    os.environ["FURU_STORM_SEED"] = sys.argv[2]

import anyio  # noqa: E402
import trio  # noqa: E402, F401  # imported here, so that no interrupt hits its import

import furu.cli.app  # noqa: E402, F401
from furu import (  # noqa: E402
    Furu,
    FuruComputeError,
    FuruError,
    Status,
    current_settings,
    plan_local,
    run_local,
    run_local_async,
)
from furu.execution.workers import ProcessWorkers  # noqa: E402
from furu.node.base import artifact_of  # noqa: E402
from furu.store import catalog  # noqa: E402
from furu.store.leftovers import remove_name  # noqa: E402
from furu.store.removal import remove as remove_artifact  # noqa: E402
from tests.faults.observer import HangError, Observer, within  # noqa: E402
from tests.faults.storm_nodes import NODES, SEED, TornError, note, value_of  # noqa: E402

HASHES = {node.furu_hash: node for node in NODES}


# ---- a worker's operations ----


def pick(chance: random.Random, most: int = 6) -> list[Furu[int]]:
    """Return some random nodes."""
    return chance.sample(NODES, chance.randint(1, most))


def check(node: Any, value: object, before: int) -> None:
    """Check a value that was read after the time `before`."""
    if value != value_of(node):
        note("WRONG", node.furu_hash, f"{node} gave {value!r}, not {value_of(node)}")
    note("got", node.furu_hash, before)


def get(chance: random.Random) -> None:
    """Get a node in interactive code."""
    node = pick(chance, 1)[0]
    before = time.monotonic_ns()
    check(node, node.get(), before)


def aget(chance: random.Random) -> None:
    """Get several nodes at once on an event loop, and perhaps cancel them."""
    nodes = pick(chance, 3)

    async def one(node: Furu[int]) -> None:
        before = time.monotonic_ns()
        check(node, await node.aget(), before)

    async def go() -> None:
        with anyio.move_on_after(chance.choice([0.01, 0.05, 60])):
            async with anyio.create_task_group() as tasks:
                for node in nodes:
                    tasks.start_soon(one, node)

    anyio.run(go, backend=chance.choice(["asyncio", "trio"]))


def options(chance: random.Random) -> dict[str, Any]:
    """Return random options of a run."""
    chosen: dict[str, Any] = {
        "max_workers": chance.randint(1, 4),
        "window_size": chance.choice(["bfs", "dfs", 2]),
        "on_failure": chance.choice(["stop", "continue"]),
        "poll_interval_sec": 0.02,
        "progress": False,
    }
    if chance.random() < 0.3:
        chosen["grace_sec"] = chance.choice([0.0, 0.05])
    return chosen


def run(chance: random.Random) -> None:
    """Run nodes in threads, and get the roots afterwards."""
    nodes = pick(chance)
    before = time.monotonic_ns()
    run_local(nodes, **options(chance))
    for node in nodes:
        if node.status() is Status.DONE:
            check(node, node.get(), before)


def run_async(chance: random.Random) -> None:
    """Run nodes on an event loop, and perhaps cancel the run."""
    nodes = pick(chance)

    async def go() -> None:
        with anyio.move_on_after(chance.choice([0.005, 0.03, 60])):
            await run_local_async(nodes, **options(chance))

    anyio.run(go, backend=chance.choice(["asyncio", "trio"]))


def run_processes(chance: random.Random) -> None:
    """Run nodes in child processes."""
    run_local(pick(chance), **{**options(chance), "workers": ProcessWorkers(), "max_workers": 2})


def plan(chance: random.Random) -> None:
    """Plan a run without computing any node."""
    plan_local(pick(chance, 20))


def look(chance: random.Random) -> None:
    """Read the status of all nodes, from the nodes and from the catalogue."""
    for node in NODES:
        node.status()
    for entry in catalog.walk(current_settings()):
        with contextlib.suppress(FuruError):
            entry.status()


def collect(chance: random.Random) -> None:
    """Run `furu gc` with random rules."""
    from furu.cli.app import app

    keep = ["--keep", "tests.faults.storm_nodes:kept"] if chance.random() < 0.7 else []
    old = ["--older-than", chance.choice(["0s", "1s"])] if not keep or chance.random() < 0.5 else []
    note("window", "gc", "begins")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            app(["gc", *keep, *old, "--yes"], standalone_mode=False)
    finally:
        note("window", "gc", "ends")


def remove(chance: random.Random) -> None:
    """Remove a node: a sturdy node as `furu gc` does, a fragile node by hand, name by name."""
    node: Any = pick(chance, 1)[0]
    note("window", node.furu_hash, "begins")
    try:
        with contextlib.suppress(OSError, FuruError):
            if node.fragile:
                _remove_fragile(node)
            else:
                remove_artifact(artifact_of(node))
    finally:
        note("window", node.furu_hash, "ends")


def damage(chance: random.Random) -> None:
    """Truncate, garble, empty, remove or replace a file of a fragile node."""
    node = chance.choice([node for node in NODES if node.fragile])  # type: ignore[attr-defined]
    note("window", node.furu_hash, "begins")
    try:
        with contextlib.suppress(OSError, FuruError):
            done, *others = map(Path, artifact_of(node).files.all)
            paths = [path for name in others for path in (name, *name.rglob("*"))]
            path = chance.choice([done, *sorted(path for path in paths if path.is_file())])
            content = path.read_bytes() if path.exists() else b""
            how = chance.choice(["truncate", "garble", "empty", "unlink", "directory"])
            note("damage", node.furu_hash, path.name, how)
            path.unlink(missing_ok=True)  # never modify it in place: it may be a link to an owner's file
            if how == "truncate":
                path.write_bytes(content[: chance.randint(0, len(content))])
            elif how == "garble":
                path.write_bytes(os.urandom(20))
            elif how == "empty":
                path.touch()
            elif how == "directory":
                path.mkdir()
    finally:
        note("window", node.furu_hash, "ends")


OPERATIONS: dict[Callable[[random.Random], None], int] = {
    get: 30,
    aget: 10,
    run: 25,
    run_async: 15,
    run_processes: 1,
    plan: 4,
    look: 4,
    collect: 3,
    remove: 15,
    damage: 4,
}


# ---- the explanation of an error ----


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and, for a group, the errors in it."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from causes(one)
    if isinstance(error, FuruComputeError):
        for failure in error.failures:
            if failure.error is not None and failure.error is not error.__cause__:
                yield from causes(failure.error)
    if error.__cause__ is not None:
        yield from causes(error.__cause__)


def judge(name: str, error: Exception) -> None:
    """Log the explanation of an operation's error. Remove fragile nodes that cannot be read, as advised."""
    chain = list(causes(error))
    text = " / ".join(f"{type(one).__name__}: {one}" for one in chain)
    nodes: list[Any] = [one.node for one in chain if getattr(one, "node", None) is not None]
    nodes += [
        failure.node for one in chain if isinstance(one, FuruComputeError) for failure in one.failures
    ]
    fragile = [node for node in nodes if node.fragile]
    named = [node for digest, node in HASHES.items() if digest in text]
    fragile += [node for node in named if node.fragile]  # type: ignore[attr-defined]
    if fragile:
        note("explained", "damaged", name)
        for node in set(fragile):
            _remove_fragile(node)
    elif "TornError" in text or any(isinstance(one, TornError) for one in chain):
        note("TORN", text[:1500])
    elif any(word in text for word in REMOVED):
        note("explained", "removed", name)
        for node in set(nodes):
            _refuse_loss(node)
    elif any(isinstance(one, KeyboardInterrupt) for one in chain):
        note("interrupted", "import")  # it hit Python during an import
    else:
        note("UNEXPLAINED", name, text[:1500])


def _remove_fragile(node: Furu[int]) -> None:
    note("window", node.furu_hash, "begins")
    try:
        with contextlib.suppress(OSError, FuruError):
            for path in artifact_of(node).files.all:
                remove_name(path)
    finally:
        note("window", node.furu_hash, "ends")


def _refuse_loss(node: Furu[int]) -> None:
    """Check that a sturdy node loads if it stays DONE. Otherwise its files are lost."""
    for _ in range(5):
        try:
            if node.status() is not Status.DONE:
                return
            node.get()
        except FuruError as error:
            last = error
            time.sleep(0.05)
        else:
            return
    note("LOST", node.furu_hash, repr(last)[:1000])


def worker(number: int, seed: int, until: float) -> None:
    """Do random work until the storm is over."""
    chance = random.Random(seed)
    random.seed(seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.disable(logging.CRITICAL)
    functions, weights = list(OPERATIONS), list(OPERATIONS.values())
    note("ready", number)
    while time.monotonic() < until:
        try:
            faulthandler.dump_traceback_later(STUCK_SEC, exit=True)
            operation = chance.choices(functions, weights)[0]
            note("op", operation.__name__)
            try:
                operation(chance)
            except Exception as error:
                judge(operation.__name__, error)
            except BaseExceptionGroup as error:  # `aget` has its own task group
                if operation is not aget:
                    note("GROUP", operation.__name__, f"reached the caller: {error!r}")
                raise KeyboardInterrupt from None
        except KeyboardInterrupt:
            note("interrupted", "operation")


# ---- the conductor ----


def start(number: int, seed: int, until: float) -> int:
    """Fork a worker. This process has not used a store."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        try:
            worker(number, seed, until)
        except KeyboardInterrupt:
            note("interrupted", "between")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        faulthandler.dump_traceback_later(STUCK_SEC, exit=True)
        # Wait for the threads of abandoned runs, as at the end of a program.
        threading._shutdown()  # type: ignore[attr-defined]
        code = 0
    except KeyboardInterrupt:
        code = 0
    except BaseException as error:
        note("UNEXPLAINED", "worker", repr(error))
    finally:
        os._exit(code)


def conduct(seconds: float, chance: random.Random) -> collections.Counter[str]:
    """Run the workers, and send them random signals. Return the counts of signals and of stuck workers."""
    counts: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + seconds
    pids = [start(number, chance.randrange(2**32), until) for number in range(WORKERS)]
    counts["processes"] = WORKERS
    stopped: list[tuple[float, int]] = []

    def reap() -> None:
        for number, pid in enumerate(pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                # A worker that exits early was stuck (exit code 1) or interrupted between two operations.
                counts[_ending(os.waitstatus_to_exitcode(status))] += 1
                pids[number] = start(number, chance.randrange(2**32), until)
                counts["processes"] += 1

    while time.monotonic() < until:
        time.sleep(chance.uniform(*BETWEEN_SEC))
        while stopped and stopped[0][0] < time.monotonic():
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped.pop(0)[1], signal.SIGCONT)
        reap()
        number = chance.randrange(WORKERS)
        pid = pids[number]
        how = chance.choice([signal.SIGINT, signal.SIGINT, signal.SIGSTOP, signal.SIGKILL])
        counts[how.name] += 1
        if how is signal.SIGKILL:
            note("killed", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
        if how is signal.SIGSTOP:
            stopped.append((time.monotonic() + chance.uniform(*STOP_SEC), pid))
            stopped.sort()
        elif how is signal.SIGKILL:
            os.waitpid(pid, 0)
            stopped = [one for one in stopped if one[1] != pid]
            pids[number] = start(number, chance.randrange(2**32), until)
            counts["processes"] += 1
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    for pid in pids:
        counts["stuck workers"] += _ending(os.waitstatus_to_exitcode(_wait(pid))) == "stuck workers"
    return counts


def _ending(code: int) -> str:
    """Return a name for a worker's exit code. A second interrupt during a run exits with 130."""
    return {0: "workers that left", 130: "workers that left at a second interrupt"}.get(
        code, "stuck workers"
    )


def _wait(pid: int) -> int:
    until = time.monotonic() + 2 * STUCK_SEC
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 256


def finish() -> collections.Counter[str]:
    """Check in a new process that no node is in progress and that all nodes have the right values."""
    found: collections.Counter[str] = collections.Counter()
    store = str(current_settings().store)
    with Observer() as observer:
        statuses = observer.statuses([(store, node) for node in NODES])
        for node, status in zip(NODES, statuses, strict=True):
            if status == "IN_PROGRESS":
                found["IN_PROGRESS after the storm"] += 1
                print(f"IN_PROGRESS: {node} {node.furu_hash}")
            value = _value(node)
            if not _is_right(node, value) and node.fragile:  # type: ignore[attr-defined]
                _remove_fragile(node)  # as the message advises
                value = _value(node)
                found["damaged nodes that had to be removed"] += 1
            if isinstance(value, HangError):
                found["stuck after the storm"] += 1
                print(f"stuck: {node} {node.furu_hash} was {status}")
            elif not _is_right(node, value):
                found["lost or wrong after the storm"] += 1
                print(f"lost or wrong: {node} {node.furu_hash} was {status}, gave {value!r}")
        late = observer.statuses([(store, node) for node in NODES])
        found["not DONE in the end"] = sum(status != "DONE" for status in late)
    return found


def _is_right(node: Furu[int], value: object) -> bool:
    return type(value) is int and value == value_of(node)


def _value(node: Furu[int]) -> Any:
    try:
        return within(GET_SEC, node.get)
    except (HangError, FuruError) as error:
        return error


# ---- the log ----


def read_log(path: str) -> tuple[collections.Counter[str], list[str]]:
    """Return the counts in a log, and the lines for errors that workers logged and nodes computed twice."""
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    begun: dict[tuple[str, str], int] = {}  # (hash or gc, pid) -> start of an open window
    windows: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
    starts: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    ends: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    gots: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    killed: dict[str, int] = {}
    interrupted: dict[str, list[int]] = collections.defaultdict(list)
    for line in Path(path).read_text(errors="replace").splitlines():
        at, pid, word, *rest = line.split(" ")
        if word.isupper():
            counts[word] += 1
            wrong.append(line)
        elif word == "start":
            counts["computations"] += 1
            starts[rest[0]].append((int(at), pid))
        elif word == "end":
            ends[rest[0], pid].append(int(at))
        elif word == "got":
            counts["values checked"] += 1
            gots[rest[0]].append((int(rest[1]), int(at)))
        elif word == "killed":
            killed[rest[0]] = int(at)
        elif word == "window" and rest[1] == "begins":
            begun[rest[0], pid] = int(at)
        elif word == "window" and (rest[0], pid) in begun:
            windows[rest[0]].append((begun.pop((rest[0], pid)), int(at)))
        elif word == "op":
            counts[f"operations: {rest[0]}"] += 1
        elif word in ("damage", "explained"):
            counts[f"{word}: {' '.join(rest[1:3] if word == 'damage' else rest[:1])}"] += 1
        elif word == "interrupted":
            counts["interrupts that reached an operation"] += 1
            interrupted[pid].append(int(at))
    for (what, pid), at_ns in begun.items():  # its process was killed or interrupted before the end
        windows[what].append((at_ns, killed.get(pid, float("inf"))))
    stops = {
        pid: [*interrupted[pid], *([killed[pid]] if pid in killed else [])]
        for pid in {*interrupted, *killed}
    }
    twice = functools.partial(_computed_twice, starts, ends, windows, stops)
    again = functools.partial(_computed_though_done, starts, gots, windows)
    for name, found in (("TWICE", twice()), ("COMPUTED THOUGH DONE", again())):
        counts[name] += len(found)
        wrong += [f"{name} {line}" for line in found]
    return counts, wrong


def _overlaps(windows: list[tuple[int, float]], begin: float, end: float) -> bool:
    return any(opened <= end and closed >= begin for opened, closed in windows)


def _computed_twice(
    starts: dict[str, list[tuple[int, str]]],
    ends: dict[tuple[str, str], list[int]],
    windows: dict[str, list[tuple[int, float]]],
    stops: dict[str, list[int]],
) -> list[str]:
    """Return computations of a node that overlapped, unless the node was removed or damaged in between. If
    the log has no end of a computation, the end is the kill or the interrupt of its process."""
    found = []
    for node_hash, begun in starts.items():
        spans = []
        for at, pid in sorted(begun):
            end = min((end for end in ends[node_hash, pid] if end >= at), default=None)
            # An end after this process's next start is not the end of this computation: it was interrupted.
            again = min((other for other, by in begun if by == pid and other > at), default=None)
            if end is None or (again is not None and end > again):
                end = min((stop for stop in stops.get(pid, ()) if stop >= at), default=None)
            if end is not None and (again is None or end <= again):
                spans.append((at, end, pid))
        for (at, end, pid), (next_at, _, next_pid) in itertools.pairwise(spans):
            if next_at < end and not _overlaps(windows[node_hash], at, next_at):
                found.append(f"{node_hash} by {pid} and {next_pid} for {(end - next_at) / 1e6:.1f} ms")
    return found


def _computed_though_done(
    starts: dict[str, list[tuple[int, str]]],
    gots: dict[str, list[tuple[int, int]]],
    windows: dict[str, list[tuple[int, float]]],
) -> list[str]:
    """Return sturdy nodes that were loaded and computed again later without a removal in between."""
    found = []
    for node_hash, begun in starts.items():
        removals = windows[node_hash] + windows["gc"]
        for at, pid in begun:
            before = max(
                (got for got in gots[node_hash] if got[1] < at), default=None, key=lambda got: got[1]
            )
            fragile = HASHES[node_hash].fragile  # type: ignore[attr-defined]
            if before and not fragile and not _overlaps(removals, before[0], at):
                found.append(f"{node_hash} by {pid}")
    return found


def main() -> None:
    """Run the storm, and print the counts and the findings."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    chance = random.Random(SEED)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="furu-storm-", ignore_cleanup_errors=True) as directory:
        os.environ["FURU_PATH"] = f"{directory}/store"
        os.environ["FURU_STORM_LOG"] = f"{directory}/log"
        print(f"seed {SEED}, {seconds:g} s", flush=True)
        counts = conduct(seconds, chance)
        found = finish()
        noted, wrong = read_log(f"{directory}/log")
        for counter in (counts, noted, found):
            for name, number in sorted(counter.items()):
                print(f"{number:>9,}  {name}")
        for line in wrong[:40]:
            print(line[:1500])
    bad = len(wrong) + counts["stuck workers"]
    bad += sum(found.values()) - found["damaged nodes that had to be removed"]
    print("0 wrong, 0 lost, 0 stuck" if not bad else f"NOT well: {bad}; again with seed {SEED}", flush=True)
    os._exit(bad > 0)


if __name__ == "__main__":
    main()
