"""Three servers with compose: what the file says of them fits together, and its secrets are made once."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raftlog.config import ServerConfig
from raftlog.config_keys import parse_keys
from tests.deploy.assets import (
    COMPOSE,
    compose,
    compose_nodes,
    image_settings,
    settings_of,
    stop_s,
    without_our_variables,
)

NODES = compose_nodes()
CERTS = "/etc/raftlog/certs"


def config_of(service: Mapping[str, Any]) -> ServerConfig:
    """What `raftlog serve` makes of the image's settings, the environment and the command."""
    switches = {word.removeprefix("--").replace("-", "_"): True for word in service["command"][1:]}
    return ServerConfig(**image_settings() | settings_of(service["environment"]) | switches)


CONFIGS = {name: config_of(service) for name, service in NODES.items()}


def test_there_are_three_and_one_begins_the_cluster() -> None:
    assert len(CONFIGS) == 3
    assert [name for name, config in CONFIGS.items() if config.bootstrap] == ["raftlog-1"]


def test_each_is_what_the_others_look_for() -> None:
    addresses = tuple(f"{name}:8401" for name in NODES)

    assert {config.start_join_addrs for config in CONFIGS.values()} == {addresses}
    assert all(service["hostname"] == name for name, service in NODES.items())
    assert {name: config.node_name for name, config in CONFIGS.items()} == {name: name for name in NODES}
    assert all(config.bind_addr == "0.0.0.0:8401" for config in CONFIGS.values())


def test_each_is_reached_at_the_same_port_from_within_and_from_outside() -> None:
    for name, config in CONFIGS.items():
        assert config.rpc_advertise_addr == f"{name}:{config.rpc_port}"
        assert f"127.0.0.1:{config.rpc_port}:{config.rpc_port}" in NODES[name]["ports"]
    published = [port.split(":")[1] for service in NODES.values() for port in service["ports"]]
    assert len(published) == len(set(published))


def test_commands_within_know_all_servers() -> None:
    addresses = ",".join(str(config.rpc_advertise_addr) for config in CONFIGS.values())

    assert all(service["environment"]["RAFTLOG_CLIENT_ADDR"] == addresses for service in NODES.values())


def test_certificates_and_gossip_are_those_of_the_volume_which_servers_only_read() -> None:
    for config in CONFIGS.values():
        files = [value for field, value in config if field.endswith("_file") and value is not None]
        assert len(files) == 9
        assert all(Path(str(file)).parent == Path(CERTS) for file in files)
    for number, service in enumerate(NODES.values(), 1):
        assert service["volumes"] == [f"data-{number}:/var/lib/raftlog", f"certs:{CERTS}:ro"]
        assert service["depends_on"] == {"secrets": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", compose()["services"])
def test_no_container_has_rights_or_writes_outside_its_volumes(name: str) -> None:
    service = compose()["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service


@pytest.mark.parametrize("service", NODES.values(), ids=NODES)
def test_a_server_is_given_the_time_that_it_takes_to_stop(service: Mapping[str, Any]) -> None:
    assert int(service["stop_grace_period"].removesuffix("s")) >= stop_s()


@pytest.mark.parametrize("service", NODES.values(), ids=NODES)
def test_a_server_is_healthy_once_it_serves(service: Mapping[str, Any]) -> None:
    test = service["healthcheck"]["test"]

    assert test == ["CMD", "python", "-I", "/usr/local/lib/raftlog/health.py", "/readyz"]


def test_every_volume_is_declared_and_used() -> None:
    used = {
        volume.partition(":")[0]
        for service in compose()["services"].values()
        for volume in service["volumes"]
    }

    assert used == set(compose()["volumes"])


# ── its secrets ─────────────────────────────────────────────────────────────────────────────────────


def make_secrets(folder: Path) -> None:
    """What the service of that name does, with its folder elsewhere."""
    service = compose()["services"]["secrets"]
    (script,) = service["command"]
    assert f"cd {CERTS}\n" in script
    subprocess.run(
        [*service["entrypoint"], script.replace(CERTS, str(folder))],
        env=without_our_variables() | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        check=True,
        timeout=60,
    )


def test_secrets_are_made_once_and_are_for_the_servers_alone(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make_secrets(tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert len(parse_keys(first["gossip.key"].decode())) == 1
    for path in [tmp_path / "gossip.key", *tmp_path.glob("*-key.pem")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    used = {
        Path(str(value)).name for config in CONFIGS.values() for field, value in config if "_file" in field
    }
    assert used - {"None"} <= first.keys()


def test_certificates_are_for_the_names_of_the_servers() -> None:
    (script,) = compose()["services"]["secrets"]["command"]

    assert re.findall(r"--host (\S+)", script) == list(NODES)


def test_no_secret_is_in_the_file() -> None:
    text = COMPOSE.read_text()

    assert "BEGIN" not in text
    assert not re.search(r"[A-Za-z0-9+/]{22,}={1,2}", text)
