"""Observing a run: its report, critical path, progress and traces."""
