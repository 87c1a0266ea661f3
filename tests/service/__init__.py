"""Tests of `furu.service`."""
