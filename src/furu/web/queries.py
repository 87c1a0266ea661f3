"""Look-ups for the application: runs, their graphs, nodes and the store.

Everything that reads the disk or takes long runs in threads. Jobs, runs and the store have separate
threads, so that a slow store, for example, does not delay jobs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from furu.graph import Graph, make_graph
from furu.service import Run, Runs
from furu.settings import current_settings
from furu.web.reading import (
    NodeFacts,
    RunFacts,
    RunSnapshot,
    StorePage,
    StoreSummary,
    describe_node,
    list_nodes,
    read_node,
    run_facts,
    summarize_store,
    take_snapshot,
)

__all__ = ["Pool", "Queries"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# Only a few, so that slow pages leave the CPU to the service.
_THREADS = 2
# People do not read longer pages.
_MAX_GRAPH_NODES = 20_000


class Pool:
    """Runs functions in at most two threads at once."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(_THREADS)

    async def run(self, function: Callable[[*Ts], R], *args: *Ts) -> R:
        """Call the function in a thread, and return its result."""
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)


class Queries:
    """The look-ups of one application. `show_details` is as for `app`."""

    def __init__(self, runs: Runs, show_details: bool) -> None:
        self._runs, self._show_details = runs, show_details
        self.for_jobs, self.for_runs, self.for_store = Pool(), Pool(), Pool()
        # Walking a large graph takes long, and the graph of a run does not change, so walk it only once.
        self._graphs: weakref.WeakKeyDictionary[Run, Graph] = weakref.WeakKeyDictionary()
        self._walks: weakref.WeakKeyDictionary[Run, anyio.Lock] = weakref.WeakKeyDictionary()

    def facts(self, run: Run) -> RunFacts:
        """Return the current facts about a run, as clients see them."""
        return run_facts(run, show_details=self._show_details)

    def snapshot(self, run: Run) -> RunSnapshot:
        """Return the current state of a run and its nodes, as clients see it."""
        return take_snapshot(run, show_details=self._show_details)

    async def graph(self, run: Run) -> Graph:
        """Return the graph of a run. Raises the same errors as `make_graph`."""
        async with self._walks.setdefault(run, anyio.Lock()):
            graph = self._graphs.get(run)
            if graph is None:
                graph = await self.for_runs.run(make_graph, run.roots, _MAX_GRAPH_NODES)
                self._graphs[run] = graph
        return graph

    async def node(self, node_hash: str) -> tuple[NodeFacts | None, Run | None]:
        """Look up a node in the store. If the store does not have its configuration yet, search the runs
        too, and also return the run that has the node."""

        def read() -> NodeFacts | None:
            return read_node(current_settings(), node_hash, show_details=self._show_details)

        facts = await self.for_store.run(read)
        if facts is not None and facts.info.config is not None:
            return facts, None
        for run in [*self._runs.live(), *self._runs.recent()]:
            graph: Graph | None = None
            with suppress(Exception):  # the run's page shows why the run has no graph
                graph = await self.graph(run)
            if graph is not None and (node := graph.sources.get(node_hash)) is not None:
                return await self.for_runs.run(describe_node, node, facts), run
        return facts, None

    async def store(self) -> StoreSummary:
        """Count the nodes of the store."""

        def count() -> StoreSummary:
            return summarize_store(current_settings(), show_details=self._show_details)

        return await self.for_store.run(count)

    async def nodes(self, node_class: str, state: str | None, after: str) -> StorePage:
        """List some nodes of a class."""

        def look() -> StorePage:
            return list_nodes(current_settings(), node_class, state, after)

        return await self.for_store.run(look)
