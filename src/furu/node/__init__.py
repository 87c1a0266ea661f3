"""Single nodes: their identity and dependencies, and how their values are computed and loaded."""
