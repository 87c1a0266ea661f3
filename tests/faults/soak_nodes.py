"""The nodes of a soak. `value_of` computes the value of each node without furu."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import anyio

from furu import Furu, Retry, check_cancelled

MODULUS = 1_000_003


class Plain(Furu[int]):
    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        return total_of(self)


class Files(Furu[int]):
    """Stores its value in a file, and writes a log."""

    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        total = total_of(self)
        (self.furu_dir / "value").write_text(str(total))
        self.logger.info("wrote it")
        return total

    def _load(self) -> int:
        return int((self.furu_dir / "value").read_text())


class Pickled(Furu[int]):
    run: int
    number: int
    below: tuple[Furu[int], ...] = ()
    _codec = "pickle"

    def _create(self) -> int:
        return total_of(self)


class Async(Furu[int]):
    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    async def _create(self) -> int:
        await anyio.sleep(self.number % 5 / 1000)
        total = self.number
        for node in self.below:
            total += await node.aget()
        return total % MODULUS


class Sleeps(Furu[int]):
    """Runs long enough to be cancelled, and checks for a cancellation."""

    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        for _ in range(self.number % 10):
            time.sleep(0.002)
            check_cancelled()
        return total_of(self)


class Pools(Furu[int]):
    """Gets its dependencies in separate threads, which write files and log lines."""

    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        def part(node: Furu[int]) -> int:
            (self.furu_dir / node.furu_hash).write_text("part")
            self.logger.info("one part")
            return node.get()

        thread = threading.Thread(target=self.logger.info, args=("from a thread",))
        thread.start()
        with ThreadPoolExecutor(2) as pool, ThreadPool(2) as other:
            half = len(self.below) // 2
            parts = [*pool.map(part, self.below[:half]), *other.map(part, self.below[half:])]
        thread.join()
        return (self.number + sum(parts)) % MODULUS


class Forks(Furu[int]):
    """Forks a child that writes a file of the node and exits at once."""

    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        directory = self.furu_dir
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                (directory / "part").write_text(str(self.number))
            os._exit(0)
        os.waitpid(pid, 0)
        return total_of(self)


class ForkPool(Furu[int]):
    """Uses a forked `multiprocessing` pool."""

    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
            pool.close()
            pool.join()
        return total_of(self)


class Flaky(Furu[int]):
    """Fails at its first attempt. A run retries it."""

    run: int
    number: int
    below: tuple[Furu[int], ...] = ()
    _retry = Retry(attempts=3, on=(ConnectionError,), delay_sec=0.001)

    def _create(self) -> int:
        marker = os.path.join(os.environ["FURU_SOAK_MARKERS"], self.furu_hash)
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            os.unlink(marker)
            return total_of(self)
        raise ConnectionError("try again")


class Fails(Furu[int]):
    run: int
    number: int
    below: tuple[Furu[int], ...] = ()

    def _create(self) -> int:
        raise ValueError(f"bad split {self.number}")


class Overruns(Furu[int]):
    """Exceeds its time limit, and checks for that."""

    run: int
    number: int
    below: tuple[Furu[int], ...] = ()
    _timeout_sec = 0.01

    def _create(self) -> int:
        for _ in range(40):
            time.sleep(0.002)
            check_cancelled()
        raise ValueError("it was not ended")


class OverrunsAsync(Furu[int]):
    run: int
    number: int
    below: tuple[Furu[int], ...] = ()
    _timeout_sec = 0.01

    async def _create(self) -> int:
        await anyio.sleep(30)
        return 0


STEADY: tuple[type[Furu[int]], ...] = (Plain, Plain, Files, Pickled, Async, Async, Sleeps, Pools)
FORKING: tuple[type[Furu[int]], ...] = (Forks, ForkPool)
FAILING: tuple[type[Furu[int]], ...] = (Fails, Overruns, OverrunsAsync)


def total_of(node: Any) -> int:
    """Add up a node's number and the values of its dependencies, inside its `_create`."""
    total: int = node.number + sum(one.get() for one in node.below)
    return total % MODULUS


def value_of(node: Any) -> int:
    """Compute a node's value without furu."""
    total: int = node.number + sum(value_of(one) for one in node.below)
    return total % MODULUS


def draw(chance: random.Random, run: int, kinds: tuple[type[Furu[int]], ...]) -> list[Furu[int]]:
    """Return all nodes of a random graph, dependencies first."""
    nodes: list[Furu[int]] = []
    for number in range(chance.randint(3, 10)):
        below = tuple(chance.sample(nodes, min(len(nodes), chance.randint(0, 3))))
        nodes.append(chance.choice(kinds)(run=run, number=number, below=below))  # type: ignore[call-arg]
    return nodes


def roots_of(nodes: list[Furu[int]]) -> list[Furu[int]]:
    """Return the nodes on which no other node depends."""
    needed = {one for node in nodes for one in node.below}  # type: ignore[attr-defined]
    return [node for node in nodes if node not in needed]


def may_fail(nodes: list[Furu[int]], *, interactive: bool = False) -> bool:
    """Whether these nodes may fail. Flaky nodes may fail in interactive code, which does not retry them."""
    return any(isinstance(node, FAILING) or (interactive and isinstance(node, Flaky)) for node in nodes)
