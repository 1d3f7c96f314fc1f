"""Settings of a server that has others beside it, also as bbengfort/raft writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raftlog.config import MIB, ServerConfig
from raftlog.config_sources import load_config
from raftlog.errors import ConfigError
from raftlog.raft.config import RaftConfig
from tests.raftlog.configuring import Write, load, problems

pytestmark = pytest.mark.usefixtures("nowhere")

ALPHA = {"pid": 1, "name": "alpha", "ip_address": "10.0.0.1", "domain": "alpha.example.org", "port": 3264}
BRAVO = {"pid": 2, "name": "bravo", "ip_address": "10.0.0.2", "port": 3265}
CHARLIE = {"pid": 3, "name": "charlie", "ip_address": "127.0.0.1", "port": 3266, "description": "on a shelf"}
PEERS = [ALPHA, BRAVO, CHARLIE]
TLS = {f"server_tls_{part}_file": f"{part}.pem" for part in ("cert", "key", "ca")}
PEER_TLS = {f"peer_tls_{part}_file": f"{part}.pem" for part in ("cert", "key", "ca")}


def peers_file(**more: Any) -> str:
    return json.dumps({"peers": PEERS, "name": "bravo", **more})


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_defaults_of_the_core_are_those_of_the_settings() -> None:
    assert load().raft_config() == RaftConfig()


def test_times_of_the_core_are_settings() -> None:
    config = load(
        {"heartbeat_interval_ms": "50", "election_timeout_ms_min": "0.3s", "election_timeout_ms_max": "600ms",
         "persist_timeout_ms": "2s", "first_leader": "n1"}
    ).raft_config()  # fmt: skip

    assert (config.heartbeat_interval_s, config.election_timeout_s_min) == (0.05, 0.3)
    assert (config.election_timeout_s_max, config.persist_timeout_s) == (0.6, 2.0)
    assert config.first_leader == "n1"


@pytest.mark.parametrize(
    "flags",
    [
        {"heartbeat_interval_ms": "1s"},
        {"election_timeout_ms_min": "3s"},
        {"election_timeout_ms_max": "999ms"},
    ],
)
def test_times_that_do_not_fit_each_other_are_refused(flags: dict[str, str]) -> None:
    assert "<= election-timeout-ms-max" in problems(flags)[0]


def test_limits_of_a_cluster_have_defaults() -> None:
    config = load()

    assert (config.engine, config.peer_names, config.join_addrs, config.peers) == ("raft", ("peer",), (), ())
    assert (config.retention_wait_ms, config.disk_reserve_bytes) == (600_000, 64 * MIB)
    assert (config.snapshot_entries, config.snapshot_bytes) == (50_000, 256 * MIB)
    assert (config.catch_up_bytes_per_s, config.dial_timeout_ms) == (None, 5000)
    assert (config.peer_connections_max, config.connections_per_address_max) == (64, 512)


def test_names_are_separated_by_commas_and_there_is_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_PEER_NAMES", "one, two")
    assert load().peer_names == ("one", "two")

    monkeypatch.setenv("RAFTLOG_PEER_NAMES", ",")
    assert problems()[0].startswith("environment: RAFTLOG_PEER_NAMES is ','")


@pytest.mark.parametrize(
    ("level", "meaning"), [("warn", "warning"), ("TRACE", "debug"), (" Fatal", "error"), ("panic", "error")]
)
def test_levels_have_the_names_of_other_programs_too(level: str, meaning: str) -> None:
    assert load({"log_level": level}).log_level == meaning


# ── certificates ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("alone", [{}, {"bootstrap": True}])
def test_a_server_that_names_no_other_needs_no_certificate_for_others(alone: dict[str, object]) -> None:
    assert load_config({**TLS, **alone}).peer_tls() is None


def test_a_server_with_others_needs_a_certificate_for_them(write: Write) -> None:
    path = str(write("work/raftlog.json", peers_file()))

    for others in ({"join_addrs": "a:1"}, {"config_file": path}):
        with pytest.raises(
            ConfigError, match="^no certificate for connections to other servers: give peer-tls-cert"
        ):
            load_config({**TLS, **others, "node_name": "bravo"})
        assert load_config({**TLS, **PEER_TLS, **others, "node_name": "bravo"}).peer_tls() is not None
        assert load_config({"insecure": True, **others, "node_name": "bravo"}).peer_tls() is None


# ── the list of peers ───────────────────────────────────────────────────────────────────────────────


def test_the_list_of_peers_tells_a_server_where_it_listens(write: Write) -> None:
    path = str(write("raftlog.json", peers_file()))

    found = [load({"config_file": path, "node_name": name}) for name in ("alpha", "bravo", "charlie")]

    assert [(config.bind_addr, config.rpc_port) for config in found] == [
        ("0.0.0.0:8401", 3264), ("0.0.0.0:8401", 3265), ("127.0.0.1:8401", 3266),
    ]  # fmt: skip
    addresses = ["alpha.example.org:3264", "10.0.0.2:3265", "127.0.0.1:3266"]
    assert [config.rpc_advertise_addr for config in found] == addresses
    assert [[peer.address for peer in config.peers] for config in found] == [addresses] * 3


def test_what_is_said_elsewhere_overrides_the_list_of_peers(write: Write) -> None:
    path = str(write("raftlog.json", peers_file()))

    config = load({"config_file": path, "rpc_port": "9", "bind_addr": "127.0.0.1:1"})

    assert (config.rpc_port, config.bind_addr, config.rpc_advertise_addr) == (
        9,
        "127.0.0.1:1",
        "10.0.0.2:3265",
    )


def test_a_server_that_is_not_in_the_list_does_not_start(write: Write) -> None:
    path = str(write("raftlog.json", peers_file()))

    assert problems({"config_file": path, "node_name": "delta"}) == ["could not find peer for 'delta'"]
    assert problems({"config_file": path, "first_leader": "delta"}) == ["could not find peer for 'delta'"]


NAME_RULE = (
    "{path}: peers: 2 name: use up to 63 letters, digits and . _ - and begin and end with a letter or digit"
)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "alpha"}, "more than one peer has the name alpha"),
        ({"pid": 1}, "more than one peer has the pid 1"),
        ({"port": 3264, "domain": "alpha.example.org"}, "more than one peer has the address alpha.example.org:3264"),
        ({"ip_address": ""}, "{path}: peers: 2: peer bravo has neither domain nor ip_address"),
        ({"port": 0}, "{path}: peers: 2 port: should be greater than or equal to 1"),
        ({"port": True}, "{path}: peers: 2 port: not a number"),
        ({"colour": "red"}, "{path}: peers: 2 colour: Extra inputs are not permitted"),
        ({"name": "-"}, NAME_RULE),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_list_is_named(write: Write, change: dict[str, object], problem: str) -> None:
    peers = json.dumps({"peers": [ALPHA, {**BRAVO, **change}], "name": "alpha"})
    path = write("raftlog.json", peers)

    assert problems({"config_file": str(path)}) == [problem.format(path=path)]


def test_a_list_of_peers_comes_from_a_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_PEERS", json.dumps(PEERS))

    assert problems() == ["environment: RAFTLOG_PEERS: a list of peers can only be in a file"]


def test_one_server_cannot_begin_a_cluster_both_alone_and_with_others(write: Write) -> None:
    path = str(write("raftlog.json", peers_file()))

    assert problems({"config_file": path, "bootstrap": True}) == [
        "bootstrap begins a cluster of one, and peers names others; give one of them"
    ]
    assert problems({"join_addrs": "a:1", "bootstrap": True})[0].startswith(
        "bootstrap begins a cluster of one"
    )


# ── as bbengfort/raft has it ────────────────────────────────────────────────────────────────────────

SEED = {
    "name": "alpha", "seed": 42, "tick": "500ms", "timeout": "250ms", "aggregate": True, "log_level": "warn",
    "console_log": False, "leader": "bravo", "uptime": "5m", "metrics": "m.jsonl", "peers": PEERS,
}  # fmt: skip


def test_a_file_of_the_other_program_is_understood(write: Write) -> None:
    path = write("work/raft.json", json.dumps(SEED))

    config = load()

    assert config.config_file == path.name
    assert (config.node_name, config.first_leader, config.log_level) == ("alpha", "bravo", "warning")
    assert (config.heartbeat_interval_ms, config.dial_timeout_ms) == (500, 250)
    assert (config.election_timeout_ms_min, config.election_timeout_ms_max) == (1000, 2000)
    assert config.log_format == "json"
    assert (config.rpc_port, len(config.peers)) == (3264, 3)
    assert config.unused == tuple(f"{path.name}: {key}" for key in ("seed", "aggregate", "uptime", "metrics"))


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("toml", 'name = "bravo"\n[[peers]]\nname = "bravo"\nip_address = "10.0.0.2"\nport = 3265\n'),
        ("yaml", "name: bravo\npeers:\n- name: bravo\n  ip_address: 10.0.0.2\n  port: 3265\n"),
        ("yml", "name: bravo\npeers:\n- {name: bravo, ip-address: 10.0.0.2, port: 3265}\n"),
    ],
)
def test_it_may_be_toml_or_yaml_and_our_times_are_the_defaults(write: Write, ending: str, text: str) -> None:
    write(f"home/.raft.{ending}", text)

    config = load()

    assert [peer.address for peer in config.peers] == ["10.0.0.2:3265"]
    assert config.raft_config() == RaftConfig()
    assert config.unused == ()


def test_such_files_are_searched_in_its_order_and_behind_ours(write: Write) -> None:
    places = [
        "work/raftlog.toml",
        "etc/raftlog.json",
        "work/raft.toml",
        "work/raft.json",
        "home/.raft.yml",
        "etc/raft.yaml",
    ]
    for number, place in enumerate(places):
        text = f"rpc-port = {number}" if place.endswith("toml") else f'{{"rpc-port": {number}}}'
        write(place, text)

    found = []
    for place in places:
        found.append(load().rpc_port)
        (Path.cwd().parent / place).unlink()

    assert found == list(range(len(places)))


def test_its_variables_override_files_and_ours_override_them(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("elsewhere.json", json.dumps(SEED))
    for key, value in {
        "CONFIG": str(path), "NAME": "bravo", "TICK": "1s", "TIMEOUT": "2s", "LEADER": "", "SEED": "7",
        "LOG_LEVEL": "error", "CONSOLE_LOG": "true", "ENDPOINT": "alpha",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"RAFT_{key}", value)
    monkeypatch.setenv("RAFTLOG_LOG_LEVEL", "debug")

    config = load()

    assert (config.config_file, config.node_name, config.first_leader) == (str(path), "bravo", None)
    assert (config.heartbeat_interval_ms, config.election_timeout_ms_max) == (1000, 4000)
    assert (config.dial_timeout_ms, config.log_level, config.log_format) == (2000, "debug", "console")
    assert config.unused[-1] == "environment: RAFT_SEED"


def test_our_variable_for_the_file_comes_before_its(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTLOG_CONFIG_FILE", str(write("ours.toml", "rpc-port = 1")))
    monkeypatch.setenv("RAFTCONF", str(write("its.toml", "rpc-port = 2")))
    assert load().rpc_port == 1

    monkeypatch.delenv("RAFTLOG_CONFIG_FILE")
    assert load().rpc_port == 2


@pytest.mark.parametrize(
    ("value", "form"), [(True, "console"), (False, "json"), ("0", "json"), ("on", "console")]
)
def test_false_in_a_file_counts_as_much_as_true(write: Write, value: object, form: str) -> None:
    write("work/raft.json", json.dumps({"console_log": value}))

    assert load().log_format == form


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("tick", "soon", "not a duration; write 10s, 5m, 1h30m, 7d or a number of milliseconds"),
        ("tick", None, "not a duration; write 100ms or 1s"),
        ("tick", True, "not a number"),
        ("timeout", 0, "should be greater than or equal to 1"),
        ("console_log", "maybe", "neither true nor false"),
        ("log_level", 5, "should be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_its_values_are_checked(write: Write, key: str, value: object, problem: str) -> None:
    path = write("work/raft.json", json.dumps({key: value}))

    assert problems() == [f"{path.name}: {key} is {value!r}: {problem}"]


def test_a_tick_of_nothing_is_one_problem(write: Write) -> None:
    write("work/raft.json", '{"tick": "0s"}')

    assert problems() == ["raft.json: tick is 0: should be greater than or equal to 1"]


def test_a_key_in_both_languages_is_refused(write: Write) -> None:
    write("work/raft.json", '{"name": "a", "node-name": "b"}')

    assert problems() == ["raft.json: node-name is set twice, by name and by node-name"]


def test_a_config_that_is_built_by_a_program_finds_no_fault_with_peers() -> None:
    config = ServerConfig(insecure=True, node_name="bravo", peers=PEERS, rpc_port=0)  # type: ignore[arg-type]

    assert (config.rpc_port, [peer.name for peer in config.peers]) == (0, ["alpha", "bravo", "charlie"])
