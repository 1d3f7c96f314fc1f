"""The chart, by what it renders without any values, which is committed; and by its text. None of this needs helm."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftlog.config import ServerConfig
from raftlog.config_sources import key_of
from tests.deploy.assets import (
    CHART,
    IMAGE,
    MANIFEST,
    OBJECTS_OF_CHART,
    REPOSITORY,
    chart_digest,
    fields_of,
    instructions,
    pod_environment,
    settings_of,
    stop_s,
)

SET = OBJECTS_OF_CHART["StatefulSet/raftlog"]["spec"]
POD = SET["template"]["spec"]
(SERVER,) = POD["containers"]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))


def test_what_is_committed_was_rendered_from_this_chart() -> None:
    """`python -m tests.deploy.render` renders it anew; that needs helm."""
    assert f"# sha256 of the chart: {chart_digest()}\n" in MANIFEST.read_text()


# ── servers ─────────────────────────────────────────────────────────────────────────────────────────


def config_of(name: str) -> ServerConfig:
    environment = pod_environment(SERVER, name, namespace="logs", address="10.1.2.3")
    folder, file = os.path.split(environment["RAFTLOG_CONFIG_FILE"])
    assert {"name": "config", "mountPath": folder, "readOnly": True} in SERVER["volumeMounts"]
    shared = yaml.safe_load(OBJECTS_OF_CHART["ConfigMap/raftlog"]["data"][file])
    ours = {name: value for name, value in environment.items() if name.startswith("RAFTLOG_")}
    return ServerConfig(**fields_of(shared) | settings_of(ours))


def test_servers_find_each_other_by_the_headless_service_which_knows_them_before_they_are_ready() -> None:
    nodes = OBJECTS_OF_CHART[f"Service/{SET['serviceName']}"]["spec"]

    assert nodes["clusterIP"] == "None"
    assert nodes["publishNotReadyAddresses"] is True
    assert config_of("raftlog-1").start_join_addrs == tuple(
        f"raftlog-{ordinal}.{SET['serviceName']}:8401" for ordinal in range(3)
    )
    assert {(port["port"], port.get("protocol", "TCP")) for port in nodes["ports"]} >= {
        (8401, "TCP"),
        (8401, "UDP"),
        (8400, "TCP"),
    }


def test_servers_gossip_by_their_address_and_are_called_by_a_name_that_stays() -> None:
    config = config_of("raftlog-1")

    assert config.node_name == "raftlog-1"
    assert config.advertise_addr == "10.1.2.3:8401"
    assert config.rpc_advertise_addr == f"raftlog-1.{SET['serviceName']}.logs.svc:8400"


def test_stopping_is_not_leaving_or_every_upgrade_would_change_the_voters() -> None:
    assert config_of("raftlog-0").leave_on_terminate is False


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("raftlog-0", "serve --bootstrap"), ("raftlog-1", "serve"), ("raftlog-10", "serve"), ("x-0", "serve")],
)
def test_only_the_first_server_begins_a_cluster(tmp_path: Path, name: str, arguments: str) -> None:
    stub = tmp_path / "raftlog"
    stub.write_text('#!/bin/sh\necho "$@"\n')
    stub.chmod(0o755)

    done = subprocess.run(
        SERVER["command"], env={"PATH": str(tmp_path), "RAFTLOG_NODE_NAME": name}, capture_output=True, text=True,
        check=True, timeout=30,
    )  # fmt: skip

    assert done.stdout == f"{arguments}\n"


def test_all_servers_start_at_once_and_an_upgrade_waits_for_each() -> None:
    assert SET["podManagementPolicy"] == "Parallel"
    assert SET["updateStrategy"]["type"] == "RollingUpdate"
    assert SET["minReadySeconds"] >= 10
    assert OBJECTS_OF_CHART["PodDisruptionBudget/raftlog"]["spec"]["maxUnavailable"] == 1


def test_a_server_is_given_the_time_that_it_takes_to_stop() -> None:
    assert POD["terminationGracePeriodSeconds"] >= stop_s()


def test_probes_ask_the_ports_that_the_settings_open() -> None:
    config = config_of("raftlog-0")
    ports = {port["name"]: port["containerPort"] for port in SERVER["ports"]}

    assert ports == {
        "rpc": config.rpc_port, "gossip": 8401, "gossip-udp": 8401, "health": config.health_port,
        "metrics": config.admin_port,
    }  # fmt: skip
    assert SERVER["readinessProbe"]["grpc"]["port"] == config.health_port
    for probe in ("startupProbe", "livenessProbe"):
        assert SERVER[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert (config.health_host, config.admin_host) == ("0.0.0.0", "0.0.0.0")


def test_services_and_budget_select_the_servers() -> None:
    labels = SET["template"]["metadata"]["labels"]
    ports = {port["name"] for port in SERVER["ports"]}
    services = [each["spec"] for name, each in OBJECTS_OF_CHART.items() if name.startswith("Service/")]

    assert len(services) == 2
    for selector in (
        SET["selector"]["matchLabels"],
        OBJECTS_OF_CHART["PodDisruptionBudget/raftlog"]["spec"]["selector"]["matchLabels"],
        *(service["selector"] for service in services),
    ):
        assert selector.items() <= labels.items()
    assert {port["targetPort"] for service in services for port in service["ports"]} <= ports


def test_every_file_of_the_settings_is_in_a_volume() -> None:
    config = config_of("raftlog-0")
    mounts = {mount["mountPath"]: mount for mount in SERVER["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in POD["volumes"]} | {
        claim["metadata"]["name"]: claim for claim in SET["volumeClaimTemplates"]
    }

    files = [str(value) for field, value in config if field.endswith("_file") and value is not None]
    assert len(files) == 8
    for file in files:
        mount = mounts[os.path.dirname(file)]
        assert mount["readOnly"] is True
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            held = OBJECTS_OF_CHART[f"ConfigMap/{volume['configMap']['name']}"]["data"]
            assert os.path.basename(file) in held
    assert mounts[str(config.data_dir)]["name"] == "data"
    assert {mount["name"] for mount in mounts.values()} == volumes.keys()


def test_policy_is_that_of_the_package_until_it_is_changed() -> None:
    ours = (REPOSITORY / "raftlog" / "server" / "acl" / "policy.csv").read_text().splitlines()

    assert VALUES["policy"].splitlines() == [line for line in ours if not line.startswith("#")]


def test_a_server_has_no_rights_and_writes_only_its_data() -> None:
    (user,) = (rest for instruction, rest in instructions() if instruction == "USER")

    security = POD["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    assert security["fsGroup"] == security["runAsGroup"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert SERVER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert [mount["name"] for mount in SERVER["volumeMounts"] if not mount.get("readOnly")] == ["data"]


# ── values ──────────────────────────────────────────────────────────────────────────────────────────


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    assert sorted(paths_of_values(VALUES, SCHEMA)) == sorted(paths_of_schema(SCHEMA))


def paths_of_schema(schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, each in schema.get("properties", {}).items():
        if name != "global":  # helm's own
            yield f"{at}.{name}"
            yield from paths_of_schema(each, f"{at}.{name}")


def paths_of_values(values: Mapping[str, Any], schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """As deep as the schema names them: what is below is Kubernetes' or the server's."""
    for name, each in values.items():
        yield f"{at}.{name}"
        below = schema.get("properties", {}).get(name, {})
        if "properties" in below:
            yield from paths_of_values(each, below, f"{at}.{name}")


def test_every_value_is_used_and_every_one_used_is_there() -> None:
    used = set(re.findall(r"\.Values((?:\.\w+)+)", TEMPLATES))
    there = set(paths_of_values(VALUES, SCHEMA))

    assert used <= there
    assert [path for path in there if not any(f"{each}.".startswith(f"{path}.") for each in used)] == []


def test_settings_that_the_chart_makes_are_refused_among_the_others() -> None:
    names = SCHEMA["properties"]["config"]["propertyNames"]
    refused = set(names["not"]["enum"])
    made = {
        key_of(field) for field in config_of("raftlog-0").model_fields_set if field not in ("config_file",)
    }

    assert made <= refused
    assert refused - made == {"bootstrap", "insecure", "leave-on-terminate", "peers"}
    assert refused <= {key_of(field) for field in ServerConfig.model_fields}
    assert all(re.fullmatch(names["pattern"], key_of(field)) for field in ServerConfig.model_fields)


def test_chart_image_and_package_are_of_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert SERVER["image"] == f"raftlog:{chart['appVersion']}"
    assert f"ARG VERSION={chart['appVersion']}\n" in (IMAGE / "Dockerfile").read_text()
