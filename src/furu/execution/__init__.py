"""Running a graph: what is known, what is ready, who computes it, how it ends.

events.py      what happened, as frozen values
plan.py        which nodes may start; pure bookkeeping
window.py      how many roots are active; pure
discovery.py   nodes to edges and statuses, off the loop
workers/       what computes
scheduler.py   the loop: ask for room, take, dispatch, reap
report.py      events to a RunReport
local.py       run_local, run_local_async: wiring only
"""
