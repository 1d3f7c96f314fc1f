"""The command line. Each command is a module of this package with a Typer `app`, imported when it is run.

Exit codes: 0 done; 1 it failed; 2 the command line or the configuration is wrong; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from raftlog.errors import ConfigError, RaftlogError

# command, which is also the name of its module: its line in the help
COMMANDS: Final = {
    "serve": "Run a server.",
    "produce": "Append lines as records.",
    "consume": "Print records.",
    "groups": "List groups of consumers and how far they have come.",
    "servers": "List the servers of the cluster.",
    "status": "Ask every server how it is.",
    "members": "List who was found beside who is a member.",
    "autopilot": "Show what the leader makes of that, or switch it.",
    "keys": "Change the keys of the gossip.",
    "join": "Make a server a member of the cluster.",
    "leave": "Remove a server from the cluster.",
    "promote": "Let a learner vote.",
    "transfer": "Hand over leadership.",
    "snapshot": "Have a server write a snapshot.",
    "truncate": "Forget the oldest records.",
    "backup": "Copy the log into a folder.",
    "restore": "Fill an empty cluster from a folder.",
    "mirror": "Copy a log from one cluster to another.",
    "recover": "Make a cluster of one server out of what is left.",
    "bench": "Measure a running cluster.",
    "cluster": "Run a cluster on this machine, for trying things.",
    "demo": "Run servers, produce, kill the leader, consume, compare.",
    "certs": "Make certificates and keys for servers and clients.",
}

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells do


@dataclass(slots=True)
class CommandLine:
    """What was given before the command."""

    debug: bool = False  # set once by `common_options`


class LazyGroup(TyperGroup):
    """Lists the commands without importing them: `raftlog --help` must not wait for grpc or numpy."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update({name: TyperCommand(name=name, help=line) for name, line in COMMANDS.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            return super().resolve_command(ctx, args)
        module = import_module(f"raftlog.cli.{args[0]}")
        return args[0], typer.main.get_command(module.app), args[1:]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None


def make_app(**attributes: Any) -> typer.Typer:
    """A Typer as all commands use it: plain help, which is quick and can be copied, and no shell set-up options."""
    return typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **attributes,
    )


app = make_app(cls=LazyGroup, no_args_is_help=True)


def show_version(is_asked: bool) -> None:
    if not is_asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"raftlog {version('raftlog')}")
    except PackageNotFoundError:
        typer.echo("raftlog, not installed as a package")
    raise typer.Exit


@app.callback()
def common_options(
    context: typer.Context,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """A replicated commit log.

    Exit codes: 0 done, 1 failed, 2 wrong command line or configuration, 130 ended by Ctrl-C.
    """
    context.obj.debug = debug


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default this process's, and return its exit code. Never raises an Exception."""
    command_line = CommandLine()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it has to say reaches the user in our words
    try:
        app(arguments, prog_name="raftlog", obj=command_line)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED if end.code else 0
    except Exception as error:  # noqa: BLE001  # nothing is above this that could tell the user
        return report(error, debug=command_line.debug)
    return 0


def report(error: Exception, *, debug: bool) -> int:
    """Tell the user and return the exit code."""
    if debug:
        traceback.print_exception(error)
    elif is_expected(error):
        for line in text_of(error).splitlines():
            print(f"raftlog: {line}", file=sys.stderr)
    else:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"raftlog: unexpected {text} (raftlog --debug shows where)", file=sys.stderr)
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def text_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def is_expected(error: Exception) -> bool:
    """Whether the text alone tells the user what to do; any other error is a bug until shown otherwise."""
    if isinstance(error, RaftlogError | OSError):
        return True
    return type(error).__module__ == "logstore.errors"  # without importing the engine, and numpy with it
