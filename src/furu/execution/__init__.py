"""Running a graph: which nodes are known, which are ready, what computes them, how the run ends.

plan.py        which nodes may start; pure bookkeeping
window.py      how many roots are active; pure
discovery.py   from roots to nodes, dependencies and statuses; off the loop
walk.py        discovery while the run goes on
elsewhere.py   nodes that other owners compute
workers/       what computes
scheduler.py   the loop: dispatch, wait, reap
options.py     the options of a run, checked
interrupts.py  Ctrl-C
local.py       run_local, run_local_async
stream.py      stream_local
"""
