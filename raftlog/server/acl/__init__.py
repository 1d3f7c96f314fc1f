"""The access model and policy that `raftlog certs init` and `raftlog demo` put into a folder."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

MODEL_NAME: Final = "model.conf"
POLICY_NAME: Final = "policy.csv"


def default_files() -> dict[str, bytes]:
    """File name: content, of the model and the policy."""
    folder = files(__name__)
    return {name: folder.joinpath(name).read_bytes() for name in (MODEL_NAME, POLICY_NAME)}
