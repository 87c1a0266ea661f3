"""The cost of a node, compared with code that a user would write by hand: `nox -s bench`, or
`python -m tests.benchmarks --help`. pytest does not collect it; test_costs.py tests the stable figures."""
