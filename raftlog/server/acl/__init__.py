"""The access model and policy that `raftlog certs init` and `raftlog demo` put into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MODEL_NAME: Final = "model.conf"
POLICY_NAME: Final = "policy.csv"

# The files themselves, for a server that is told of no others.
MODEL_FILE: Final = str(Path(__file__).with_name(MODEL_NAME))
POLICY_FILE: Final = str(Path(__file__).with_name(POLICY_NAME))


def default_files() -> dict[str, bytes]:
    """File name: content, of the model and the policy."""
    return {MODEL_NAME: Path(MODEL_FILE).read_bytes(), POLICY_NAME: Path(POLICY_FILE).read_bytes()}
