"""The exit codes of every command; 0 is done, and all was well."""

from __future__ import annotations

from typing import Final

EXIT_FAILED: Final = 1  # something is wrong with what was run or checked
EXIT_UNUSABLE: Final = 2  # the command line or a file cannot be used, or a check was not finished
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells do
