"""How Sphinx builds the documentation: `nox -s docs`."""

from __future__ import annotations

import furu

project = "furu"
author = "furu contributors"
project_copyright = "2026, furu contributors"
version = release = furu.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
# The docstrings write code in single backticks.
default_role = "code"

# Docstrings have Google's "Args:" and "Raises:" only, and those become plain field lists.
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
# A signature with its types is long: one argument a line.
python_maximum_signature_line_length = 90

# Nothing is fetched from other projects' sites, so only references to furu's own names are checked.
# Type variables, lists of options and the base of Furu have no page.
WITHOUT_PAGE = r"furu\.(\w+\.)*(T|T_co|RunOptions|SettingsChanges|Node)"
nitpick_ignore_regex = [("py:.*", r"(?!furu\b).*"), ("py:class", WITHOUT_PAGE)]

myst_heading_anchors = 3

html_theme = "furo"
html_title = "furu"
