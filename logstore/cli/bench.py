"""bench: how fast this machine appends and reads."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
