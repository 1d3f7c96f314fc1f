"""The members of a cluster as a file lists them: each server has the same list, and finds itself in it by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode

from raftlog.config_values import NodeName, refuse_bool
from raftlog.net.addresses import PORT_MAX, host_and_port, is_loopback

PID_MAX: Final = (1 << 32) - 1


class Peer(BaseModel):
    """One server, in the words of bbengfort/raft's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    pid: Annotated[int, Field(ge=0, le=PID_MAX), BeforeValidator(refuse_bool)] = 0
    name: NodeName
    ip_address: str = ""
    domain: str = ""
    port: Annotated[int, Field(ge=1, le=PORT_MAX), BeforeValidator(refuse_bool)]
    description: str = ""  # this and the next two are for people
    hostname: str = ""
    aws_instance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_underscores(cls, value: object) -> object:
        return (
            {str(key).replace("-", "_"): each for key, each in value.items()}
            if isinstance(value, dict)
            else value
        )

    @model_validator(mode="after")
    def _has_a_host(self) -> Peer:
        if not (self.domain or self.ip_address):
            raise ValueError(f"peer {self.name} has neither domain nor ip_address")
        return self

    @property
    def address(self) -> str:
        """Where it is reached."""
        return host_and_port(self.domain or self.ip_address, self.port)


def check_list(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("a list of peers can only be in a file")  # noqa: TRY004  # pydantic reports a ValueError
    return value


def check_different(peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
    """ValueError if two have the same name, pid or address."""
    for what, found in (
        ("name", [peer.name for peer in peers]),
        ("pid", [str(peer.pid) for peer in peers if peer.pid]),
        ("address", [peer.address for peer in peers]),
    ):
        twice = sorted({one for one in found if found.count(one) > 1})
        if twice:
            raise ValueError(f"more than one peer has the {what} {', '.join(twice)}")
    return peers


def find_peer(peers: Sequence[Peer], name: str) -> Peer:
    """The one with this name; ValueError if there is none."""
    found = next((peer for peer in peers if peer.name == name), None)
    if found is None:
        raise ValueError(f"could not find peer for '{name}'")
    return found


def settings_of(peer: Peer) -> dict[str, object]:
    """What the list says of the server that this is, by key: where it listens, and where others find it."""
    host = "127.0.0.1" if is_loopback(peer.ip_address or peer.domain) else "0.0.0.0"  # as that program does
    return {"bind_addr": f"{host}:8401", "rpc_port": peer.port, "rpc_advertise_addr": peer.address}


Peers = Annotated[tuple[Peer, ...], NoDecode, BeforeValidator(check_list)]
