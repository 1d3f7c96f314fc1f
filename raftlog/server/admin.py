"""The admin port: HTTP for people and machines that run the server, on loopback unless told otherwise.

    GET /metrics    what the server counts, for Prometheus
    GET /healthz    200 while the process answers at all: restart it if not
    GET /readyz     200 while it serves, else 503 and why: send no clients if not

There is no TLS and no password, so there is nothing here that changes anything.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from raftlog.errors import ListenError
from raftlog.runtime.logging import get_logger
from raftlog.server.health import Health

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = get_logger(__name__)

CONNECTIONS_MAX: Final = 8  # a thread each; beyond it a connection is closed at once
IDLE_S_MAX: Final = 5.0  # a client that sends or takes nothing for so long is cut off
STOP_POLL_S: Final = 0.05  # how soon the accepting thread sees that it is to stop

TEXT: Final = "text/plain; charset=utf-8"


# ── pages ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Page:
    status: str
    body: bytes
    content_type: str = TEXT


def make_app(health: Health, registry: CollectorRegistry) -> WSGIApplication:
    """The pages, as a WSGI application. It may be called by several threads."""

    def metrics(environ: WSGIEnvironment) -> Page:
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return Page("200 OK", encode(registry), content_type)

    def healthz(_: WSGIEnvironment) -> Page:
        return Page("200 OK", b"ok\n")

    def readyz(_: WSGIEnvironment) -> Page:
        state = health.state
        if state.is_serving:
            return Page("200 OK", b"serving\n")
        return Page("503 Service Unavailable", f"not serving: {state.reason}\n".encode())

    pages = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        headers = []
        if path not in pages:
            page = Page("404 Not Found", f"there is {', '.join(pages)}\n".encode())
        elif method not in ("GET", "HEAD"):
            page = Page("405 Method Not Allowed", b"GET or HEAD\n")
            headers.append(("Allow", "GET, HEAD"))
        else:
            page = make_page(pages[path], environ)
        headers += [("Content-Type", page.content_type), ("Content-Length", str(len(page.body)))]
        start_response(page.status, headers)
        return [] if method == "HEAD" else [page.body]

    return app


def make_page(make: Callable[[WSGIEnvironment], Page], environ: WSGIEnvironment) -> Page:
    try:
        return make(environ)
    except Exception:
        log.exception("admin page failed", path=environ["PATH_INFO"])
        return Page("500 Internal Server Error", b"failed; the log of the server says why\n")


# ── the server ──────────────────────────────────────────────────────────────────────────────────────


class AdminServer:
    """Serves an application from threads of its own until closed."""

    def __init__(self, app: WSGIApplication, *, host: str, port: int) -> None:
        """Listen and serve; port 0 is any that is free. ListenError if the port cannot be had."""
        try:
            self._server = BoundedServer(host, port)
        except OSError as error:
            raise ListenError("admin-port", f"{host}:{port}", error.strerror or str(error)) from error
        self._server.set_app(app)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_POLL_S,), name="admin", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the port and cut off whoever is connected. Returns when all threads have ended."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.cut_off()


class BoundedServer(WSGIServer):
    """A thread per connection, up to CONNECTIONS_MAX."""

    request_queue_size = 4 * CONNECTIONS_MAX  # who finds the system's queue full tries again after a second

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}  # connections being served
        super().__init__((host, port), RequestHandler)

    def server_bind(self) -> None:
        """As HTTPServer's, without asking DNS for a name that nobody reads."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="admin-connection", daemon=True
        )
        with self._lock:
            has_room = len(self._open) < CONNECTIONS_MAX
            if has_room:
                self._open[thread] = request
        if has_room:
            thread.start()
        else:
            self.shutdown_request(request)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError as error:  # the client went away or was too slow
            log.debug("admin connection broke", error=str(error))
        finally:
            with self._lock:
                del self._open[threading.current_thread()]
            self.shutdown_request(request)

    def cut_off(self) -> None:
        """End all connections and wait for their threads."""
        with self._lock:
            connections = dict(self._open)
            for connection in connections.values():
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it just ended by itself
        for thread in connections:
            thread.join()


class RequestHandler(WSGIRequestHandler):
    """Logs to our logs, and waits for nobody for ever."""

    timeout = IDLE_S_MAX

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("admin request", peer=self.address_string(), text=format % args)
