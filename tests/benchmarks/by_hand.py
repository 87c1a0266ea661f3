"""The baselines: code that a user would write instead of furu. Each returns when all is computed."""

from __future__ import annotations

import graphlib
import json
import math
import os
import queue
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.abc
import anyio.to_thread

from tests.benchmarks.graphs import Edges
from tests.benchmarks.nodes import MODULUS

WORKERS = 8


def compute_and_store(edges: Edges, store: str, number: int) -> None:
    """Read the results of a node's dependencies, and write its result and a done marker."""
    directory = f"{store}/{number}"
    if os.path.exists(f"{directory}/done"):
        return
    value = (1 + sum(_read(store, below) for below in edges[number])) % MODULUS
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/result.json", "w") as file:
        json.dump(value, file)
    with open(f"{directory}/done", "w"):
        pass


def _read(store: str, number: int) -> int:
    with open(f"{store}/{number}/result.json") as file:
        return int(json.load(file))


def by_hand(edges: Edges, store: str) -> None:
    """`graphlib` and a thread pool, combined as in the documentation of `graphlib`."""
    sorter = graphlib.TopologicalSorter(dict(enumerate(edges)))
    finished: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()

    def work(number: int) -> None:
        try:
            compute_and_store(edges, store, number)
        except BaseException as error:
            finished.put((number, error))
        else:
            finished.put((number, None))

    sorter.prepare()
    with ThreadPoolExecutor(WORKERS) as pool:
        while sorter.is_active():
            for number in sorter.get_ready():
                pool.submit(work, number)
            number, error = finished.get()
            if error is not None:
                raise error
            sorter.done(number)


def bare_anyio(edges: Edges, store: str) -> None:
    """Tasks that pass each ready node to `to_thread.run_sync`. Nothing is stored."""
    anyio.run(_pull_all, edges)


async def _pull_all(edges: Edges) -> None:
    sorter = graphlib.TopologicalSorter(dict(enumerate(edges)))
    sorter.prepare()
    values: dict[int, int] = {}
    send, receive = anyio.create_memory_object_stream[int](math.inf)
    limiter = anyio.CapacityLimiter(WORKERS)

    def compute(number: int) -> None:
        values[number] = (1 + sum(values[below] for below in edges[number])) % MODULUS

    def put_ready() -> None:
        for number in sorter.get_ready():
            send.send_nowait(number)
        if not sorter.is_active():
            send.close()

    async def pull(numbers: anyio.abc.ObjectReceiveStream[int]) -> None:
        async with numbers:
            async for number in numbers:
                await anyio.to_thread.run_sync(compute, number, limiter=limiter)
                sorter.done(number)
                put_ready()

    put_ready()
    async with anyio.create_task_group() as tasks:
        for _ in range(WORKERS):
            tasks.start_soon(pull, receive.clone())
        receive.close()
