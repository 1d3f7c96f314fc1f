"""The image, as far as that can be known without building one."""

from __future__ import annotations

import fnmatch
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from raftlog.config import ServerConfig
from raftlog.net.addresses import is_wildcard, split_address
from raftlog.server.admin import AdminServer, make_app
from raftlog.server.health import Health
from tests.deploy.assets import IMAGE, REPOSITORY, exec_form, image_settings, instructions

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def all_of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def last(name: str) -> str:
    return all_of(name)[-1]


def test_the_server_is_a_user_without_rights_whose_number_is_fixed() -> None:
    user, group = last("USER").split(":")

    assert int(user) > 0
    assert int(group) > 0
    assert f"--uid {user}" in last("RUN")
    assert f"--gid {group}" in last("RUN")


def test_the_server_is_started_without_a_shell_and_gets_the_signal_that_it_knows() -> None:
    assert exec_form(last("ENTRYPOINT")) + exec_form(last("CMD")) == ["raftlog", "serve"]
    assert last("STOPSIGNAL") == "SIGTERM"


def test_data_are_in_the_volume_that_belongs_to_the_server() -> None:
    data_dir = image_settings()["data_dir"]

    assert last("VOLUME") == data_dir
    assert f"install --directory --owner=raftlog --group=raftlog --mode=0700 {data_dir} " in last("RUN")


def test_settings_of_the_image_are_understood_and_listen_on_every_interface() -> None:
    config = ServerConfig(**image_settings(), insecure=True)

    assert all(map(is_wildcard, (config.rpc_host, config.health_host, config.admin_host)))


def test_exposed_ports_are_those_that_the_settings_open() -> None:
    config = ServerConfig(**image_settings(), insecure=True)
    gossip = split_address(config.bind_addr)[1]

    tcp = {f"{port}/tcp" for port in (config.rpc_port, gossip, config.health_port, config.admin_port)}
    assert set(last("EXPOSE").split()) == tcp | {f"{gossip}/udp"}


def test_the_version_is_that_of_the_package() -> None:
    assert f"VERSION={PROJECT['project']['version']}" in all_of("ARG")


def test_what_the_wheel_is_made_of_is_copied_and_not_ignored() -> None:
    copied = {word for rest in all_of("COPY") for word in rest.split()[:-1]}
    needed = {
        "pyproject.toml",
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
        *PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    }

    assert needed <= copied
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []
    assert [name for name in copied if is_ignored(name)] == []


def test_nothing_else_gets_into_the_build() -> None:
    assert all(map(is_ignored, ("certs", ".git", "tests", ".venv", "three/certs/ca-key.pem")))
    assert is_ignored("raftlog/__pycache__/agent.cpython-313.pyc")


def is_ignored(name: str) -> bool:
    """By the rules of the file: the last pattern that fits it, or a folder above it, decides."""
    lines = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    places = [name, *map(str, Path(name).parents)][:-1] or [name]
    found = False
    for pattern in (line for line in lines if line and not line.startswith("#")):
        bare = pattern.removeprefix("!").removeprefix("**/")
        if any(fnmatch.fnmatch(place, bare) or fnmatch.fnmatch(Path(place).name, bare) for place in places):
            found = not pattern.startswith("!")
    return found


# ── the check of its health ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def admin(health: Health) -> Iterator[AdminServer]:
    server = AdminServer(make_app(health, CollectorRegistry()), host="127.0.0.1", port=0)
    yield server
    server.close()


def check(path: str, port: int) -> tuple[int, str]:
    """Exit code and words of the image's check, as Docker runs it."""
    command = exec_form(last("HEALTHCHECK").partition("CMD")[2])
    assert command[:3] == ["python", "-I", "/usr/local/lib/raftlog/health.py"]
    done = subprocess.run(
        [sys.executable, "-I", str(IMAGE / "health.py"), path],
        env=os.environ | {"RAFTLOG_ADMIN_PORT": str(port)},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_image_is_healthy_while_the_server_runs() -> None:
    assert exec_form(last("HEALTHCHECK").partition("CMD")[2])[3:] == ["/healthz"]


def test_the_check_tells_who_runs_from_who_serves(health: Health, admin: AdminServer) -> None:
    assert check("/healthz", admin.port) == (0, "ok\n")
    assert check("/readyz", admin.port) == (1, "not serving: starting\n")

    health.set_serving(True)

    assert check("/readyz", admin.port) == (0, "serving\n")


def test_the_check_fails_where_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    code, text = check("/healthz", port)

    assert code == 1
    assert text.startswith(f"no answer on port {port}: ")


def test_the_dockerfile_parses_where_docker_is(tmp_path: Path) -> None:
    """`docker build --check` needs no base image, but an engine."""
    if shutil.which("docker") is None:
        pytest.skip("no docker on this machine")
    if subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60).returncode != 0:
        pytest.skip("docker is here, its engine is not")
    done = subprocess.run(
        ["docker", "build", "--check", "-f", str(IMAGE / "Dockerfile"), str(REPOSITORY)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
