"""What a client has seen of the log."""

from __future__ import annotations


class Watermark:
    """The highest offset that this client has seen the log reach. What it is told later is never less."""

    def __init__(self) -> None:
        self.offset = 0

    def saw(self, offset: int) -> None:
        """The log reached `offset`, which is that behind its last record."""
        self.offset = max(self.offset, offset)
