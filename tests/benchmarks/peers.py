"""Other engines that compute the same graphs and store the same results. Each function imports its engine,
which may be missing."""

from __future__ import annotations

import functools
import inspect
import logging
from typing import Any

from tests.benchmarks.by_hand import WORKERS, compute_and_store
from tests.benchmarks.graphs import Edges, sinks
from tests.benchmarks.nodes import MODULUS


def dask_threaded(edges: Edges, store: str) -> None:
    """A dict of tasks. `compute_and_store` stores the results."""
    import dask.threaded

    graph: dict[Any, Any] = {
        number: (lambda *below, number=number: compute_and_store(edges, store, number), *below)
        for number, below in enumerate(edges)
    }
    dask.threaded.get(graph, sinks(edges), num_workers=WORKERS)


def dask_distributed(edges: Edges, store: str) -> None:
    """The smallest local cluster of threads. The time includes its start, as for the other engines."""
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.ERROR)
    options = {"n_workers": 1, "threads_per_worker": WORKERS, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        futures: list[Any] = []
        for number, below in enumerate(edges):
            work = functools.partial(compute_and_store, edges, store)
            futures.append(
                client.submit(
                    lambda number, *_, work=work: work(number), number, *[futures[n] for n in below]
                )
            )
        client.gather([futures[number] for number in sinks(edges)])


def luigi_build(edges: Edges, store: str) -> None:
    """One task for each node, with the done marker as its target."""
    import luigi

    class Node(luigi.Task):  # type: ignore[misc]
        number = luigi.IntParameter()

        def requires(self) -> Any:
            return [Node(number=below) for below in edges[self.number]]

        def output(self) -> Any:
            return luigi.LocalTarget(f"{store}/{self.number}/done")

        def run(self) -> None:
            compute_and_store(edges, store, self.number)

    roots = [Node(number=number) for number in sinks(edges)]
    if not luigi.build(roots, local_scheduler=True, log_level="CRITICAL", workers=1):
        raise RuntimeError("luigi did not finish")


def redun_run(edges: Edges, store: str) -> None:
    """One task for each node, cached in redun's database."""
    import redun
    from redun.config import Config

    logging.disable(logging.CRITICAL)

    @redun.task(namespace="bench", name="node", version="1")
    def node(number: int, below: list[int]) -> int:
        return (1 + sum(below)) % MODULUS

    expressions: list[Any] = []
    for number, below in enumerate(edges):
        expressions.append(node(number, [expressions[n] for n in below]))
    config = Config({"backend": {"db_uri": f"sqlite:///{store}/redun.db"}})
    scheduler = redun.Scheduler(config=config)
    scheduler.load()
    scheduler.run([expressions[number] for number in sinks(edges)])


def joblib_memory(edges: Edges, store: str) -> None:
    """`Memory.cache` for one node after another, because joblib does not handle dependencies."""
    import joblib

    @joblib.Memory(store, verbose=0).cache
    def node(number: int, below: list[int]) -> int:
        return (1 + sum(below)) % MODULUS

    values: list[int] = []
    for number, below in enumerate(edges):
        values.append(node(number, [values[n] for n in below]))


def doit_run(edges: Edges, store: str) -> None:
    """One task for each node, with the done markers as targets and file dependencies."""
    from doit.cmd_base import ModuleTaskLoader
    from doit.doit_cmd import DoitMain

    def task_node() -> Any:
        for number, below in enumerate(edges):
            yield {
                "name": str(number),
                "actions": [(compute_and_store, [edges, store, number])],
                "targets": [f"{store}/{number}/done"],
                "file_dep": [f"{store}/{n}/done" for n in below],
            }

    options = {"dep_file": f"{store}/doit.db", "reporter": "zero"}
    if DoitMain(ModuleTaskLoader({"task_node": task_node, "DOIT_CONFIG": options})).run(["run"]):
        raise RuntimeError("doit did not finish")


def pipefunc_run(edges: Edges, store: str) -> None:
    """One function for each node. The results are stored in the run's folder."""
    import pipefunc

    def make(number: int, below: tuple[int, ...]) -> Any:
        def node(**values: int) -> int:
            return (1 + sum(values.values())) % MODULUS

        names = [inspect.Parameter(f"v{n}", inspect.Parameter.KEYWORD_ONLY) for n in below]
        node.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        return pipefunc.PipeFunc(node, output_name=f"v{number}")

    pipeline = pipefunc.Pipeline([make(number, below) for number, below in enumerate(edges)])
    pipeline.map({}, run_folder=store, parallel=False, show_progress=False)


def stardag_build(edges: Edges, store: str) -> None:
    """One task for each node, with JSON files as targets, and no registry."""
    import stardag
    from stardag.registry import NoOpRegistry
    from stardag.target import TargetFactory

    class Node(stardag.Task[int]):  # type: ignore[misc]
        number: int
        below: tuple[stardag.SubClass[stardag.Task[int]], ...] = ()

        def requires(self) -> Any:
            return self.below

        def run(self) -> None:
            self._save((1 + sum(node.target().load() for node in self.below)) % MODULUS)

    Node.model_rebuild(_types_namespace={"stardag": stardag})
    nodes: list[Any] = []
    with stardag.target_factory_provider.override(TargetFactory(target_roots={"default": store})):
        for number, below in enumerate(edges):
            nodes.append(Node(number=number, below=tuple([nodes[n] for n in below])))
        stardag.build([nodes[number] for number in sinks(edges)], registry=NoOpRegistry())


PEERS = {
    "dask.threaded": dask_threaded,
    "dask.distributed": dask_distributed,
    "luigi": luigi_build,
    "joblib.Memory": joblib_memory,
    "redun": redun_run,
    "pipefunc": pipefunc_run,
    "stardag": stardag_build,
    "doit": doit_run,
}
