"""`raftlog serve`: flags -> ServerConfig -> a running server. The flags are the fields of ServerConfig."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from raftlog.cli import make_app
from raftlog.config import MIB, ServerConfig
from raftlog.config_sources import key_of, load_config

app = make_app()

FILE_ONLY = ("peers",)  # keys that no flag or variable can hold


def is_switch(field: FieldInfo) -> bool:
    return field.annotation is bool


def spell_out(argument: str) -> str:
    """`--bootstrap=false` as `--no-bootstrap`: scripts written for proglog, and a list of flags, say it so."""
    flag, _, value = argument.partition("=")
    field = ServerConfig.model_fields.get(flag.removeprefix("--").replace("-", "_"))
    if not flag.startswith("--") or field is None or not is_switch(field):
        return argument
    return {"true": flag, "false": f"--no-{flag.removeprefix('--')}"}.get(value.lower(), argument)


class ServeCommand(TyperCommand):
    """Groups its options in the help as ServerConfig does."""

    def parse_args(self, ctx: Any, args: Sequence[str]) -> list[str]:
        return super().parse_args(ctx, [spell_out(argument) for argument in args])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(group_of(parameter.name or ""), []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def group_of(field: str) -> str:
    if field not in ServerConfig.model_fields:
        return "Other"
    more = ServerConfig.model_fields[field].json_schema_extra
    assert isinstance(more, dict)
    return str(more["group"])


def as_parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """The option for a field. All are given on as they were typed: ServerConfig parses, whatever the source."""
    flag = f"--{key_of(name)}"
    if is_switch(field):
        option = typer.Option(f"{flag}/--no-{key_of(name)}", help=field.description, show_default=False)
        annotation: object = Annotated[bool | None, option]
    else:
        option = typer.Option(flag, help=help_of(name, field), metavar=metavar_of(name), show_default=False)
        is_list = name.endswith(("_addrs", "_names"))
        annotation = Annotated[list[str] | None if is_list else str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def help_of(name: str, field: FieldInfo) -> str:
    if field.default_factory_takes_validated_data:
        return str(field.description)  # which says what it depends on
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = "" if default is None or default == () else f" [default: {show_default(name, default)}]"
    return f"{field.description}{shown}"


def show_default(name: str, default: object) -> str:
    """As one would write it."""
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, int) and "_bytes" in name and default % MIB == 0:
        return f"{default // MIB}MiB"
    if isinstance(default, int) and "_ms" in name:
        units = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
        return next(f"{default // size}{unit}" for unit, size in units if default % size == 0)
    return str(default)


def metavar_of(name: str) -> str:
    endings = {
        "_file": "FILE", "_dir": "FOLDER", "_port": "PORT", "_addr": "HOST:PORT", "_addrs": "HOST:PORT,...",
        "_host": "HOST", "bytes_max": "SIZE", "_bytes": "SIZE", "_bytes_per_s": "SIZE", "_ms": "DURATION",
        "_ms_min": "DURATION", "_ms_max": "DURATION", "_name": "NAME", "_names": "NAME,...", "_leader": "NAME",
        "_entries": "COUNT", "_max": "COUNT", "voters_min": "COUNT",
    }  # fmt: skip
    return next((metavar for ending, metavar in endings.items() if name.endswith(ending)), "CHOICE")


def with_flags_of_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command, which takes any keywords, the signature that Typer makes options from."""
    fields = ServerConfig.model_fields.items()
    parameters = [as_parameter(name, field) for name, field in fields if name not in FILE_ONLY]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


@app.command(cls=ServeCommand)
@with_flags_of_config
def serve(**flags: object) -> None:
    """Run a server until it is asked to stop (SIGTERM, Ctrl-C).

    Settings come, later ones first, from flags, RAFTLOG_ variables (RAFTLOG_RPC_PORT), and one file: --config-file, or
    the first found of raftlog.toml (.yaml, .yml, .json) here, in ~/.config/raftlog, as ~/.raftlog.toml, in
    /etc/raftlog. Keys are the flags without their dashes in front. A file may also list all members as `peers`; files
    (raft.json) and variables (RAFT_NAME) of bbengfort/raft are understood.

    Sizes are written 64MiB, 64MB or in bytes; durations 10s, 5m, 1h30m, 7d or in milliseconds. "off" takes a limit or
    port away; --no-X or --X=false takes a switch back.
    """
    config = load_config(flags)
    from raftlog.server_main import run  # late: it brings grpc and the engine

    raise typer.Exit(run(config))
