"""What a node costs, against what a user would write by hand: `nox -s bench`, or
`python -m tests.benchmarks --help`. Not collected by pytest; the stable part of it is in test_costs.py."""
