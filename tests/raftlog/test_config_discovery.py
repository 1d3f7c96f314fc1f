"""Settings of how servers find each other, and of what the leader makes of that."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import pytest

from raftlog.autopilot.settings import AutopilotSettings
from raftlog.config import ServerConfig
from raftlog.config_sources import load_config
from raftlog.errors import ConfigError
from tests.raftlog.configuring import Write, load, problems

pytestmark = pytest.mark.usefixtures("nowhere")

TLS = {f"server_tls_{part}_file": f"{part}.pem" for part in ("cert", "key", "ca")}
PEERS = [{"name": "alpha", "ip_address": "10.0.0.1", "port": 1}]
KEY = base64.b64encode(bytes(32)).decode()


# ── discovery ───────────────────────────────────────────────────────────────────────────────────────


def test_servers_gossip_unless_their_members_are_fixed(write: Write) -> None:
    peers = str(write("peers.json", json.dumps({"peers": PEERS, "name": "alpha"})))

    assert load().discovery == "gossip"
    assert load({"config_file": peers}).discovery == "off"
    assert load({"config_file": peers, "start_join_addrs": "a:1"}).discovery == "gossip"
    assert load({"config_file": peers, "discovery": "gossip"}).discovery == "gossip"
    assert load({"config_file": peers, "discovery": "static"}).discovery == "static"
    assert load({"engine": "pysyncobj"}).discovery == "off"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "discovery: off\nautopilot-mode: off\n"),
        ("a.json", '{"discovery": "Off", "autopilot-mode": "OFF"}'),
    ],
)
def test_off_is_a_choice_in_every_kind_of_file(write: Write, name: str, text: str) -> None:
    config = load({"config_file": str(write(name, text))})

    assert (config.discovery, config.autopilot_mode) == ("off", "off")


def test_defaults_of_discovery_and_autopilot() -> None:
    config = load()

    assert (config.start_join_addrs, config.advertise_addr, config.gossip_profile) == ((), None, "lan")
    assert (config.gossip_key_file, config.discovery_dns_names, config.leave_on_terminate) == (
        None,
        (),
        False,
    )
    assert (config.autopilot_mode, config.autopilot_last_contact_ms_max) == ("act", 1000)
    assert (config.autopilot_trailing_entries_max, config.autopilot_stabilisation_ms) == (250, 10_000)
    assert (config.autopilot_voters_max, config.autopilot_voters_min) == (None, 3)
    assert config.autopilot_remove_failed_ms == 24 * 3600 * 1000


def test_settings_of_discovery_and_autopilot_have_units() -> None:
    config = load(
        {"start_join_addrs": "a:1,b:2", "bootstrap": True, "advertise_addr": "a:3", "gossip_profile": "WAN",
         "leave_on_terminate": True, "autopilot_mode": "Advise", "autopilot_last_contact_ms_max": "2s",
         "autopilot_trailing_entries_max": "1000", "autopilot_stabilisation_ms": "1m", "autopilot_voters_max": "5",
         "autopilot_voters_min": "5", "autopilot_remove_failed_ms": "off"}
    )  # fmt: skip

    assert (config.start_join_addrs, config.bootstrap, config.advertise_addr) == (("a:1", "b:2"), True, "a:3")
    assert (config.gossip_profile, config.leave_on_terminate) == ("wan", True)
    assert (config.autopilot_mode, config.autopilot_last_contact_ms_max) == ("advise", 2000)
    assert (config.autopilot_trailing_entries_max, config.autopilot_stabilisation_ms) == (1000, 60_000)
    assert (config.autopilot_voters_max, config.autopilot_voters_min) == (5, 5)
    assert config.autopilot_remove_failed_ms is None


def test_settings_reach_the_autopilot_and_their_defaults_are_its_own() -> None:
    assert load().autopilot_settings() == AutopilotSettings()
    assert load(
        {"autopilot_mode": "off", "autopilot_last_contact_ms_max": "1500ms", "autopilot_trailing_entries_max": "7",
         "autopilot_stabilisation_ms": "500ms", "autopilot_voters_max": "5", "autopilot_voters_min": "1",
         "autopilot_remove_failed_ms": "1h"}
    ).autopilot_settings() == AutopilotSettings(
        mode="off", last_contact_s_max=1.5, trailing_entries_max=7, stabilisation_s=0.5, voters_max=5, voters_min=1,
        remove_failed_after_s=3600.0,
    )  # fmt: skip
    assert load({"autopilot_remove_failed_ms": "off"}).autopilot_settings().remove_failed_after_s == math.inf


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"discovery": "off", "start_join_addrs": "a:1"}, "start-join-addrs: of no use, because discovery is off"),
        (
            {"discovery": "dns", "advertise_addr": "a:1", "gossip_key_file": "k", "discovery_dns_names": "_a.b"},
            "advertise-addr, gossip-key-file: of no use, because discovery is dns; set discovery to gossip",
        ),
        ({"discovery_dns_names": "a:1"}, "discovery-dns-names: of no use, because discovery is gossip"),
        ({"discovery": "dns"}, "discovery is dns, and no names are given"),
        ({"discovery": "static"}, "discovery is static, and there is no list to find servers in: give peers"),
        (
            {"engine": "pysyncobj", "discovery": "gossip"},
            "discovery gossip goes with the engine raft, not with pysyncobj; set it to off",
        ),
        (
            {"discovery": "dns", "discovery_dns_names": "headless"},
            "flag: --discovery-dns-names is 'headless': not host:port",
        ),
        (
            {"discovery": "dns", "discovery_dns_names": "headless:0"},
            "flag: --discovery-dns-names is 'headless:0': port 0 is none",
        ),
        ({"discovery": "mdns"}, "flag: --discovery is 'mdns': should be 'gossip', 'dns', 'static' or 'off'"),
        ({"gossip_profile": "slow"}, "flag: --gossip-profile is 'slow': should be 'lan', 'wan', 'local' or 'fast'"),
        ({"start_join_addrs": "a"}, "flag: --start-join-addrs is 'a': not host:port"),
        ({"autopilot_mode": "on"}, "flag: --autopilot-mode is 'on': should be 'act', 'advise' or 'off'"),
        ({"autopilot_stabilisation_ms": "0"}, "flag: --autopilot-stabilisation-ms is '0': should be greater"),
        (
            {"autopilot_last_contact_ms_max": "199ms"},
            "autopilot-last-contact-ms-max 199 is less than twice heartbeat-interval-ms 100",
        ),
        ({"autopilot_voters_max": "2"}, "autopilot-voters-min 3 <= autopilot-voters-max 2 must hold"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(flags: dict[str, object], problem: str) -> None:
    (line,) = problems(flags)

    assert line.startswith(problem)


def test_names_of_dns_are_hosts_with_a_port_or_of_srv_records() -> None:
    names = "headless.svc:8400, _raftlog._tcp.example.org,[::1]:8400"

    config = load({"discovery": "dns", "discovery_dns_names": names})

    assert config.discovery_dns_names == ("headless.svc:8400", "_raftlog._tcp.example.org", "[::1]:8400")


def test_how_long_the_leader_may_hear_nothing_follows_the_heartbeat() -> None:
    config = load(
        {"heartbeat_interval_ms": "2s", "election_timeout_ms_min": "4s", "election_timeout_ms_max": "8s"}
    )

    assert config.autopilot_last_contact_ms_max == 6000


@pytest.mark.parametrize(
    "others", [{"start_join_addrs": "a:1"}, {"discovery": "dns", "discovery_dns_names": "a:1"}]
)
def test_a_server_that_looks_for_others_needs_a_certificate_for_them(others: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="^no certificate for connections to other servers"):
        load_config({**TLS, **others})


def test_a_setting_that_is_wrong_does_not_make_others_look_wrong() -> None:
    (line,) = problems({"heartbeat_interval_ms": "soon"})

    assert line.startswith("flag: --heartbeat-interval-ms is 'soon': not a duration")


# ── keys of the gossip ──────────────────────────────────────────────────────────────────────────────


def test_keys_are_read_when_the_settings_are(nowhere: Path) -> None:
    path = nowhere / "keys"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)

    assert load({"gossip_key_file": str(path)}).gossip_keys() == (bytes(32),)
    assert load().gossip_keys() == ()


def test_a_file_of_keys_that_is_no_use_is_a_problem_of_the_configuration(nowhere: Path) -> None:
    path = nowhere / "keys"
    assert problems({"gossip_key_file": str(path)}) == [f"{path}: No such file or directory"]

    path.write_text(f"{KEY}\n")
    path.chmod(0o644)

    assert problems({"gossip_key_file": str(path)}) == [
        f"{path}: others may read or write these keys (mode 0644): chmod 600 {path}"
    ]


def test_a_config_that_a_program_builds_reads_no_keys() -> None:
    assert ServerConfig(insecure=True, gossip_key_file="/nowhere").gossip_key_file == "/nowhere"
