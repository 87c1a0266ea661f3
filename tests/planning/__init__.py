"""Tests of `furu.planning`."""
