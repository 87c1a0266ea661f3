"""Runs that many callers share: bounded, drained. No HTTP, and no extra."""
