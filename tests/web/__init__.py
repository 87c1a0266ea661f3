"""Tests of `furu.web`."""
