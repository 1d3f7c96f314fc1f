"""`python -m raftlog.sim`."""

from __future__ import annotations

import sys

from raftlog.sim.cli import run_command_line


def main() -> None:
    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
