"""What tests of the protocol share: nodes without classes, other processes, system calls."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import furu
from furu.errors import FuruInProgressError
from furu.settings import Settings
from furu.store import attempt as attempt_module
from furu.store import owner as owner_module
from furu.store.artifact import Artifact, Status, survey
from furu.store.attempt import Attempt, claim
from furu.store.layout import node_files

ANOTHER_MACHINE = "00000000-aaaa-bbbb-cccc-000000000000"

# Every function of `os` that the store may reach the disk through.
SYSTEM_CALLS = [
    "access",
    "chmod",
    "close",
    "fstat",
    "fsync",
    "link",
    "listdir",
    "lstat",
    "mkdir",
    "open",
    "read",
    "readlink",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "scandir",
    "stat",
    "symlink",
    "truncate",
    "unlink",
    "utime",
    "write",
]


def artifact(store: Path | str, name: str = "node", **settings: Any) -> Artifact:
    """Return the place of a made-up node in a store."""
    node_hash = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    files = node_files(Path(store), "package.module", "Node", node_hash)
    chosen = Settings(store=Path(store), **settings)
    return Artifact(chosen, files, "package.module:Node", node_hash)


def names(place: Artifact) -> list[str]:
    """List a node's directory."""
    return sorted(os.listdir(place.files.directory))


def owner_files(store: Path) -> list[str]:
    """List the owners of a store."""
    return sorted(os.listdir(store / "owners"))


def claimed(place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt:
    """Claim a node that is not done."""
    attempt = claim(place, rejects)
    assert attempt is not None
    return attempt


def claimed_or_none(place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt | None:
    """Claim a node; None where somebody else has it, and where it is done."""
    try:
        return claim(place, rejects)
    except FuruInProgressError:
        return None


def publish(attempt: Attempt, result: bytes = b"1") -> bool:
    """Publish a JSON result."""
    return attempt.publish("json", result, {"of": 1})


def fail(attempt: Attempt, error: BaseException | None = None) -> OSError | None:
    """End an attempt as failed."""
    return attempt.end("failed", error or ValueError("bad split"), {"of": 1})


class OtherProcess:
    """The store's code as another process runs it, on this machine or on another one.

    It holds locks of its own, as two open files of one process conflict too. It has no heartbeat
    but `beat`, and `die` does what SIGKILL does: the locks go, the files stay.
    """

    def __init__(self, machine: str | None = None) -> None:
        self._machine = machine
        self._process = owner_module._Process()
        self._leases = owner_module._Leases()
        self._running: dict[str, int] = {}
        self._memory: dict[str, Any] = {"_attempts": {}, "_waiters": {}, "_spent": set()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.die()

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is called inside the block is called in this process."""
        with ExitStack() as stack:
            replace = functools.partial(self._replace, stack)
            replace(owner_module, "_process", self._process)
            replace(owner_module, "_leases", self._leases)
            replace(owner_module, "_start_heart", lambda: None)
            for module in (owner_module, attempt_module):
                replace(module, "running", self._running)
            for name, value in self._memory.items():
                replace(attempt_module, name, value)
            if self._machine is not None:
                replace(owner_module, "boot_id", lambda: self._machine)
            yield

    @staticmethod
    def _replace(stack: ExitStack, module: Any, name: str, value: Any) -> None:
        stack.enter_context(mock.patch.object(module, name, value))

    def claim(self, place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt:
        with self.running():
            return claimed(place, rejects)

    def claim_or_none(self, place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt | None:
        with self.running():
            return claimed_or_none(place, rejects)

    def survey(self, place: Artifact) -> Status:
        with self.running():
            return survey(place).status

    def publish(self, attempt: Attempt, result: bytes = b"1") -> bool:
        with self.running():
            return publish(attempt, result)

    def fail(self, attempt: Attempt) -> OSError | None:
        with self.running():
            return fail(attempt)

    def owner_path(self, store: Path) -> str:
        with self.running():
            return owner_module.current_owner(store, 90.0).path

    def beat(self) -> None:
        """Touch every owner file, so that its mtime is another one for certain."""
        for owner in self._process.all:
            beaten = os.fstat(owner.descriptor).st_mtime_ns + 1_000_000
            os.utime(owner.descriptor, ns=(beaten, beaten))

    def die(self) -> None:
        for owner in self._process.all:
            os.close(owner.descriptor)
        self._process.all.clear()


class Clock:
    """Stands for the module `time` where leases are measured: it moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def lease_clock() -> Iterator[Clock]:
    """Replace the clock that measures leases."""
    clock = Clock()
    with mock.patch.object(owner_module, "time", clock):
        yield clock


@contextmanager
def instead(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace `os.<name>` for this thread; `function` gets the original as its first argument."""
    original, thread = getattr(os, name), threading.get_ident()

    def call(*args: Any, **options: Any) -> Any:
        if threading.get_ident() != thread:
            return original(*args, **options)
        return function(original, *args, **options)

    with mock.patch.object(os, name, call):
        yield


@contextmanager
def failing(name: str, number: int, ending: str = "") -> Iterator[None]:
    """Let `os.<name>` fail for paths with this ending; of two paths, either one."""

    def fail_call(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not ending or any(isinstance(one, str) and one.endswith(ending) for one in args):
            raise OSError(number, os.strerror(number), str(args[0]))
        return original(*args, **options)

    with instead(name, fail_call):
        yield


@contextmanager
def once_before(name: str, ending: str, action: Callable[[], object]) -> Iterator[None]:
    """Do something right before the first `os.<name>` with a path of this ending."""
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
    """Record this thread's calls: the name of the function, and the path that it was about."""
    calls: list[tuple[str, str]] = []
    opened: dict[int, str] = {}

    def recorder(name: str) -> Callable[..., Any]:
        def record(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
            about = args[1] if name in ("link", "rename", "replace") else args[0] if args else ""
            if isinstance(about, int):
                about = opened.get(about, "")
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


class Child:
    """A real process that runs a script; the two talk in lines, so nobody sleeps to wait."""

    def __init__(self, script: str, *arguments: object) -> None:
        roots = (Path(__file__).parents[1], Path(furu.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._stdin.close()
        self._stdout.close()

    def line(self) -> str:
        """Wait for the next line."""
        return self._stdout.readline().strip()

    def tell(self, text: str = "go on") -> None:
        self._stdin.write(f"{text}\n")
        self._stdin.flush()

    def finish(self) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(15)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Suspend it, and return when it is."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
