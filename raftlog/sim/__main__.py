"""`python -m raftlog.sim`."""

from __future__ import annotations

import sys

from raftlog.sim.cli import run


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
