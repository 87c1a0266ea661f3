"""What the store's tests share: artifacts by name, other processes, and other processes' steps.

`Other` is a real second process, told what to do line by line. `interleave` runs claimers as if each
were a process of its own, one system call at a time, in an order that the test chooses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import furu
import furu.store.owner
from furu import Furu
from furu.settings import current_settings
from furu.store.artifact import Artifact
from furu.store.attempt import Attempt, claim
from furu.store.layout import node_files
from furu.store.record import OwnerRecord, encode

ROOT = Path(__file__).parent.parent
SOURCE = Path(furu.__file__).parent.parent
CLASS = "module:Class"


class Square(Furu[int]):
    of: int

    def _create(self) -> int:
        return self.of**2


def artifact(name: str = "one", **changes: Any) -> Artifact:
    """Return a node's place in the store of this test."""
    settings = dataclasses.replace(current_settings(), **changes)
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return Artifact(settings, node_files(settings.store, "module", "Class", digest), CLASS, digest)


def begin(place: Artifact, rejects: Callable[[], bool] | None = None) -> Attempt:
    """Claim what is known to be free."""
    attempt = claim(place, rejects)
    assert attempt is not None
    return attempt


def publish(attempt: Attempt, value: object = 1) -> bool:
    return attempt.publish("json", json.dumps(value).encode(), {"value": value})


def compute(place: Artifact, value: object = 1) -> None:
    """Claim and publish."""
    assert publish(begin(place), value)


def fail(attempt: Attempt, error: BaseException | None = None) -> OSError | None:
    return attempt.end("failed", error or ValueError("bad"), {"value": 1})


def result(place: Artifact) -> object:
    """Return the value that is published, or None."""
    record = place.read()
    return None if record is None else json.loads(bytes(record.result))


def names(place: Artifact) -> list[str]:
    """Return what is in a node's directory, without the ids of owners."""
    found = os.listdir(place.files.directory)
    return sorted("tmp-" + name.split("-")[1] if name.startswith("tmp-") else name for name in found)


def done_document(place: Artifact, **changes: Any) -> bytes:
    """Return a `done` of a node, as another process might have published it, with changes."""
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


def owners(store: Path) -> list[str]:
    return sorted(os.listdir(store / "owners"))


def put(path: str | Path, content: bytes | str) -> None:
    """Write a file and the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def leave_attempt(place: Artifact, number: int = 1, *, boot_id: str | None = None) -> Path:
    """Leave an attempt that nobody holds a lock for: of this machine, or of another boot."""
    store = place.settings.store
    identifier = hashlib.blake2b(f"{place.hash}{number}".encode(), digest_size=16).hexdigest()
    os.makedirs(store / "owners", exist_ok=True)
    record = OwnerRecord(
        id=identifier,
        pid=1,
        host="elsewhere",
        boot_id=furu.store.owner.boot_id() if boot_id is None else boot_id,
        device=os.stat(store).st_dev,
        lease_sec=place.settings.lease_sec,
    )
    path = store / "owners" / identifier
    put(path, encode(record))
    os.makedirs(place.files.directory, exist_ok=True)
    os.link(path, place.files.attempt(number))
    return path


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


# ---- other processes ----

_PRELUDE = """
import sys
from tests.store_helpers import *
from furu import FuruError, FuruInProgressError, FuruStoreError, Status
from furu.store.artifact import survey
from furu.store.attempt import claim
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
    """Another process that runs a script: `hear` what it says, `tell` it to go on."""

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
        """SIGKILL, and wait until the kernel has let go of its locks."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> int:
        """Let it run to its end."""
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


# ---- claimers as if in processes of their own, in a chosen order of system calls ----

_STEPS = ("link", "listdir", "lstat", "mkdir", "open", "rename", "replace", "unlink")


class _PerClaimer:
    """A module's dict, set or object, of which each claimer has one of its own."""

    def __init__(self, make: Callable[[int], Any], number: Callable[[], int]) -> None:
        self._make, self._number = make, number
        self._made: dict[int, Any] = {}

    def _own(self) -> Any:
        number = self._number()
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own(), name)

    def __contains__(self, key: object) -> bool:
        return key in self._own()

    def __getitem__(self, key: Any) -> Any:
        return self._own()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._own()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._own()[key]


