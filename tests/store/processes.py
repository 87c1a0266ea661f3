"""Helpers for the store's tests: nodes by name, other processes, and failing or recorded system calls.

Other          a real second process, which runs a script and reads commands from its input
OtherProcess   a simulated process, whose memory replaces this process's memory for a block; faster
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os.path import lexists
from pathlib import Path
from typing import Any, Self
from unittest import mock

import furu
from furu import Furu, FuruInProgressError, Status
from furu.settings import current_settings
from furu.store import owner as owner_module
from furu.store.artifact import Artifact, survey
from furu.store.attempt import Attempt
from furu.store.claim import claim
from furu.store.layout import NodeFiles, class_directory
from furu.store.local import Leases, Process, acting_as, this_process
from furu.store.owner import Owner
from furu.store.record import OwnerRecord, encode

ROOT = Path(__file__).parents[2]
SOURCE = Path(furu.__file__).parent.parent
CLASS = "module:Class"
LEASE_SEC = 90.0
ANOTHER_MACHINE = "00000000-aaaa-bbbb-cccc-000000000000"


class Square(Furu[int]):
    of: int

    def _create(self) -> int:
        return self.of**2


def node_files(store: Path, module: str, qualname: str, node_hash: str) -> NodeFiles:
    """Return the names for one node of a class."""
    return NodeFiles(f"{class_directory(store, module, qualname)}/{node_hash}")


def artifact(name: str = "one", **changes: Any) -> Artifact:
    """Return the artifact of a node in the test's store, with `changes` to the settings."""
    settings = dataclasses.replace(current_settings(), **changes)
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return Artifact(settings, node_files(settings.store, "module", "Class", digest), CLASS, digest)


