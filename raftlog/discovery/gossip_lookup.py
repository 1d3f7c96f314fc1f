"""Servers as one member of a gossip knows them, asked once and without becoming a member.

The question is an exchange of states (memberlist's push/pull) in which this side has no state and does not join, so
nothing about it is told to anybody.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from typing import Final

from raftlog.discovery.errors import LookupFailed
from raftlog.discovery.membership import (
    ADDRESS_TAG,
    CLUSTER_TAG,
    DIRECTORY_TAG,
    ROLE_TAG,
    VERSION_TAG,
)
from raftlog.discovery.source import Candidate
from raftlog.net.addresses import split_address
from raftlog.serf.codec.errors import BadPacket
from raftlog.serf.codec.framing import StreamReader
from raftlog.serf.codec.keyring import Keyring
from raftlog.serf.codec.packets import Codec
from raftlog.serf.codec.serf import decode_tags
from raftlog.serf.messages import ErrorReply, NodeState, PushPull, State, SwimMessage
from raftlog.serf.swim.shown import shown

ASK_S_MAX: Final = 3.0  # for the whole of the exchange, the look-up of the member's name included
CHUNK_BYTES: Final = 64 * 1024


async def ask_gossip(
    address: str, *, keys: Sequence[bytes] = (), timeout_s: float = ASK_S_MAX
) -> list[Candidate]:
    """The members that are alive, or suspected of not being, by name, as the one that gossips at host:port knows them.

    LookupFailed. ValueError for an address or a key that is none. The first key encrypts; none: in the clear.
    """
    host, port = split_address(address)
    codec = Codec(Keyring(keys), nonce=os.urandom)
    question = codec.stream(PushPull((), b"", is_join=False))
    try:
        async with asyncio.timeout(timeout_s):
            answer = codec.open_stream(await _exchange(host, port, question), is_reply=True)
    except TimeoutError as error:
        raise LookupFailed(f"no answer within {timeout_s:g} s") from error
    except UnicodeError as error:
        raise LookupFailed("the host's name is none") from error
    except OSError as error:
        raise LookupFailed(_reason(error)) from error
    except BadPacket as error:
        raise LookupFailed(f"its answer is not understood: {error}") from error
    return _candidates(answer)


async def _exchange(host: str, port: int, question: bytes) -> bytes:
    """The other side of the exchange, whole."""
    reader, writer = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
    try:
        writer.write(question)
        await writer.drain()
        framing = StreamReader()
        while data := await reader.read(CHUNK_BYTES):
            if framing.feed(data):
                return framing.message_bytes
        raise LookupFailed(
            "it ended the connection without an answer, as one does that has other keys, or none"
        )
    except ConnectionResetError as error:
        raise LookupFailed("it broke the connection off, as one does that has other keys, or none") from error
    finally:
        writer.transport.abort()


def _reason(error: OSError) -> str:
    """In the system's words; asyncio has its own for a connection that fails."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _candidates(answer: SwimMessage) -> list[Candidate]:
    match answer:
        case PushPull():
            found = [_candidate(node) for node in answer.nodes if node.state in (State.ALIVE, State.SUSPECT)]
            return sorted((one for one in found if one is not None), key=lambda one: one.name)
        case ErrorReply():
            raise LookupFailed(f"it answers: {shown(answer.error)}")
        case _:
            raise LookupFailed(f"it answers with {type(answer).__name__}, not with its members")


def _candidate(node: NodeState) -> Candidate | None:
    """None for one whose tags are not understood."""
    try:
        tags = decode_tags(node.meta)
    except BadPacket:
        return None
    return Candidate(
        name=node.node,
        address=tags.get(ADDRESS_TAG, ""),
        directory_id=tags.get(DIRECTORY_TAG, ""),
        cluster_id=tags.get(CLUSTER_TAG, ""),
        role=tags.get(ROLE_TAG, ""),
        version=tags.get(VERSION_TAG, ""),
        gossip_address=node.address,
        since=time.monotonic(),
    )
