"""What compose and the chart start becomes a cluster of three voters: run as processes of this machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from raftlog import Client, TlsFiles
from tests.deploy.assets import IMAGE, OBJECTS_OF_CHART, compose, compose_nodes, pod_environment
from tests.deploy.hosts import Host, environment_with, free_net, wait_until, wait_until_ready


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def voters(client: Client) -> list[str]:
    return sorted(server.name for server in client.servers() if server.is_voter)


# ── compose ─────────────────────────────────────────────────────────────────────────────────────────


def compose_hosts(folder: Path) -> list[Host]:
    """Those of the file, with the secrets that its first service makes in `folder`/certs."""
    net = free_net()

    def translate(text: str, own: str = "", place: Path = folder) -> str:
        text = re.sub(r"\braftlog-(\d)(?=[:\s]|$)", rf"{net}.\1", text).replace("0.0.0.0", own)
        return text.replace("/etc/raftlog/certs", f"{folder}/certs").replace(
            "/var/lib/raftlog", f"{place}/data"
        )

    (folder / "certs").mkdir()
    secrets = compose()["services"]["secrets"]
    script = translate(secrets["command"][0])
    subprocess.run([*secrets["entrypoint"], script], env=environment_with({}), check=True, timeout=60)

    hosts = []
    for name, service in compose_nodes().items():
        place = folder / name
        place.mkdir()
        address = translate(f"{name}:").removesuffix(":")
        file = place / "raftlog.toml"
        file.write_text(translate((IMAGE / "raftlog.toml").read_text(), address, place))
        settings = {
            variable: translate(str(value), address, place)
            for variable, value in service["environment"].items()
            if variable != "RAFTLOG_NODE_NAME"
        }
        settings |= {
            "RAFTLOG_NODE_NAME": name,
            "RAFTLOG_CONFIG_FILE": str(file),
            "RAFTLOG_ADMIN_HOST": address,
        }
        kind, *check = service["healthcheck"]["test"]
        assert kind == "CMD"
        check = [word.replace("/usr/local/lib/raftlog", str(IMAGE)) for word in check]
        hosts.append(Host(name, ["raftlog", *service["command"]], settings, check, place))
    return hosts


def test_compose_starts_a_cluster_that_stays_one_while_each_is_restarted(
    stack: ExitStack, tmp_path: Path
) -> None:
    hosts = compose_hosts(tmp_path)
    names = [host.name for host in hosts]
    for host in hosts:
        stack.callback(host.kill)
        host.start()
    wait_until_ready(hosts)

    tls = TlsFiles.in_folder(tmp_path / "certs", "root-client")
    with Client([host.rpc_address for host in hosts], tls=tls) as client:
        wait_until(lambda: voters(client) == names, hosts)
        for offset, host in enumerate(hosts):
            assert client.append(host.name.encode()) == offset
            assert host.stop() == 0
            host.start()
            wait_until_ready(hosts)

        assert [client.read(offset).value.decode() for offset in range(3)] == names
        assert voters(client) == names
    clusters = {json.loads(line)["cluster_id"] for line in hosts[1].run("status", "--json").splitlines()}
    assert len(clusters) == 1
    assert [host.stop() for host in hosts] == [0, 0, 0]


# ── Kubernetes ──────────────────────────────────────────────────────────────────────────────────────

CHECK = """\
import sys, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    found = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=sys.argv[2]), timeout=3)
sys.exit(found.status != health_pb2.HealthCheckResponse.SERVING)
"""


def pods(folder: Path) -> list[Host]:
    """Those of the chart, with the secrets that the page tells to make."""
    net = free_net()
    spec = OBJECTS_OF_CHART["StatefulSet/raftlog"]["spec"]
    (server,) = spec["template"]["spec"]["containers"]
    addresses = {f"raftlog-{ordinal}": f"{net}.{ordinal + 1}" for ordinal in range(spec["replicas"])}
    make_secrets(folder, [*addresses.values()])
    hosts = []
    for name, address in addresses.items():
        place = folder / name
        place.mkdir()

        def translate(text: str, own: str = address, place: Path = place) -> str:
            text = text.replace("0.0.0.0", own)
            text = re.sub(
                r"(raftlog-\d)\.raftlog-nodes(\.logs\.svc)?", lambda found: addresses[found[1]], text
            )
            for mounted in ("tls", "gossip"):
                text = text.replace(f"/etc/raftlog/{mounted}/", f"{folder}/")
            return text.replace("/etc/raftlog/config", str(place)).replace(
                "/var/lib/raftlog", f"{place}/data"
            )

        for file, content in OBJECTS_OF_CHART["ConfigMap/raftlog"]["data"].items():
            (place / file).write_text(translate(content))
        environment = pod_environment(server, name, namespace="logs", address=address)
        settings = {variable: translate(value) for variable, value in environment.items()}
        probe = server["readinessProbe"]["grpc"]
        check = [sys.executable, "-c", CHECK, f"{address}:{probe['port']}", probe.get("service", "")]
        hosts.append(Host(name, server["command"], settings, check, place))
    return hosts


def make_secrets(folder: Path, addresses: list[str]) -> None:
    """As docs/deployment.md says, for these addresses: one certificate, towards clients and among servers."""
    environment = environment_with({})
    hosts = [word for address in addresses for word in ("--host", address)]
    subprocess.run(["raftlog", "certs", "init", str(folder / "certs"), *hosts], env=environment, check=True, timeout=60,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    for source, key in (("peer.pem", "tls.crt"), ("peer-key.pem", "tls.key"), ("ca.pem", "ca.crt")):
        (folder / key).write_bytes((folder / "certs" / source).read_bytes())
    (folder / "gossip.key").touch(mode=0o600)
    with (folder / "gossip.key").open("wb") as file:
        subprocess.run(["raftlog", "keys", "generate"], env=environment, check=True, timeout=60, stdout=file)


def test_the_chart_starts_a_cluster(stack: ExitStack, tmp_path: Path) -> None:
    hosts = pods(tmp_path)
    names = [host.name for host in hosts]
    for host in hosts:
        stack.callback(host.kill)
        host.start()
    wait_until_ready(hosts)

    tls = TlsFiles.in_folder(tmp_path / "certs", "root-client")
    with Client(hosts[1].rpc_address, tls=tls) as client:
        wait_until(lambda: voters(client) == names, hosts)
        assert client.append(b"stored") == 0
    assert [host.stop() for host in hosts] == [0, 0, 0]
