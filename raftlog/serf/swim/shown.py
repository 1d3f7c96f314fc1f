"""Text of others, in words of ours."""

from __future__ import annotations

from typing import Any


def shown(value: Any) -> Any:
    """Text so that it cannot pass for lines of a log, or move a terminal's cursor; anything else as it is."""
    return ascii(value) if isinstance(value, str) and not value.isprintable() else value
