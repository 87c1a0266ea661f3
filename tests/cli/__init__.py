"""Tests of `furu.cli`."""
