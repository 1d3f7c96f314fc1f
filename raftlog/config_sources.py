"""Where a server's settings come from. Later sources override earlier ones, key by key:

1. defaults
2. one file: the one that --config-file or RAFTLOG_CONFIG_FILE names, else the first that exists of `search_paths`
3. environment: RAFTLOG_ and the key in capitals, RAFTLOG_RPC_PORT
4. flags: --rpc-port

A key that is not known is an error wherever it comes from: a slip must not leave a default that nobody wanted.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from raftlog.config import ServerConfig
from raftlog.errors import ConfigError

PREFIX: Final = "RAFTLOG_"
CLIENT_PREFIX: Final = "RAFTLOG_CLIENT_"  # settings of the commands that connect; a server has no such key
FILE_ENDINGS: Final = ("toml", "yaml", "yml", "json")

# Kubernetes sets such variables for every Service; for one named raftlog they begin as ours do.
_SERVICE_VARIABLE: Final = re.compile(
    r"RAFTLOG_(\w+_)?SERVICE_(HOST|PORT(_\w+)?)|RAFTLOG_(\w+_)?PORT_\d+_\w+"
)
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")

# by pydantic's type of error, where its own words are not a user's
_TEXTS: Final = {
    "bool_parsing": "neither true nor false",
    "bool_type": "neither true nor false",
    "int_parsing": "not a whole number",
    "int_from_float": "not a whole number",
    "int_type": "not a whole number",
    "string_type": "not a text",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for a key, and how to tell the user where it stands."""

    value: object
    source: str  # "/etc/raftlog/raftlog.toml: rpc-port"


Layer = dict[str, Setting]  # by field of ServerConfig


def load_config(flags: Mapping[str, object] | None = None) -> ServerConfig:
    """The settings from all sources; `config_file` of the result is the file that was read, if any.

    `flags` are by field name, None means not given. ConfigError has one line per problem: source, key, value, what to
    do.
    """
    problems: list[str] = []
    named = read_environment(problems) | flag_layer(flags or {})
    path = find_file(named.pop("config_file", None))
    settings = {} if path is None else read_file(path, problems)
    settings |= named
    values: dict[str, Any] = {field: setting.value for field, setting in settings.items()}
    try:
        config = ServerConfig(**values, config_file=None if path is None else str(path))
    except ValidationError as error:
        problems += describe(error, settings)
    if problems:
        raise ConfigError(problems)
    return config


# ── the file ────────────────────────────────────────────────────────────────────────────────────────


def find_file(named: Setting | None = None) -> Path | None:
    """The file to read; None if none is named and none found. A named one may be missing: reading it tells."""
    if named is not None and named.value:
        return Path(str(named.value)).expanduser()
    return next((path for path in search_paths() if path.is_file()), None)


def search_paths() -> Iterator[Path]:
    """Every path that is tried, in order."""
    home = os.path.expanduser("~")
    config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    for stem in ("raftlog", f"{config_home}/raftlog/raftlog", f"{home}/.raftlog", "/etc/raftlog/raftlog"):
        for ending in FILE_ENDINGS:
            yield Path(f"{stem}.{ending}")


def read_file(path: Path, problems: list[str]) -> Layer:
    """The settings in the file. Unknown and repeated keys go to `problems`; ConfigError if it cannot be read."""
    layer: Layer = {}
    for key, value in parse_file(path).items():
        field = str(key).replace("-", "_")
        if field == "config_file":
            problems.append(f"{path}: config-file cannot be in a file; use the flag or the variable")
        elif field not in ServerConfig.model_fields:
            problems.append(f"{path}: unknown key {key}{suggest(field, spell=key_of)}")
        elif field in layer:
            problems.append(f"{path}: {key_of(field)} is there twice, with a dash and with an underscore")
        else:
            layer[field] = Setting(value, f"{path}: {key}")
    return layer


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


# ── environment and flags ───────────────────────────────────────────────────────────────────────────


def read_environment(problems: list[str]) -> Layer:
    """The settings in RAFTLOG_* variables; unknown ones go to `problems`."""
    values = EnvSettingsSource(ServerConfig, env_prefix=PREFIX, case_sensitive=False)()
    layer: Layer = {}
    for variable, text in os.environ.items():
        field = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or _is_of_others(variable, text):
            continue
        if field in values:
            layer[field] = Setting(values[field], f"environment: {variable}")
        else:
            problems.append(f"environment: unknown variable {variable}{suggest(field, spell=variable_of)}")
    return layer


def _is_of_others(variable: str, text: str) -> bool:
    if variable.startswith(CLIENT_PREFIX):
        return True
    return bool(_SERVICE_VARIABLE.fullmatch(variable) or _SERVICE_ADDRESS.match(text))


def flag_layer(flags: Mapping[str, object]) -> Layer:
    return {
        field: Setting(value, f"flag: --{key_of(field)}")
        for field, value in flags.items()
        if value is not None
    }


# ── what is said ────────────────────────────────────────────────────────────────────────────────────


def key_of(field: str) -> str:
    return field.replace("_", "-")


def variable_of(field: str) -> str:
    return PREFIX + field.upper()


def suggest(field: str, *, spell: Callable[[str], str]) -> str:
    """The end of a sentence about an unknown key: the nearest known one, or where all are listed."""
    nearest = difflib.get_close_matches(field.lower(), ServerConfig.model_fields, n=1, cutoff=0.6)
    return f"; did you mean {spell(nearest[0])}?" if nearest else "; `raftlog serve --help` lists all keys"


def describe(error: ValidationError, settings: Layer) -> list[str]:
    """One line for each problem that pydantic found."""
    return [_describe_one(problem, settings) for problem in error.errors()]


def _describe_one(problem: ErrorDetails, settings: Layer) -> str:
    text = _TEXTS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not problem["loc"]:
        return text
    field = str(problem["loc"][0])
    if field not in settings:
        return f"default of {key_of(field)}: {text}"
    setting = settings[field]
    return f"{setting.source} is {setting.value!r}: {text}"
