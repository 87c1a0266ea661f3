"""Tests of `furu.execution`."""