def begin(place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt:
    """Claim a node that is free."""
    attempt = claim(place, rejects)
    assert attempt is not None
    return attempt


def begin_or_none(place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt | None:
    """Claim a node. Returns None if another process holds it, or if it is done."""
    try:
        return claim(place, rejects)
    except FuruInProgressError:
        return None


def publish(attempt: Attempt, value: object = 1) -> bool:
    return attempt.publish("json", json.dumps(value).encode(), {"value": value})


def compute(place: Artifact, value: object = 1) -> None:
    """Claim a node and publish a value."""
    assert publish(begin(place), value)


def fail(attempt: Attempt, error: BaseException | None = None) -> BaseException | None:
    return attempt.end("failed", error or ValueError("bad"), {"value": 1})


def result(place: Artifact) -> object:
    """Return the published value of a node; None if there is none."""
    record = place.read()
    return None if record is None else json.loads(bytes(record.result))


def names(place: Artifact) -> list[str]:
    """Return the names of a node's files without nonces: `done`, `try-1`, and those in its directory."""
    files = place.files
    found = [name for name, path in (("done", files.done), ("try-1", files.attempt(1))) if lexists(path)]
    if os.path.isdir(files.directory):
        found += os.listdir(files.directory)
    return sorted(re.sub(r"\A(a|tmp-)([0-9]+)-[0-9a-f]+\Z", r"\1\2", name) for name in found)


def remove_by_hand(place: Artifact) -> None:
    """Remove all files of a node, as `rm -r <hash>*` does."""
    for path in map(Path, place.files.all):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def files(place: Artifact, number: int = 0) -> str:
    """Return the directory of an attempt's files; by default, that of the published attempt."""
    record = place.read()
    found = place.files_directory(number or (record.attempt if record else 1))
    assert found is not None
    return found


def current_owner(store: Path, lease_sec: float = 90.0) -> Owner:
    """Return this process's owner in a store. Creates the owner if necessary."""
    owner = this_process().take_owner(store, lease_sec)
    this_process().give_back(owner)
    return owner


def done_document(place: Artifact, **changes: Any) -> bytes:
    """Return the content of a `done` file, as another process might write it, with `changes`."""
    document = {
        "record": "done",
        "format": 1,
        "node_class": place.node_class,
        "hash": place.hash,
        "attempt": 1,
        "codec": "json",
        "config": {},
        "started_at": 0.0,
        "duration_sec": 0.0,
        "result": 1,
    }
    return json.dumps({**document, **changes}).encode()


def rejecting(place: Artifact, bad: object = "old") -> Callable[[], bool]:
    """Return a function that rejects a `done` with the value `bad`, and a missing `done`."""
    return lambda: result(place) in (bad, None)


def owners(store: Path) -> list[str]:
    return sorted(os.listdir(store / "owners"))


def put(path: str | Path, content: bytes | str) -> None:
    """Write a file, and create the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def leave_attempt(place: Artifact, number: int = 1, *, boot_id: str | None = None) -> Path:
    """Create an attempt whose owner holds no lock. The owner is of this boot, unless `boot_id` is given."""
    store = place.settings.store
    identifier = hashlib.blake2b(f"{place.hash}{number}".encode(), digest_size=16).hexdigest()
    os.makedirs(store / "owners", exist_ok=True)
    record = OwnerRecord(
        id=identifier,
        pid=1,
        host="elsewhere",
        boot_id=owner_module.boot_id() if boot_id is None else boot_id,
        device=os.stat(store).st_dev,
        lease_sec=place.settings.lease_sec,
    )
    path = store / "owners" / identifier
    put(path, encode(record))
    os.makedirs(os.path.dirname(place.files.attempt(number)), exist_ok=True)
    os.link(path, place.files.attempt(number))
    return path


class Clock:
    """A monotonic clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@contextmanager
def lease_clock() -> Iterator[Clock]:
    """Measure leases with a new clock in the block, and forget what was measured with the old clock."""
    clock = Clock()
    with mock.patch.object(this_process(), "leases", Leases(clock.monotonic)):
        yield clock


# ---- system calls ----

# The functions of `os` with which the store may access the disk.
SYSTEM_CALLS = ["access", "chmod", "close", "fdatasync", "fstat", "fsync", "ftruncate", "link", "listdir"]
SYSTEM_CALLS += ["lstat", "mkdir", "open", "read", "readlink", "remove", "rename", "replace", "rmdir"]
SYSTEM_CALLS += ["scandir", "stat", "symlink", "sync", "truncate", "unlink", "utime", "write"]


@contextmanager
def instead(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace `os.<name>` in this thread, and in the thread that runs steps for the main thread. `function`
    receives the original as its first argument."""
    original, thread = getattr(os, name), threading.current_thread()

    def call(*args: Any, **options: Any) -> Any:
        if threading.current_thread() is not thread and threading.current_thread().name != "furu-steps":
            return original(*args, **options)
        return function(original, *args, **options)

    with mock.patch.object(os, name, call):
        yield


@contextmanager
def failing(name: str, number: int, ending: str = "") -> Iterator[None]:
    """Let `os.<name>` raise an `OSError` if one of its paths ends with `ending`."""

    def fail_call(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not ending or any(isinstance(one, str) and one.endswith(ending) for one in args):
            raise OSError(number, os.strerror(number), str(args[0]))
        return original(*args, **options)

    with instead(name, fail_call):
        yield


@contextmanager
def once_before(name: str, ending: str, action: Callable[[], object]) -> Iterator[None]:
    """Call `action` right before the first `os.<name>` with a path that ends with `ending`."""
    done = False

    def call(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        nonlocal done
        if not done and any(isinstance(one, str) and one.endswith(ending) for one in args):
            done = True
            action()
        return original(*args, **options)

    with instead(name, call):
        yield
    assert done, f"os.{name} was never called on {ending}"


@contextmanager
def system_calls() -> Iterator[list[tuple[str, str]]]:
    """Record this thread's calls as pairs: the name of the function, and the path that it acts on."""
    calls: list[tuple[str, str]] = []
    opened: dict[int, str] = {}

    def recorder(name: str) -> Callable[..., Any]:
        def record(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
            about = args[1] if name in ("link", "rename", "replace") else args[0] if args else ""
            if isinstance(about, int):
                about = opened.get(about, "")
            directory = opened.get(options.get("dir_fd", options.get("dst_dir_fd", -1)))
            if directory is not None:
                about = f"{directory}/{about}"
            calls.append((name, os.fspath(about)))
            answer = original(*args, **options)
            if name == "open":
                opened[answer] = os.fspath(about)
            return answer

        return record

    with ExitStack() as stack:
        for name in SYSTEM_CALLS:
            if hasattr(os, name):
                stack.enter_context(instead(name, recorder(name)))
        yield calls


# ---- real processes ----

_PRELUDE = """
import sys
from tests.store.processes import *
from furu import FuruError, FuruStoreError
def say(*words):
    print(*words, flush=True)
def hear():
    return sys.stdin.readline().strip()
def try_claim(name, rejects=None):
    try:
        return claim(artifact(name), rejects)
    except FuruInProgressError:
        return "in progress"
"""


class Other:
    """Another process that runs a script. `hear` reads a line of its output, `tell` sends it a line."""

    def __init__(self, script: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by __exit__
        environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise AssertionError(f"the other process ended: {self._errors.read()}")
        return line.strip()

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def kill(self) -> None:
        """Send SIGKILL, and wait until the kernel has released the locks."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> int:
        """Close the input of the script, wait until it ends, and return the exit code."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.__exit__(None, None, None)
        self._errors.close()


HOLD = """
attempt = begin(artifact())
say("claimed")
hear()
"""


# ---- processes inside this one ----


def become(machine: str, clock: Clock | None = None) -> None:
    """Let a script act as a process of another machine from now on, with leases measured by `clock`."""
    leases = Leases(clock.monotonic) if clock is not None else None
    acting = acting_as(Process(boot=lambda: machine, leases=leases, beats=False))
    acting.__enter__()
    _acting.append(acting)


_acting: list[Any] = []


class OtherProcess:
    """A simulated process that runs the code of the store, on this machine or on another one.

    Its locks are real: locks of two open files conflict even within one process. It has no heartbeat
    thread, only `beat`. `die` has the effect of SIGKILL: the locks are released, the files stay.
    """

    def __init__(self, machine: str | None = None, leases: Leases | None = None) -> None:
        # This machine's boot id, even inside a block that acts as another machine.
        real = owner_module.boot_id()
        self.process = Process(boot=lambda: machine or real, leases=leases, beats=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Act as this process inside the block."""
        with acting_as(self.process):
            yield

    @property
    def owners(self) -> list[Owner]:
        return self.process.owners

    def begin(self, place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt:
        with self.running():
            return begin(place, rejects)

    def begin_or_none(self, place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt | None:
        with self.running():
            return begin_or_none(place, rejects)

    def status(self, place: Artifact) -> Status:
        with self.running():
            return survey(place).status

    def publish(self, attempt: Attempt, value: object = 1) -> bool:
        with self.running():
            return publish(attempt, value)

    def fail(self, attempt: Attempt) -> BaseException | None:
        with self.running():
            return fail(attempt)

    def owner_path(self) -> str:
        with self.running():
            return current_owner(current_settings().store, LEASE_SEC).path

    def beat(self) -> None:
        """Advance the mtime of every owner file, even if the clock has not moved."""
        for owner in self.owners:
            beaten = os.fstat(owner.file.number).st_mtime_ns + 1_000_000
            os.utime(owner.file.number, ns=(beaten, beaten))

    def die(self) -> None:
        for owner in self.owners:
            owner.close()
        self.owners.clear()


def refuse(number: int) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call
