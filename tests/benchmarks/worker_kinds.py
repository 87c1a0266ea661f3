"""The cost of kinds of workers: pure Python in processes compared with threads, and small nodes on a local
Dask cluster compared with `client.submit`. Run it as `python tests/benchmarks/worker_kinds.py`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from furu import Furu, run_local, use_settings
from furu.execution.workers import DaskWorkers, ProcessWorkers, ThreadWorkers

SPINS, ROUNDS, PROCESSORS = 8, 8_000_000, 2
TASKS, WINDOW = 2_000, 64


class Spin(Furu[int]):
    """Computes in pure Python, so that it keeps the interpreter's lock."""

    name: str
    rounds: int

    def _create(self) -> int:
        return sum(number * number for number in range(self.rounds))


class Nothing(Furu[int]):
    """Returns its number."""

    number: int

    def _create(self) -> int:
        return self.number


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes in a new store."""
    with tempfile.TemporaryDirectory() as folder, use_settings(store=folder):
        started = time.perf_counter()
        function()
        return time.perf_counter() - started


def spin(workers: Any) -> float:
    """Return the seconds for the spinning nodes on one kind of workers."""
    nodes = [Spin(name=f"{number}", rounds=ROUNDS) for number in range(SPINS)]
    return seconds(lambda: run_local(nodes, workers=workers, max_workers=PROCESSORS))


def same(number: int) -> int:
    """Return the number: the task that bare Dask computes."""
    return number


def main() -> None:
    """Measure, and print the results."""
    threads, processes = spin(ThreadWorkers()), spin(ProcessWorkers())
    print(
        f"{SPINS} spinning nodes: threads {threads:.2f} s, processes {processes:.2f} s, "
        f"{processes / threads:.2f} x"
    )

    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def bare() -> None:
            client.gather([client.submit(same, number, pure=False) for number in range(TASKS)])

        def nodes() -> None:
            run_local(
                [Nothing(number=number) for number in range(TASKS)],
                workers=DaskWorkers(client),
                max_workers=WINDOW,
            )

        bare()
        submit, furu = seconds(bare), seconds(nodes)
    print(
        f"{TASKS} small nodes on Dask: submit {submit / TASKS * 1e6:.0f} us each, "
        f"furu {furu / TASKS * 1e6:.0f} us each, {furu / submit:.2f} x"
    )


if __name__ == "__main__":
    main()
