"""Tests of `furu.execution.workers`."""
