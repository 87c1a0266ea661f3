"""Tests of `furu.store`."""
