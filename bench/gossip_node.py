"""A process that gossips and does nothing else: `python -m bench.gossip_node NAME PORT KEY JOIN...`; KEY is base64 or -.

Prints its address when it is there, and "NAME SECONDS" for each member that it sees alive, by the monotonic clock, which
on Linux is the same in all processes. Ends with its input.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
import time

import uvloop

from raftlog.discovery.membership import Membership, MembershipConfig
from raftlog.serf.config import LAN
from raftlog.serf.events import MemberJoined, Told


def told(event: Told) -> None:
    if isinstance(event, MemberJoined):
        print(event.member.name, time.monotonic(), flush=True)


async def run(name: str, port: str, key: str, *join: str) -> None:
    keys = () if key == "-" else (base64.b64decode(key),)
    config = MembershipConfig(
        node_name=name, bind_addr=f"127.0.0.1:{port}", start_join_addrs=join, profile=LAN, keys=keys,
        tags={"rpc_addr": f"{name}.example.org:8400", "node_id": "0" * 36, "cluster": "0" * 36, "role": "member"},
    )  # fmt: skip
    membership = Membership(None, config, on_told=told)
    await membership.start()
    print("at", membership.gossip_address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await membership.close()


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # newcomers are killed
    uvloop.run(run(*sys.argv[1:]))
