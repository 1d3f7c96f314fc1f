"""`logstore`, the command line. Needs typer and rich; the library does not."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from logstore.cli import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"logstore: the command line needs {error.name}: pip install typer rich")
    run()


if __name__ == "__main__":
    main()
