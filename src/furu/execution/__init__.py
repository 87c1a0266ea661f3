"""Runs a graph: finds its nodes, decides which of them may start, and computes them.

plan.py        decides which nodes may start; pure bookkeeping
window.py      counts the active roots; pure bookkeeping
discovery.py   finds nodes, their dependencies and their statuses; reads the disk
walk.py        drives discovery during a run
elsewhere.py   tracks the nodes that other owners compute
workers/       compute nodes
scheduler.py   the loop of a run: start nodes, wait, process outcomes
options.py     checks the options of a run
interrupts.py  handles Ctrl-C
local.py       run_local, run_local_async
stream.py      stream_local
"""