class _Turns:
    """Lets one claimer run at a time, and the next one from the steps in `switches` on."""

    def __init__(self, claimers: int, switches: Iterable[int]) -> None:
        self._go = [threading.Semaphore(0) for _ in range(claimers)]
        self._left = list(range(claimers))
        self._switches = set(switches)
        self.steps = 0
        self.numbers: dict[int, int] = {}
        self.over = threading.Event()

    def start(self) -> None:
        self._go[0].release()

    def wait(self, number: int) -> None:
        self._go[number].acquire()

    def step(self) -> None:
        number = self.numbers.get(threading.get_ident())
        if number is None:  # the test's own thread, or the heartbeat
            return
        self.steps += 1
        if self.steps in self._switches and len(self._left) > 1:
            self._go[self._after(number)].release()
            self._go[number].acquire()

    def finished(self, number: int) -> None:
        following = self._after(number)
        self._left.remove(number)
        if self._left:
            self._go[following].release()
        else:
            self.over.set()

    def _after(self, number: int) -> int:
        return self._left[(self._left.index(number) + 1) % len(self._left)]


def _replace(monkeypatch: Any, name: str, value: object) -> None:
    """Replace a name wherever the store's modules have it."""
    modules = [module for key, module in sys.modules.items() if key.startswith("furu.store.")]
    having = [module for module in modules if hasattr(module, name)]
    assert having, f"no module of the store has {name}"
    for module in having:
        monkeypatch.setattr(module, name, value)


@dataclasses.dataclass
class Interleaved:
    """What the claimers returned or raised, and how many steps they took together."""

    results: list[Any]
    steps: int


class Interleaver:
    """Runs claimers in threads that furu takes for processes. Made once for a test."""

    def __init__(self, monkeypatch: Any, store: Path, claimers: int = 2) -> None:
        made = [furu.store.owner._make_owner(store, 90.0) for _ in range(claimers)]
        self.owners, self._turns = made, _Turns(0, ())

        def number() -> int:
            return self._turns.numbers.get(threading.get_ident(), 0)

        def process(number: int) -> Any:
            one = furu.store.owner._Process()
            one.by_store[store] = made[number]
            one.all.append(made[number])
            return one

        _replace(monkeypatch, "_process", _PerClaimer(process, number))
        _replace(monkeypatch, "running", _PerClaimer(lambda number: {}, number))
        for name, kind in (("_attempts", dict), ("_waiters", dict), ("_spent", set)):
            _replace(monkeypatch, name, _PerClaimer(lambda number, kind=kind: kind(), number))
        for name in _STEPS:
            monkeypatch.setattr(os, name, self._stepping(getattr(os, name)))

    def _stepping(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._turns.step()
            return real(*args, **kwargs)

        return call

    def run(self, claimers: Sequence[Callable[[], Any]], switches: Iterable[int]) -> Interleaved:
        turns = self._turns = _Turns(len(claimers), switches)
        results: list[Any] = [None] * len(claimers)

        def work(number: int) -> None:
            turns.numbers[threading.get_ident()] = number
            turns.wait(number)
            try:
                results[number] = claimers[number]()
            except BaseException as error:
                results[number] = error
            finally:
                turns.finished(number)

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(claimers))]
        for thread in threads:
            thread.start()
        turns.start()
        assert turns.over.wait(10), "the claimers wait for each other"
        for thread in threads:
            thread.join()
        return Interleaved(results, turns.steps)

    def close(self) -> None:
        for owner in self.owners:
            os.close(owner.descriptor)


@contextlib.contextmanager
def interleaver(monkeypatch: Any, store: Path) -> Iterator[Interleaver]:
    """Two claimers, until the end of the block."""
    with monkeypatch.context() as patches:
        made = Interleaver(patches, store)
        try:
            yield made
        finally:
            made.close()
