"""Tests of `furu.node`."""
