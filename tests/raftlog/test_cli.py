from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest
import typer

from logstore.errors import LogClosed
from raftlog import cli
from raftlog.cli import COMMANDS, make_app, run
from raftlog.errors import ConfigError, RaftlogError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], None]:
    """Adds a command `try` that raises what it is given."""

    def add(error: BaseException | None) -> None:
        app = make_app()

        @app.command()
        def attempt() -> None:
            if error is not None:
                raise error

        module = ModuleType("raftlog.cli.try")
        module.app = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "raftlog.cli.try", module)
        monkeypatch.setitem(cli.COMMANDS, "try", "Try.")

    return add


# ── the frame ───────────────────────────────────────────────────────────────────────────────────────


def test_help_lists_every_command_without_importing_one() -> None:
    program = (
        "import sys; from raftlog.cli import run; code = run(['--help']);"
        " heavy = {'grpc', 'numpy', 'pydantic_settings', 'structlog', 'casbin', 'rich'} & set(sys.modules);"
        " sys.exit(f'imported {heavy}' if heavy else code)"
    )

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    for name, line in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert line in done.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_an_app_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(import_module(f"raftlog.cli.{name}").app, typer.Typer)

    assert run([name, "--help"]) == 0

    assert f"raftlog {name}" in capsys.readouterr().out


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raftlog", "--version"], check=True, capture_output=True, text=True
    )

    assert done.stdout.startswith("raftlog")


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2

    assert "Commands:" in "".join(capsys.readouterr())


def test_an_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cert", "init"]) == 2

    assert "Did you mean 'certs'?" in capsys.readouterr().err


# ── exit codes and errors ───────────────────────────────────────────────────────────────────────────


def test_a_command_that_returns_ends_with_0(command: Callable[[BaseException | None], None]) -> None:
    command(None)

    assert run(["try"]) == 0


@pytest.mark.parametrize("error", [RaftlogError("it broke"), LogClosed("it broke"), OSError("it broke")])
def test_an_expected_error_is_one_line_and_exit_code_1(
    command: Callable[[BaseException | None], None], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    command(error)

    assert run(["try"]) == 1

    assert capsys.readouterr().err == "raftlog: it broke\n"


def test_each_problem_of_the_configuration_is_one_line_and_exit_code_2(
    command: Callable[[BaseException | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(ConfigError(["one", "two"]))

    assert run(["try"]) == 2

    assert capsys.readouterr().err == "raftlog: one\nraftlog: two\n"


def test_an_unexpected_error_is_one_line_with_its_kind(
    command: Callable[[BaseException | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(KeyError("missing"))

    assert run(["try"]) == 1

    expected = "raftlog: unexpected KeyError: 'missing' (raftlog --debug shows where)\n"
    assert capsys.readouterr().err == expected


def test_an_error_without_text_shows_its_kind(
    command: Callable[[BaseException | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(RaftlogError())

    assert run(["try"]) == 1

    assert capsys.readouterr().err == "raftlog: RaftlogError\n"


def test_debug_shows_where_an_error_comes_from(
    command: Callable[[BaseException | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(RaftlogError("it broke"))

    assert run(["--debug", "try"]) == 1

    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "it broke" in shown


def test_ctrl_c_ends_quietly_with_130(
    command: Callable[[BaseException | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(KeyboardInterrupt())

    assert run(["try"]) == 130

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 3)])
def test_a_command_may_choose_its_exit_code(
    command: Callable[[BaseException | None], None], code: int, expected: int
) -> None:
    command(typer.Exit(code))

    assert run(["try"]) == expected
