from __future__ import annotations

import pytest


class Told:
    """A handler that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def join(self, name: str, addr: str) -> None:
        self.calls.append(("join", name, addr))

    def leave(self, name: str) -> None:
        self.calls.append(("leave", name))


@pytest.fixture
def told() -> Told:
    return Told()
