"""What deploy/ and its page say to type exists: settings, variables, commands, options, files."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from raftlog.cli import COMMANDS, connection
from raftlog.config import ServerConfig
from tests.deploy.assets import DEPLOY, PAGE, REPOSITORY

FILES = [*sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc"), PAGE]
COMMAND = re.compile(r"(?:^|[\s/`(])raftlog ([a-z].*)")
OPTION = re.compile(r"--[a-z][a-z-]*")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_variable_is_a_setting(path: Path) -> None:
    of_servers = {f"RAFTLOG_{field.upper()}" for field in ServerConfig.model_fields}
    of_clients = set(re.findall(r"RAFTLOG_CLIENT_\w+", inspect.getsource(connection)))

    named = set(re.findall(r"RAFTLOG_[A-Z_]+", path.read_text())) - {"RAFTLOG_"}

    assert named <= of_servers | of_clients


def typed_commands(text: str) -> Iterator[list[str]]:
    """Words after `raftlog`, of what is to be typed or is run."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        found = COMMAND.search(line)
        if found and (line.startswith(("    ", "sudo ", "raftlog ", "$ ")) or "raftlog " in line):
            yield re.split(r"[`|;>&)]", found.group(1))[0].split()


def options_of(words: list[str]) -> set[str] | None:
    """Those that the command knows; None if there is no such command."""
    if words[0] not in COMMANDS:
        return None
    command = typer.main.get_command(import_module(f"raftlog.cli.{words[0]}").app)
    if isinstance(command, TyperGroup):
        following = next((word for word in words[1:] if not word.startswith("-")), "")
        if following not in command.commands:
            return None
        command = command.commands[following]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_every_command_of_the_page_exists_with_its_options() -> None:
    commands = [
        words
        for block in code_of(PAGE.read_text())
        for words in typed_commands(block)
        if words[0] in COMMANDS
    ]

    wrong = [
        shlex.join(words)
        for words in commands
        if (known := options_of(words)) is None
        or not {found for word in words for found in OPTION.findall(word.partition("=")[0])} <= known
    ]

    assert len(commands) > 20
    assert wrong == []


def code_of(markdown: str) -> list[str]:
    """What is to be typed: blocks, and words between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`\n]+)`", rest)]


def test_every_file_that_the_page_names_exists() -> None:
    text = PAGE.read_text()
    links = [PAGE.parent / link for link in re.findall(r"\]\(([^):#]+)", text)]
    named = [REPOSITORY / name for name in re.findall(r"(?<![\w/.])deploy/[\w/.-]*\w", text)]

    assert [path for path in (*links, *named) if not path.exists()] == []
    assert len(named) > 5
