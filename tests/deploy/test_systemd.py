"""The unit of systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raftlog.agent import EXIT_REPLACED
from raftlog.cli import EXIT_FAILED, EXIT_USAGE
from raftlog.config import ServerConfig
from raftlog.config_files import parse_file
from tests.deploy.assets import UNIT, fields_of, stop_s


def unit() -> dict[str, list[str]]:
    """All values of each key."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def value_of(key: str) -> str:
    (value,) = unit()[key]
    return value


def test_settings_of_the_example_are_understood() -> None:
    config = ServerConfig(**fields_of(parse_file(UNIT.parent / "raftlog.toml")))

    assert config.data_dir == f"/var/lib/{value_of('StateDirectory')}" == value_of("WorkingDirectory")
    assert config.start_join_addrs
    assert config.gossip_key_file is not None


def test_the_service_runs_as_the_user_that_sysusers_makes() -> None:
    lines = (UNIT.parent / "sysusers.conf").read_text().splitlines()
    (kind, name, *_) = next(line for line in lines if not line.startswith("#")).split()

    assert (kind, name) == ("u", value_of("User"))
    assert value_of("Group") == name


def test_a_server_that_failed_is_started_again_unless_its_settings_are_wrong() -> None:
    assert value_of("Restart") == "on-failure"
    assert value_of("StartLimitIntervalSec") == "0"
    prevented = {int(code) for code in value_of("RestartPreventExitStatus").split()}
    assert prevented == {EXIT_USAGE}
    assert not prevented & {EXIT_FAILED, EXIT_REPLACED}
    assert "SuccessExitStatus" not in unit()


def test_a_server_is_given_the_time_that_it_takes_to_stop() -> None:
    assert int(value_of("TimeoutStopSec").removesuffix("s")) >= stop_s()


def copy_with_programs_of_this_machine(folder: Path) -> Path:
    """The unit as systemd can check it where raftlog is not installed in /opt."""
    path = folder / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/raftlog/bin/raftlog ", f"{sys.executable} -m raftlog "))
    return path


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")
    return program


def test_systemd_finds_nothing_wrong(analyze: str, tmp_path: Path) -> None:
    path = copy_with_programs_of_this_machine(tmp_path)

    done = subprocess.run(
        [analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False, timeout=60
    )

    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_systemd_finds_it_hardly_exposed(analyze: str, tmp_path: Path) -> None:
    path = copy_with_programs_of_this_machine(tmp_path)
    command = [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(path)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
