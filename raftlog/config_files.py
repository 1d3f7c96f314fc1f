"""Reading a file with settings, whatever its form, and telling where each of them stands."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from raftlog.errors import ConfigError

FILE_ENDINGS: Final = ("toml", "yaml", "yml", "json")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for a key, and how to tell the user where it stands."""

    value: object
    source: str  # "/etc/raftlog/raftlog.toml: rpc-port"


Layer = dict[str, Setting]  # by field of ServerConfig


def parse_file(path: Path) -> dict[object, object]:
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FILE_ENDINGS:
        raise ConfigError([f"{path}: the name ends in none of .{', .'.join(FILE_ENDINGS)}"])
    try:
        text = path.read_text(encoding="utf-8")
        content: object = _parse(text, ending)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except (ValueError, yaml.YAMLError) as error:  # ValueError: of UTF-8, TOML and JSON
        raise ConfigError([f"{path}: not valid {ending}: {' '.join(str(error).split())}"]) from error
    if content is None:  # an empty YAML file
        return {}
    if not isinstance(content, dict):
        raise ConfigError([f"{path}: a {type(content).__name__}, where keys with values are needed"])
    return content


def _parse(text: str, ending: str) -> object:
    if ending == "toml":
        return tomllib.loads(text)
    return json.loads(text) if ending == "json" else yaml.safe_load(text)
