"""The limit of what a handler of grpc.aio can do: same TLS, same loop, and it does nothing.

`python -m bench.empty_server CERTS` prints its address, and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.server import PRODUCE


async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    return b""


async def serve(certs: Path) -> None:
    server = grpc.aio.server()
    service, method = PRODUCE.strip("/").split("/")
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method: grpc.unary_unary_rpc_method_handler(answer)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    pairs = [((certs / "server-key.pem").read_bytes(), (certs / "server.pem").read_bytes())]
    credentials = grpc.ssl_server_credentials(
        pairs, (certs / "ca.pem").read_bytes(), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
