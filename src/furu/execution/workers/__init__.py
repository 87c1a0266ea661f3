"""What computes: one contract (`base`), what every kind does with one node (`call`), and the kinds."""

from furu.execution.workers.base import Begun, Crew, Job, Outcome, Overran, Withdrawn, Workers
from furu.execution.workers.dask import DaskWorkers
from furu.execution.workers.event_loop import EventLoopWorkers
from furu.execution.workers.processes import ProcessWorkers
from furu.execution.workers.threads import ThreadWorkers

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
