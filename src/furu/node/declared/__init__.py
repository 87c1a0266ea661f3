"""Declared types: which values fit them, and how other values are converted."""

from furu.node.declared.conversion import converter
from furu.node.declared.mismatch import Convert, Mismatch

__all__ = ["Convert", "Mismatch", "converter"]
