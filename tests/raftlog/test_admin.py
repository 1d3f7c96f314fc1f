from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from raftlog.errors import ListenError
from raftlog.runtime.metrics import Metrics
from raftlog.server import admin
from raftlog.server.admin import CONNECTIONS_MAX, AdminServer, make_app
from raftlog.server.health import Health

DEADLINE_S = 5.0


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(health: Health, metrics: Metrics) -> Iterator[AdminServer]:
    server = AdminServer(make_app(health, metrics.registry), host="127.0.0.1", port=0)
    yield server
    server.close()


def fetch(server: AdminServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def connect(server: AdminServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)


def connection_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "admin-connection"]


# ── pages ───────────────────────────────────────────────────────────────────────────────────────────


def test_metrics_are_in_the_form_of_prometheus(server: AdminServer, metrics: Metrics) -> None:
    metrics.serving.set(1)

    status, headers, body = fetch(server, "/metrics?x=1")

    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert b"\nraftlog_serving 1.0\n" in body


def test_healthz_answers_even_while_not_serving(server: AdminServer) -> None:
    assert fetch(server, "/healthz")[::2] == (200, b"ok\n")


def test_readyz_tells_whether_it_serves_and_why_not(server: AdminServer, health: Health) -> None:
    assert fetch(server, "/readyz")[::2] == (503, b"not serving: starting\n")
    health.set_serving(True)
    assert fetch(server, "/readyz")[::2] == (200, b"serving\n")
    health.set_serving(False, "disk failed")
    assert fetch(server, "/readyz")[::2] == (503, b"not serving: disk failed\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_head_is_get_without_the_body(server: AdminServer, path: str) -> None:
    status, headers, body = fetch(server, path)

    head_status, head_headers, nothing = fetch(server, path, "HEAD")

    assert (head_status, nothing) == (status, b"")
    assert head_headers["Content-Length"] == headers["Content-Length"] == str(len(body))


def test_head_of_metrics_has_no_body(server: AdminServer) -> None:
    status, headers, body = fetch(server, "/metrics", "HEAD")

    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/../etc/passwd"])
def test_other_pages_are_not_found(server: AdminServer, path: str) -> None:
    assert fetch(server, path)[::2] == (404, b"there is /metrics, /healthz, /readyz\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
def test_other_methods_are_not_allowed(server: AdminServer, method: str, path: str) -> None:
    status, headers, body = fetch(server, path, method)

    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"GET or HEAD\n")


def test_a_page_that_fails_is_500_and_logged(
    server: AdminServer, metrics: Metrics, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> float:
        raise RuntimeError("log is closed")

    metrics.log_bytes.set_function(fail)

    assert fetch(server, "/metrics")[::2] == (500, b"failed; the log of the server says why\n")

    assert [record.getMessage() for record in caplog.records] == ["admin page failed path=/metrics"]
    assert capfd.readouterr().err == ""
    assert fetch(server, "/healthz")[0] == 200


# ── the server ──────────────────────────────────────────────────────────────────────────────────────


def test_requests_are_logged_for_debugging_only(
    server: AdminServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    until: Callable[[Callable[[], bool]], None],
) -> None:
    caplog.set_level(logging.DEBUG, "raftlog.server.admin")

    fetch(server, "/healthz")

    until(lambda: bool(caplog.records))  # it is logged once it was answered
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "GET /healthz" in record.getMessage()
    assert capfd.readouterr().err == ""


def test_a_taken_port_is_named(server: AdminServer, health: Health, metrics: Metrics) -> None:
    with pytest.raises(ListenError) as caught:
        AdminServer(make_app(health, metrics.registry), host="127.0.0.1", port=server.port)

    assert str(caught.value) == (
        f"admin-port: cannot listen on 127.0.0.1:{server.port}: Address already in use"
    )


def test_it_listens_on_ipv6(health: Health, metrics: Metrics) -> None:
    server = AdminServer(make_app(health, metrics.registry), host="::1", port=0)

    with socket.create_connection(("::1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").read().endswith(b"ok\n")

    server.close()


def test_one_connection_over_the_limit_is_closed_at_once(
    server: AdminServer, until: Callable[[Callable[[], bool]], None]
) -> None:
    idle = [connect(server) for _ in range(CONNECTIONS_MAX)]
    until(lambda: len(connection_threads()) == CONNECTIONS_MAX)

    with connect(server) as one_over:
        assert one_over.recv(1) == b""
    idle.pop().close()
    until(lambda: len(connection_threads()) == CONNECTIONS_MAX - 1)

    assert fetch(server, "/healthz")[0] == 200
    for connection in idle:
        connection.close()


def test_a_client_that_says_nothing_is_cut_off(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch, until: Callable[[Callable[[], bool]], None]
) -> None:
    monkeypatch.setattr(admin.RequestHandler, "timeout", 0.02)

    with connect(server) as silent:
        assert silent.recv(1) == b""
        until(lambda: connection_threads() == [])


def test_a_client_that_hangs_up_early_harms_nobody(
    server: AdminServer, until: Callable[[Callable[[], bool]], None]
) -> None:
    for _ in range(3):
        connection = connect(server)
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        connection.close()
    until(lambda: connection_threads() == [])

    assert fetch(server, "/healthz")[0] == 200


def test_closing_cuts_off_who_is_connected_and_ends_all_threads(
    health: Health, metrics: Metrics, until: Callable[[Callable[[], bool]], None]
) -> None:
    server = AdminServer(make_app(health, metrics.registry), host="127.0.0.1", port=0)
    silent = connect(server)
    until(lambda: len(connection_threads()) == 1)

    server.close()

    assert silent.recv(1) == b""
    assert connection_threads() == []
    assert "admin" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    silent.close()
