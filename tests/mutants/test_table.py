"""The table of mutants fits the current sources and tests."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.mutant import ROOT, Mutant
from tests.mutants.table import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fits_the_sources_and_the_tests(mutant: Mutant) -> None:
    """The old text of a mutant occurs once, its new text is valid Python, and its tests exist."""
    assert mutant.mutated()
    for node_id in mutant.node_ids:
        path, name = node_id.split("[")[0].split("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {getattr(node, "name", "") for node in tree.body}


def test_mutants_have_different_names() -> None:
    assert len(MUTANTS) == len({mutant.name for mutant in MUTANTS})
