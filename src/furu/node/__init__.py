"""One node: its identity, its dependencies, computing it, getting its value."""
