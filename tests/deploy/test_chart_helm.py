"""The chart as helm sees it; skipped where there is no helm 3."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.deploy.assets import CHART, MANIFEST, objects_of
from tests.deploy.render import manifest_of, render

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="no helm on this machine")


def test_helm_finds_nothing_wrong() -> None:
    done = subprocess.run(
        ["helm", "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stdout


def test_what_is_committed_is_what_helm_renders() -> None:
    assert manifest_of(render()) == MANIFEST.read_text()


@pytest.mark.parametrize(("replicas", "asked"), [(1, 1), (3, 3), (5, 3)])
def test_growing_beyond_three_changes_no_settings_and_so_restarts_nobody(replicas: int, asked: int) -> None:
    objects = objects_of(render("--set", f"replicas={replicas}"))

    assert objects["ConfigMap/raftlog"]["data"]["raftlog.yaml"].count("raftlog-nodes:8401") == asked


def test_without_bootstrap_no_server_begins_a_cluster() -> None:
    (server,) = objects_of(render("--set", "bootstrap=false"))["StatefulSet/raftlog"]["spec"]["template"][
        "spec"
    ]["containers"]

    assert server["command"] == ["raftlog", "serve"]


def test_without_a_key_gossip_is_in_the_clear_and_nothing_is_mounted_for_it() -> None:
    objects = objects_of(render("--set", "gossip.keySecretName="))

    assert "gossip-key-file" not in objects["ConfigMap/raftlog"]["data"]["raftlog.yaml"]
    volumes = objects["StatefulSet/raftlog"]["spec"]["template"]["spec"]["volumes"]
    assert [volume["name"] for volume in volumes] == ["config", "tls"]


def test_all_that_can_be_asked_for_renders() -> None:
    text = render(
        "--namespace", "logs", "--set", "tools.enabled=true,serviceMonitor.enabled=true,tls.certManager.enabled=true",
        "--set", "storage.className=fast,priorityClassName=high,nodeSelector.disk=ssd,podAnnotations.a=b",
        "--set", "service.annotations.a=b,serviceMonitor.labels.release=prometheus,image.tag=1.2.3",
        "--set-json", 'config={"retention-age-ms-max":"7d","snapshot-entries":1000}',
        "--set-json", 'tolerations=[{"key":"a"}]', "--set-json", 'imagePullSecrets=[{"name":"a"}]',
        "--set-json", 'tls.certManager.extraNames=["log.example.com"]',
        "--set-json", 'topologySpreadConstraints=[{"maxSkew":1}]', "--set-json", 'affinity={"nodeAffinity":{}}',
    )  # fmt: skip
    objects = objects_of(text)

    assert objects.keys() >= {"Deployment/raftlog-tools", "ServiceMonitor/raftlog", "Certificate/raftlog"}
    settings = objects["ConfigMap/raftlog"]["data"]["raftlog.yaml"]
    assert settings.endswith("retention-age-ms-max: 7d\nsnapshot-entries: 1000\n")
    certificate = objects["Certificate/raftlog"]["spec"]
    assert certificate["commonName"] == "peer"
    assert certificate["dnsNames"] == [
        "*.raftlog-nodes.logs.svc", "raftlog", "raftlog.logs", "raftlog.logs.svc", "localhost", "log.example.com",
    ]  # fmt: skip


def test_a_change_of_settings_restarts_the_servers_and_a_change_of_the_policy_does_not() -> None:
    def annotations(*options: str) -> object:
        return objects_of(render(*options))["StatefulSet/raftlog"]["spec"]["template"]["metadata"][
            "annotations"
        ]

    assert annotations("--set", "config.compression=zstd") != annotations()
    assert annotations("--set", "policy=p") == annotations()


@pytest.mark.parametrize(
    "option",
    [
        "replica=5",
        "replicas=0",
        "config.rpc-port=1",
        "config.rpc_port=1",
        "gossip.profile=slow",
        "storage.size=10",
    ],
)
def test_values_that_cannot_be_are_refused(option: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render("--set", option)

    assert "values don't meet the specifications of the schema" in refused.value.stderr
