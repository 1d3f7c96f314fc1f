"""Where a server's settings come from. Later sources override earlier ones, key by key:

1. defaults
2. what the list of peers says of this server
3. one file: the one that --config-file, RAFTLOG_CONFIG_FILE or RAFT_CONFIG names, else the first that exists of
   `search_paths`
4. environment: RAFT_ and a key of bbengfort/raft; then RAFTLOG_ and the key in capitals, RAFTLOG_RPC_PORT
5. flags: --rpc-port

A key that is not known is an error wherever it comes from: a slip must not leave a default that nobody wanted.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from raftlog import config_seed
from raftlog.config import ServerConfig, default_node_name
from raftlog.config_files import FILE_ENDINGS, Layer, Setting, parse_file
from raftlog.config_peers import Peer, settings_of
from raftlog.errors import ConfigError

PREFIX: Final = "RAFTLOG_"
CLIENT_PREFIX: Final = "RAFTLOG_CLIENT_"  # settings of the commands that connect; a server has no such key

# Kubernetes sets such variables for every Service; for one named raftlog they begin as ours do.
_SERVICE_VARIABLE: Final = re.compile(
    r"RAFTLOG_(\w+_)?SERVICE_(HOST|PORT(_\w+)?)|RAFTLOG_(\w+_)?PORT_\d+_\w+"
)
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")

# A default that depends on a setting that is wrong
FOLLOWS_FROM_ANOTHER: Final = "default_factory_not_called"

# by pydantic's type of error, where its own words are not a user's
_TEXTS: Final = {
    "bool_parsing": "neither true nor false",
    "bool_type": "neither true nor false",
    "int_parsing": "not a whole number",
    "int_from_float": "not a whole number",
    "int_type": "not a whole number",
    "string_type": "not a text",
    "tuple_type": "not a list",
}


def load_config(flags: Mapping[str, object] | None = None) -> ServerConfig:
    """The settings from all sources; `config_file` of the result is the file that was read, if any.

    `flags` are by field name, None means not given. ConfigError has one line per problem: source, key, value, what to
    do.
    """
    problems: list[str] = []
    unused: list[str] = []
    named = read_environment(problems) | flag_layer(flags or {})
    path = find_file(named.pop("config_file", None))
    settings = {} if path is None else read_file(path, problems, unused)
    settings |= read_seed_environment(problems, unused) | named
    settings = read_peers(settings) | settings
    values: dict[str, Any] = {field: setting.value for field, setting in settings.items()}
    try:
        config = ServerConfig(**values, config_file=None if path is None else str(path))
        config.gossip_keys()  # to tell now what is wrong with the file
    except ValidationError as error:
        problems += describe(error, settings)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    config.note_unused(unused)
    return config


# ── the file ────────────────────────────────────────────────────────────────────────────────────────


def find_file(named: Setting | None = None) -> Path | None:
    """The file to read; None if none is named and none found. A named one may be missing: reading it tells."""
    if named is not None and named.value:
        return Path(str(named.value)).expanduser()
    if (path := config_seed.named_file()) is not None:
        return Path(path).expanduser()
    return next((path for path in search_paths() if path.is_file()), None)


def search_paths() -> Iterator[Path]:
    """Every path that is tried, in order."""
    home = os.path.expanduser("~")
    config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    for stem in ("raftlog", f"{config_home}/raftlog/raftlog", f"{home}/.raftlog", "/etc/raftlog/raftlog"):
        for ending in FILE_ENDINGS:
            yield Path(f"{stem}.{ending}")
    yield from config_seed.search_paths()


def read_file(path: Path, problems: list[str], unused: list[str]) -> Layer:
    """The settings in the file. ConfigError if it cannot be read.

    Unknown and repeated keys go to `problems`, known ones without a meaning here to `unused`.
    """
    layer: Layer = {}
    for key, value in parse_file(path).items():
        field = str(key).replace("-", "_")
        setting = Setting(value, f"{path}: {key}")
        if field == "config_file":
            problems.append(f"{path}: config-file cannot be in a file; use the flag or the variable")
            continue
        if field in config_seed.KEYS:
            found = translate(field, setting, problems, unused)
        elif field in ServerConfig.model_fields:
            found = {field: setting}
        else:
            problems.append(f"{path}: unknown key {key}{suggest(field, spell=key_of)}")
            continue
        for twice in sorted(found.keys() & layer.keys()):
            other = layer[twice].source.removeprefix(f"{path}: ")
            problems.append(f"{path}: {key_of(twice)} is set twice, by {other} and by {key}")
        layer |= found
    return layer


def translate(key: str, setting: Setting, problems: list[str], unused: list[str]) -> Layer:
    """Our settings for a key of bbengfort/raft."""
    if key in config_seed.IGNORED:
        unused.append(setting.source)
    try:
        return config_seed.translate(key, setting)
    except ValueError as error:
        problems.append(f"{setting.source} is {setting.value!r}: {error}")
        return {}


def read_peers(settings: Layer) -> Layer:
    """Where this server listens, from its own line in the list of peers, if there is one.

    What is wrong with the list is told when the settings are checked as a whole.
    """
    if "peers" not in settings or not isinstance(settings["peers"].value, list):
        return {}
    name = settings["node_name"].value if "node_name" in settings else default_node_name()
    for each in settings["peers"].value:
        try:
            peer = Peer.model_validate(each)
        except ValidationError:
            continue
        if peer.name == name:
            source = settings["peers"].source
            return {field: Setting(value, source) for field, value in settings_of(peer).items()}
    return {}


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


def read_seed_environment(problems: list[str], unused: list[str]) -> Layer:
    """The settings in RAFT_* variables of bbengfort/raft; others are not ours to judge."""
    layer: Layer = {}
    for key, setting in config_seed.variables():
        if key in config_seed.KEYS:
            layer |= translate(key, setting, problems, unused)
        else:
            layer[key] = setting
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
    found = error.errors()
    causes = [problem for problem in found if problem["type"] != FOLLOWS_FROM_ANOTHER]
    return [_describe_one(problem, settings) for problem in causes]


def _describe_one(problem: ErrorDetails, settings: Layer) -> str:
    text = _TEXTS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not problem["loc"]:
        return text
    field = str(problem["loc"][0])
    if field == "peers":
        return _describe_peer(problem, text, settings)
    if field not in settings:
        return f"default of {key_of(field)}: {text}"
    setting = settings[field]
    return f"{setting.source} is {setting.value!r}: {text}"


def _describe_peer(problem: ErrorDetails, text: str, settings: Layer) -> str:
    """What is wrong in the list of peers, and in which line of it, from 1."""
    where = [str(part + 1) if isinstance(part, int) else part for part in problem["loc"][1:]]
    place = f" {' '.join(where)}:" if where else ""
    return f"{settings['peers'].source}:{place} {text}"
