"""`raftlog keys`: keys that the gossip is encrypted with."""

from __future__ import annotations

import base64
import re
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer
from rich.table import Table

from logstore.cli.output import Json, console, print_json
from raftlog.cli import EXIT_FAILED, make_app
from raftlog.cli.connection import connected
from raftlog.cli.key_rotation import CANNOT_COME_BACK, require_all_present, require_ready
from raftlog.cli.key_rotation import rotate as rotate_keys
from raftlog.client.client import Client
from raftlog.client.membership import KeysAnswer
from raftlog.config_keys import FILE_BYTES_MAX, KEY_BYTES, parse_keys, read_keys
from raftlog.errors import ConfigError
from raftlog.server.gossip_keys import key_id

app = make_app(no_args_is_help=True)

# At least, for a call: members that do not answer are asked three times, and for some changes all are asked twice. Of
# up to 99 members with the profile for wide area networks that takes 96 s.
ALL_ANSWER_S: Final = 120.0
asking_all = partial(connected, timeout_s_min=ALL_ANSWER_S)

_ID: Final = re.compile("[0-9a-f]{16}")

Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY|ID|-",
        help="The key in base64, the id of one as `list` shows it, or - for a key on stdin.",
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="Take the first key of this file, which is for its owner only."
    ),
]

WithoutAbsent = Annotated[
    bool,
    typer.Option("--without-absent", help="Also if members are away; they then need the new key by hand."),
]


class Named(NamedTuple):
    """A key, or one that members have already."""

    id: str
    key: bytes  # empty: by its id

    def __repr__(self) -> str:
        return f"Named({self.id})"  # a traceback may show it


@app.callback()
def keys() -> None:
    """List, make and change the keys that the gossip is encrypted with, while the servers run.

    A key is a secret. On the command line others on this machine can see it, and the shell remembers it: better give
    --file, - for stdin, or, of one that members have, its id.
    """


@app.command("list")
@asking_all
def list_(client: Client, json: Json = False) -> None:
    """List the keys by their ids: how many members have each, and encrypt with it. Exit code 1 if not all answered."""
    answer = client.change_gossip_keys("list")
    if json:
        print_json({**answer._asdict(), "keys": [one._asdict() for one in answer.keys]})
    else:
        table = Table("key", "members", "primary of", box=None, pad_edge=False)
        for one in answer.keys:
            table.add_row(
                one.id, f"{one.members} of {answer.members}", f"{one.primary_members} of {answer.members}"
            )
        console.print(table, highlight=False)
        _print_gaps(answer)
    if not answer.is_complete:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def generate(
    size: Annotated[
        int, typer.Option("--bytes", metavar="COUNT", help="16, 24 or 32.", show_default=True)
    ] = 32,
) -> None:
    """Print a new key. Asks no server. For a file: `(umask 077; raftlog keys generate > gossip.key)`."""
    if size not in KEY_BYTES:
        raise ConfigError([f"--bytes is {size}: a key has 16, 24 or 32"])
    typer.echo(base64.b64encode(_made(size).key).decode())


@app.command()
@asking_all
def install(client: Client, key: Key = "", file: KeyFile = None, json: Json = False) -> None:
    """Have all members accept a key, beside those they have."""
    _change(client, "install", _named(key, file), json=json)


@app.command()
@asking_all
def use(
    client: Client,
    key: Key = "",
    file: KeyFile = None,
    without_absent: WithoutAbsent = False,
    json: Json = False,
) -> None:
    """Have all members encrypt with a key. Refused unless all are there and have it."""
    named = _named(key, file)
    if not without_absent:
        require_all_present(client, f"{CANNOT_COME_BACK}. Nothing was changed")
    _change(client, "use", named, json=json)


@app.command()
@asking_all
def remove(
    client: Client,
    key: Key = "",
    file: KeyFile = None,
    without_absent: WithoutAbsent = False,
    json: Json = False,
) -> None:
    """Have all members forget a key. Refused while one encrypts with it, or is away and may do so."""
    named = _named(key, file)
    if not without_absent:
        require_all_present(client, "it may encrypt with this key when it comes back. Nothing was changed")
    _change(client, "remove", named, json=json)


@app.command()
@asking_all
def rotate(
    client: Client,
    key: Key = "",
    file: KeyFile = None,
    without_absent: WithoutAbsent = False,
) -> None:
    """Change to a new key, by default one that is made: install it on all, use it, remove all others.

    It stops, and says how to go on, where a member does not answer; at each moment all understand each other. Where it
    makes the key, that is printed on stdout: keep it for servers that are to come (--gossip-key-file). What else there is
    to say goes to stderr.
    """
    is_given = bool(key) or file is not None
    named = _named(key, file) if is_given else _made()
    require_ready(client, without_absent=without_absent)
    if not is_given:  # said before it is installed: it must not be lost
        typer.echo(base64.b64encode(named.key).decode())
    rotate_keys(
        client, named.id, named.key, lambda text: typer.echo(text, err=True), without_absent=without_absent
    )


def _change(client: Client, action: str, named: Named, *, json: bool) -> None:
    """Do it, and tell; exit code 1 if not all did."""
    answer = client.change_gossip_keys(action, key=named.key, key_id="" if named.key else named.id)
    done = {"install": "has", "use": "encrypts with", "remove": "has removed"}[action]
    if json:
        print_json({**answer._asdict(), "keys": [], "key_id": named.id})
    elif answer.is_complete:
        typer.echo(f"every member {done} the key {named.id}: {answer.members} of {answer.members}")
    else:
        _print_gaps(answer)
        typer.echo(f"not every member {done} the key {named.id} now; see to them, and run this again")
    if not answer.is_complete:
        raise typer.Exit(EXIT_FAILED)


def _print_gaps(answer: KeysAnswer) -> None:
    if answer.answers < answer.members:
        typer.echo(f"{answer.answers} of {answer.members} members answered")
    for name, reason in sorted(answer.errors.items()):
        typer.echo(f"{name}: {reason}")


def _made(size: int = max(KEY_BYTES)) -> Named:
    key = secrets.token_bytes(size)
    return Named(key_id(key), key)


def _named(text: str, file: Path | None) -> Named:
    """The key that was given, in whatever way; ConfigError, which does not quote it."""
    if bool(text) == (file is not None):
        raise ConfigError(
            ["which key? give KEY, the ID of one that members have, - for stdin, or --file FILE"]
        )
    if file is not None:
        key = read_keys(str(file))[0]
    elif _ID.fullmatch(text):
        return Named(text, b"")
    else:
        source = "stdin" if text == "-" else "KEY"
        try:
            key = parse_keys(sys.stdin.read(FILE_BYTES_MAX) if text == "-" else text)[0]
        except ValueError as error:
            raise ConfigError([f"{source}: {error}"]) from None
    return Named(key_id(key), key)
