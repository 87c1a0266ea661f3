"""Deliberate breaks of the store, the scheduler, the workers and `Runs`, each with a test that fails on it.

`python -m tests.mutants` applies each to a copy of the sources and runs its tests; `test_table.py`, in the
normal suite, checks that the table still fits the sources.
"""
