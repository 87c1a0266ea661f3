"""Tests of `furu._common`."""
