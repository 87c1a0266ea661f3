"""Tests of `furu.codecs`."""
