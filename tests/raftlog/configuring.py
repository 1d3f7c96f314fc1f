"""What tests of the configuration share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from raftlog.config import ServerConfig
from raftlog.config_sources import load_config
from raftlog.errors import ConfigError

Write = Callable[[str, str], Path]  # of a file, by its name below the test's folder


def problems(flags: Mapping[str, object] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config({"insecure": True, **(flags or {})})
    return list(caught.value.problems)


def load(flags: Mapping[str, object] | None = None) -> ServerConfig:
    return load_config({"insecure": True, **(flags or {})})
