"""Threads, forks and signal handlers of a node belong to its attempt and use the store of its run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from furu import Furu, FuruComputeError, FuruMissingArtifactError, Status, run_local, use_settings
from tests.faults.forks import in_fork
from tests.faults.observer import Observer

pytestmark = pytest.mark.timeout(60)

LOG = logging.getLogger("host.library")
# How long a thread is blocked, if another thread may have to wait for it.
HELD_SEC = 0.5
THREADS = 8


@contextmanager
def calls(name: str, act: Callable[..., Any]) -> Iterator[None]:
    """Replace `os.<name>` by `act`, which receives the original as its first argument."""
    original = getattr(os, name)
    with mock.patch.object(os, name, lambda *args, **options: act(original, *args, **options)):
        yield


# ---- furu_dir ----


class Shards(Furu[int]):
    """Eight threads use its directory at once, and each writes a part."""

    number: int

    def _create(self) -> int:
        barrier = threading.Barrier(THREADS)

        def write(part: int) -> None:
            barrier.wait()
            (self.furu_dir / f"part{part}").write_text("x" * 100)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, range(THREADS)))
        return THREADS

    def _load(self) -> int:
        return len(list(self.furu_dir.glob("part*")))


def test_eight_threads_that_use_furu_dir_at_once_lose_no_file() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        found = []
        for number in range(60):
            Shards(number=number).get()
            found.append(Shards(number=number).get())
    finally:
        sys.setswitchinterval(before)
    assert [THREADS] * 60 == found


class TwoThreads(Furu[int]):
    def _create(self) -> int:
        wrote = threading.Event()

        def write(part: str) -> None:
            (self.furu_dir / part).write_text(part)
            wrote.set()

        collided = threading.Event()

        def mkdir(original: Callable[..., None], path: Any, *args: Any, **options: Any) -> None:
            try:
                original(path, *args, **options)
            except FileExistsError:
                collided.set()
                wrote.wait(HELD_SEC)  # the other thread writes before this one continues
                raise
            collided.wait(HELD_SEC)

        with calls("mkdir", mkdir):
            threads = [threading.Thread(target=write, args=(part,)) for part in ("one", "two")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return len(list(self.furu_dir.iterdir()))


def test_thread_that_finds_furu_dir_already_created_keeps_its_files() -> None:
    assert 2 == TwoThreads().get()


def _write_part(node: Furu[Any], part: int) -> int:
    (node.furu_dir / f"part{part}").write_text(str(part))
    return part


class ForkedPool(Furu[list[int]]):
    asks_first: bool

    def _create(self) -> list[int]:
        if self.asks_first:
            (self.furu_dir / "first").write_text("here before the forks")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.starmap(_write_part, [(self, part) for part in range(4)])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("asks_first", [False, True])
def test_forked_pool_of_a_node_writes_into_the_attempts_directory(asks_first: bool) -> None:
    node = ForkedPool(asks_first=asks_first)
    assert [0, 1, 2, 3] == in_fork(node.get)
    expected = {"part0", "part1", "part2", "part3", *(["first"] if asks_first else [])}
    assert expected == {path.name for path in node.furu_dir.iterdir()}


class ForkWithoutAWord(Furu[int]):
    """Forks a process that writes into the node's directory and exits."""

    def _create(self) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                (self.furu_dir / "part").write_text("from the fork")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        (self.furu_dir / "other").write_text("from the node")
        return len(list(self.furu_dir.iterdir()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_of_a_node_and_the_node_write_into_one_directory() -> None:
    assert 2 == ForkWithoutAWord().get()


# ---- forks that leave _create ----


class ForkComesOut(Furu[int]):
    """Its fork leaves `_create` by accident. Then the node reads its own status in another process."""

    how: str

    def _create(self) -> int:
        pid = os.fork()
        if pid == 0:
            if self.how == "raises":
                raise ValueError("in the fork")
            if self.how == "exits":
                sys.exit(3)
            if self.how == "is interrupted":
                raise KeyboardInterrupt
            return -1
        os.waitpid(pid, 0)
        (self.furu_dir / "status").write_text(in_fork(lambda: str(type(self)(how=self.how).status())))
        return 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("in_run", [False, True])
@pytest.mark.parametrize("how", ["raises", "exits", "is interrupted", "returns"])
def test_fork_that_leaves_create_does_not_end_its_parents_attempt(how: str, in_run: bool) -> None:
    """Other processes see the node in progress while the parent computes. The parent publishes it."""

    def compute() -> list[object]:
        node, me = ForkComesOut(how=how), os.getpid()
        try:
            if in_run:
                run_local([node], max_workers=1)
            value = node.get()
        finally:
            if os.getpid() != me:
                os._exit(0)
        return [value, node.status(), (node.furu_dir / "status").read_text()]

    assert [1, Status.DONE, "IN_PROGRESS"] == in_fork(compute)


# ---- a node's threads and the store of its run ----


def in_executor(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, values))


def in_thread_pool(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    with ThreadPool(2) as pool:
        return pool.map(function, values)


def in_threads(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    answers: list[Any] = []

    def call(value: Any) -> None:
        try:
            answers.append(function(value))
        except BaseException as error:
            answers.append(error)

    for value in values:
        thread = threading.Thread(target=call, args=(value,))
        thread.start()
        thread.join()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def in_threads_of_threads(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    return in_executor(lambda some: in_threads(function, some), [values])[0]  # type: ignore[no-any-return]


WAYS = {
    "executor": in_executor,
    "thread pool": in_thread_pool,
    "threads": in_threads,
    "threads of threads": in_threads_of_threads,
}


class Leaf(Furu[int]):
    number: int

    def _create(self) -> int:
        (self.furu_dir / "computed").write_text("once")
        return self.number


class InThreads(Furu[list[int]]):
    """Gets its dependencies, writes files and logs in separate threads."""

    way: str
    leaves: tuple[Leaf, ...]

    def _create(self) -> list[int]:
        def part(leaf: Leaf) -> int:
            (self.furu_dir / f"part{leaf.number}").write_text("x")
            self.logger.info("part %d", leaf.number)
            return leaf.get()

        return WAYS[self.way](part, list(self.leaves))


class Undeclared(Furu[list[int]]):
    way: str

    def _create(self) -> list[int]:
        return WAYS[self.way](lambda number: Leaf(number=number).get(), [1, 2])


@pytest.mark.parametrize("interactive", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_threads_of_a_node_use_the_store_of_its_run(
    way: str, interactive: bool, tmp_path: Path, store: Path
) -> None:
    with use_settings(store=tmp_path / "chosen"):
        node = InThreads(way=way, leaves=(Leaf(number=1), Leaf(number=2)))
        if not interactive:
            run_local([node])
        assert [1, 2] == node.get()
        names = {path.name for path in node.furu_dir.iterdir()}
        assert {"part1", "part2", "furu.log"} == names
        assert (node.furu_dir / "furu.log").read_text().count("part ") == 2
    assert not store.exists(), "another store was used"


@pytest.mark.parametrize("way", WAYS)
def test_get_in_a_nodes_thread_is_as_strict_as_in_the_node(way: str, tmp_path: Path, store: Path) -> None:
    with use_settings(store=tmp_path / "chosen"):
        with pytest.raises(FuruComputeError) as caught:
            run_local([Undeclared(way=way)])
        assert isinstance(caught.value.__cause__, FuruMissingArtifactError)
        assert not Leaf(number=1).exists()
    assert not store.exists(), "another store was used"


@pytest.mark.parametrize("way", WAYS)
def test_threads_of_two_nodes_at_once_use_the_store_of_each(way: str, tmp_path: Path, store: Path) -> None:
    """Two runs compute the same nodes in two stores at the same time."""

    def go(name: str) -> None:
        with use_settings(store=tmp_path / name):
            run_local([InThreads(way=way, leaves=(Leaf(number=1), Leaf(number=2)))], max_workers=2)

    assert [None, None] == in_executor(go, ["first", "second"])
    for name in ("first", "second"):
        with use_settings(store=tmp_path / name):
            assert [1, 2] == InThreads(way=way, leaves=(Leaf(number=1), Leaf(number=2))).get()
    assert not store.exists(), "another store was used"


def test_pool_that_nodes_share_uses_the_store_of_each(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first node starts the only thread of the pool, which also works for the second node."""
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setitem(WAYS, "shared", lambda function, values: list(pool.map(function, values)))
        for number in (1, 2):
            with use_settings(store=tmp_path / f"store{number}"):
                run_local([InThreads(way="shared", leaves=(Leaf(number=number),))])
                assert [number] == InThreads(way="shared", leaves=(Leaf(number=number),)).get()
    assert not store.exists(), "another store was used"


# ---- locks: forks and signal handlers ----


class ForksWhileAThreadLogs(Furu[int]):
    """Forks while one of its threads is writing a log line. The fork logs too."""

    def _create(self) -> int:
        writing, forked = threading.Event(), threading.Event()
        logger = self.logger

        def write(original: Callable[..., int], *args: Any) -> int:
            if threading.current_thread() is thread:
                writing.set()
                forked.wait(HELD_SEC)
            return original(*args)

        thread = threading.Thread(target=logger.info, args=("from the thread",))
        with calls("write", write):
            thread.start()
            writing.wait(HELD_SEC)
            try:
                lines = in_fork(lambda: [logger.info("from the fork"), LOG.warning("from its library")])
            finally:
                forked.set()
                thread.join()
        return len(lines)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_can_log_although_a_thread_was_writing_a_line() -> None:
    assert 2 == ForksWhileAThreadLogs().get()


class LogsInAHandler(Furu[int]):
    """A signal arrives while the node writes a log line, and the signal handler logs."""

    through: str

    def _create(self) -> int:
        lines = 0
        logger = self.logger if self.through == "the node" else LOG

        def handle(*_: object) -> None:
            logger.warning("about to be preempted")

        def write(original: Callable[..., int], *args: Any) -> int:
            nonlocal lines
            lines += 1
            if lines == 1:
                signal.raise_signal(signal.SIGUSR1)
            return original(*args)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            with calls("write", write):
                logger.warning("a step")
        finally:
            signal.signal(signal.SIGUSR1, before)
        return lines


@pytest.mark.parametrize("through", ["the node", "the host's logging"])
def test_signal_handler_may_log_while_a_line_is_written(through: str) -> None:
    """The test runs in a separate process, because of the risk of a deadlock."""
    assert 2 == in_fork(LogsInAHandler(through=through).get)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_a_store_is_first_used_keeps_no_lock_of_its_parents(tmp_path: Path) -> None:
    """If the fork kept a lock, the parent's nodes would stay in progress after the parent's death."""
    making, forked = threading.Event(), threading.Event()

    def link(original: Callable[..., None], *args: Any, **options: Any) -> None:
        if threading.current_thread() is thread:
            making.set()
            forked.wait(HELD_SEC)
        original(*args, **options)

    def compute() -> None:
        with use_settings(store=tmp_path / "another"):
            Leaf(number=1).get()

    def open_files() -> list[str]:
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:
                continue
        return [path for path in found if str(tmp_path) in path]

    Leaf(number=0).get()
    thread = threading.Thread(target=compute)
    with calls("link", link):
        thread.start()
        making.wait(HELD_SEC)
        held = in_fork(open_files)
        forked.set()
        thread.join()
    assert [] == held


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_another_thread_computes_can_compute_by_itself() -> None:
    """The other thread may hold locks of furu at the time of the fork."""
    stop = threading.Event()

    def chat() -> None:
        number = 1000
        while not stop.is_set():
            number += 1
            Leaf(number=number).get()

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        values = [in_fork(Leaf(number=number).get) for number in range(20)]
    finally:
        stop.set()
        thread.join()
    assert list(range(20)) == values


def test_observer_sees_the_status_of_a_node() -> None:

    def begin() -> str:
        with Observer() as observer:
            return str(observer.statuses([(os.environ["FURU_PATH"], Leaf(number=5))])[0])

    assert "TODO" == begin()
    Leaf(number=5).get()
    assert "DONE" == begin()


class Five(Furu[int]):
    """A dependency with a fixed value."""

    def _create(self) -> int:
        return 5


class Initialized(Furu[int]):
    """The initializer of its pool gets a dependency. `_load` and `_validate` use pools too."""

    below: Five

    def _create(self) -> int:
        got: list[int] = []
        with ThreadPoolExecutor(2, "pool", lambda node: got.append(node.get()), (self.below,)) as pool:
            pool.submit(int).result()
        (self.furu_dir / "value").write_text(str(got[0]))
        return got[0]

    def _load(self) -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: int((self.furu_dir / "value").read_text())).result()

    def _validate(self) -> bool:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.get).result() == pool.submit(self.below.get).result()


def test_threads_of_every_method_of_a_class_use_the_store_of_the_run(tmp_path: Path) -> None:
    """This includes threads of initializers, of `_load` and of `_validate`."""
    with use_settings(store=tmp_path / "chosen"):
        node = Initialized(below=Five())
        run_local([node], progress=False)
        assert 5 == node.get()
        assert node.exists()
    assert not (tmp_path / "store").exists()
