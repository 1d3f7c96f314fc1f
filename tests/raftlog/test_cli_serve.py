from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from raftlog.cli import run
from raftlog.cli.serve import FILE_ONLY
from raftlog.config import ServerConfig


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """The configs that `raftlog.server_main.run` was called with; it returns 3."""
    configs: list[ServerConfig] = []

    def run_agent(config: ServerConfig) -> int:
        configs.append(config)
        return 3

    server_main = ModuleType("raftlog.server_main")
    server_main.run = run_agent  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "raftlog.server_main", server_main)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("RAFTLOG_")]:
        monkeypatch.delenv(variable)
    return configs


def test_flags_reach_the_agent_and_its_exit_code_comes_back(started: list[ServerConfig]) -> None:
    flags = ["--insecure", "--rpc-port", "0", "--segment-bytes-max=1MiB", "--retention-age-ms-max", "7d"]

    assert run(["serve", *flags, "--start-join-addrs", "a:1,b:2", "--start-join-addrs", "c:3"]) == 3

    expected = ServerConfig(
        insecure=True,
        rpc_port=0,
        segment_bytes_max=2**20,
        retention_age_ms_max=7 * 86_400_000,
        start_join_addrs=("a:1", "b:2", "c:3"),
    )
    assert started == [expected]


@pytest.mark.parametrize("flag", ["--bootstrap=false", "--no-bootstrap", "--bootstrap=False"])
def test_a_switch_is_taken_back_by_flag(started: list[ServerConfig], tmp_path: Path, flag: str) -> None:
    (tmp_path / "raftlog.toml").write_text("bootstrap = true\ninsecure = true\n")

    assert run(["serve", flag]) == 3

    assert started[0].bootstrap is False


@pytest.mark.parametrize("flag", ["--bootstrap=true", "--bootstrap"])
def test_a_switch_is_turned_on_by_flag(started: list[ServerConfig], flag: str) -> None:
    assert run(["serve", "--insecure", flag]) == 3

    assert started[0].bootstrap is True


def test_a_switch_takes_no_other_value(
    started: list[ServerConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--insecure", "--bootstrap=maybe"]) == 2

    assert "--bootstrap" in capsys.readouterr().err
    assert started == []


def test_flags_that_are_not_given_leave_the_file_alone(started: list[ServerConfig], tmp_path: Path) -> None:
    (tmp_path / "raftlog.toml").write_text('insecure = true\nrpc-port = 5\nstart-join-addrs = "a:1"\n')

    assert run(["serve"]) == 3

    assert (started[0].rpc_port, started[0].start_join_addrs) == (5, ("a:1",))


def test_a_bad_value_is_one_line_and_exit_code_2(
    started: list[ServerConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--insecure", "--rpc-port", "x"]) == 2

    assert capsys.readouterr().err == "raftlog: flag: --rpc-port is 'x': not a whole number\n"
    assert started == []


def test_an_unknown_flag_suggests_the_nearest(
    started: list[ServerConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--rpc-prot", "1"]) == 2

    assert "--rpc-port" in capsys.readouterr().err
    assert started == []


def test_help_shows_every_key_below_its_group(
    started: list[ServerConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--help"]) == 0

    shown = capsys.readouterr().out
    for field in [name for name in ServerConfig.model_fields if name not in FILE_ONLY]:
        assert f"--{field.replace('_', '-')}" in shown
    assert [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "Node:", "Addresses:", "Security:", "Log:", "Cluster:", "Discovery:", "Autopilot:", "Limits:", "Logging:",
        "Other:",
    ]  # fmt: skip
    assert "[default: 64MiB]" in shown
    assert "[default: 10s]" in shown
    assert "[default: 100ms]" in shown
    assert "[default: 1d]" in shown
    for option in (
        "--discovery-dns-names NAME,...", "--advertise-addr HOST:PORT", "--gossip-key-file FILE",
        "--autopilot-voters-min COUNT", "--autopilot-last-contact-ms-max DURATION", "--gossip-profile CHOICE",
        "--leave-on-terminate / --no-leave-on-terminate",
    ):  # fmt: skip
        assert option in shown, option
