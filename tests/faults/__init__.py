"""Fault injection for the store: kills, errors, races and damage at every step, not only at a few.

syscalls.py     numbers the filesystem calls of furu, and injects a fault at the n-th call
zygote.py       a process that forks a child for each fault, and another child that recovers
interleaver.py  claimers in one process, whose filesystem calls run in a chosen order
power.py        a model of a filesystem after a power cut, when calls that were not synced may be lost
crowd.py        a process that forks other processes, which share a store
figures.py      counts the injected faults and the findings
test_*.py       short forms, which run with all tests; `nox -s faults` runs long ones (FURU_FAULTS=long)
"""
