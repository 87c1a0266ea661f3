"""Tests of `furu.observing`."""
