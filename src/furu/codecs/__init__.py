"""Encodes results as typed JSON, or as pickles for classes that opt in."""
