"""Faults of the store: kills, errors, races and damage, injected at every step rather than at a few.

syscalls.py     the filesystem calls that furu makes, numbered; something happens at the n-th
zygote.py       a process that forks one child for each fault, and another one that recovers
interleaver.py  claimers in one process, each stepped at its filesystem calls in a chosen order
power.py        a filesystem that loses power: what it may hold of calls that were not synced
crowd.py        a process that forks others, which share a store
figures.py      what was injected and found, counted
test_*.py       bounded forms, run with all tests; `nox -s faults` runs them at length (FURU_FAULTS=long)
"""
