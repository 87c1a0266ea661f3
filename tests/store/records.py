"""Reading the records of attempts in tests."""

from __future__ import annotations

import json
from typing import Any

from furu.store.attempt import Attempt


def ended_record(attempt: Attempt) -> dict[str, Any]:
    """Return the record of an attempt that has ended."""
    content: dict[str, Any] = json.loads(attempt.state_path.read_text())
    return content
