"""Workers compute the nodes of a run. `base` defines their contract, and `call` computes one node.

The kinds of workers that few runs need are imported on first use.
"""

from typing import TYPE_CHECKING, Any

from furu.execution.workers.base import Begun, Crew, Job, Outcome, Overran, Withdrawn, Workers
from furu.execution.workers.event_loop import EventLoopWorkers
from furu.execution.workers.threads import ThreadWorkers

if TYPE_CHECKING:
    from furu.execution.workers.dask import DaskWorkers
    from furu.execution.workers.processes import ProcessWorkers

__all__ = [
    "Begun",
    "Crew",
    "DaskWorkers",
    "EventLoopWorkers",
    "Job",
    "Outcome",
    "Overran",
    "ProcessWorkers",
    "ThreadWorkers",
    "Withdrawn",
    "Workers",
]


def __getattr__(name: str) -> Any:
    if name == "DaskWorkers":
        from furu.execution.workers.dask import DaskWorkers

        return DaskWorkers
    if name == "ProcessWorkers":
        from furu.execution.workers.processes import ProcessWorkers

        return ProcessWorkers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
