"""What a run reports: counts, the critical path, progress, traces."""
