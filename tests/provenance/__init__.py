"""Tests of `furu.provenance`."""
