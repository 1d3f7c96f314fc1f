from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raftlog.sim.cli import run_command_line
from raftlog.sim.cli.check import ModelName
from raftlog.sim.models import MODELS

GOOD = """\
INFO  jepsen.util - 0\t:invoke\t:write\t1
INFO  jepsen.util - 0\t:ok\t:write\t1
INFO  jepsen.util - 1\t:invoke\t:read\tnil
INFO  jepsen.util - 1\t:ok\t:read\t1
"""
STALE = GOOD.replace(":ok\t:read\t1", ":ok\t:read\tnil")
GOOD_APPENDS = """\
{:process 0, :type :invoke, :f :append, :key "k", :value "x"}
{:process 0, :type :ok, :f :append, :key "k", :value "x"}
{:process 1, :type :invoke, :f :get, :key "k", :value nil}
{:process 1, :type :ok, :f :get, :key "k", :value "x"}
"""
TWICE_APPENDED = GOOD_APPENDS.replace('"x"}\n', '"xx"}\n').replace('"xx"', '"x"', 2)


def file_of(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(
    ("model", "good", "bad"), [("register", GOOD, STALE), ("kv-append", GOOD_APPENDS, TWICE_APPENDED)]
)
def test_a_line_for_each_file_and_failure_if_one_is_wrong(
    model: str, good: str, bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = file_of(tmp_path, "1", good), file_of(tmp_path, "2", bad)

    assert run_command_line(["check", "--model", model, first, first]) == 0
    assert capsys.readouterr().out == f"{first}: linearizable\n" * 2
    assert run_command_line(["check", "--model", model, second, first]) == 1
    assert capsys.readouterr().out == f"{second}: not linearizable\n{first}: linearizable\n"


def test_explanation_of_a_wrong_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, "stale", STALE)

    assert run_command_line(["check", "--model", "register", "--explain", file]) == 1

    assert capsys.readouterr().out.splitlines() == [
        f"{file}: not linearizable",
        "    key register: an order of 1 operations makes sense; it ends with",
        "      0 1..2: write register '1' -> None",
        "    the value is then '1', and this fits nowhere:",
        "      1 3..4: read register -> None",
    ]


def test_search_that_is_given_up_is_not_called_linearizable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, "good", GOOD)

    assert run_command_line(["check", "--model", "register", "--steps-max", "0", "--explain", file]) == 2

    assert capsys.readouterr().out.splitlines() == [
        f"{file}: undecided",
        "    key register: given up after 0 steps; --steps-max allows more",
    ]


def test_file_that_cannot_be_read_is_named_and_the_others_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    garbage = file_of(tmp_path, "garbage", GOOD + "what?\n")
    good = file_of(tmp_path, "good", GOOD)

    assert run_command_line(["check", "--model", "register", garbage, str(tmp_path / "absent"), good]) == 2

    output = capsys.readouterr()
    assert output.out == f"{good}: linearizable\n"
    assert output.err.splitlines() == [
        f"check: {garbage}: line 5: not an event of a register: 'what?'",
        f"check: {tmp_path / 'absent'}: No such file or directory",
    ]


def test_a_wrong_history_weighs_more_than_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    garbage, stale = file_of(tmp_path, "garbage", "what?"), file_of(tmp_path, "stale", STALE)

    assert run_command_line(["check", "--model", "register", garbage, stale, garbage]) == 1


@pytest.mark.parametrize(
    "arguments", [["check"], ["check", "--model", "register"], ["check", "--model", "x", "y"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_every_model_can_be_named() -> None:
    assert [name.value for name in ModelName] == list(MODELS)


def test_module_can_be_run(tmp_path: Path) -> None:
    file = file_of(tmp_path, "stale", STALE)

    done = subprocess.run(
        [sys.executable, "-m", "raftlog.sim", "check", "--model", "register", file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (1, f"{file}: not linearizable\n", "")
