"""Deliberate faults in the store, the scheduler, the workers and `Runs`, and the tests that detect them.

`python -m tests.mutants` applies each mutant to a copy of the sources and runs its tests. `test_table.py`,
in the normal suite, checks that the table still fits the sources.
"""
