"""The files of deploy/, read as those read them that use them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from raftlog import agent, config
from raftlog.config_files import parse_file
from raftlog.net import peer_links

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent
DEPLOY: Final = REPOSITORY / "deploy"
IMAGE: Final = DEPLOY / "docker"
COMPOSE: Final = DEPLOY / "compose" / "compose.yaml"
UNIT: Final = DEPLOY / "systemd" / "raftlog.service"
CHART: Final = DEPLOY / "helm" / "raftlog"
MANIFEST: Final = DEPLOY / "kubernetes" / "raftlog.yaml"  # what the chart renders without any values
PAGE: Final = REPOSITORY / "docs" / "deployment.md"

SLACK_S: Final = 10.0  # for a stop: what is left is written to a slow disk


def stop_s() -> float:
    """How long a server may take to stop, with the settings that it has by itself."""
    grace_ms = config.ServerConfig(insecure=True).stop_grace_ms
    return agent.HAND_OVER_S_MAX + grace_ms / 1000 + peer_links.CLOSE_S_MAX + SLACK_S


def fields_of(settings: Mapping[Any, object]) -> dict[str, Any]:
    """Settings as a file has them, by the names of their fields."""
    return {str(key).replace("-", "_"): value for key, value in settings.items()}


def settings_of(environment: Mapping[str, object]) -> dict[str, Any]:
    """Those in RAFTLOG_ variables, clients' left out."""
    ours = {name.removeprefix("RAFTLOG_"): value for name, value in environment.items()}
    return {
        name.lower(): str(value)
        for name, value in ours.items()
        if not name.startswith(("CLIENT_", "CONFIG_FILE", "POD_"))
    }


def image_settings() -> dict[str, Any]:
    return fields_of(parse_file(IMAGE / "raftlog.toml"))


def compose() -> dict[str, Any]:
    found = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(found, dict)
    return found


def compose_nodes() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose()["services"].items() if name != "secrets"}


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, with what follows them in one line."""
    text = (IMAGE / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def exec_form(text: str) -> list[str]:
    """The words of a command that no shell reads; ValueError if one does."""
    words = json.loads(text[text.index("[") :])
    assert all(isinstance(word, str) for word in words)
    return list(words)


def objects_of(text: str) -> dict[str, dict[str, Any]]:
    """Those for Kubernetes, by kind and name."""
    found = [each for each in yaml.safe_load_all(text) if each is not None]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


def pod_environment(
    container: Mapping[str, Any], name: str, *, namespace: str, address: str
) -> dict[str, str]:
    """Of a container in the pod of this name, as Kubernetes makes it."""
    facts = {"metadata.name": name, "metadata.namespace": namespace, "status.podIP": address}
    environment: dict[str, str] = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            value = facts[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], variable["value"])
        environment[variable["name"]] = value
    return environment


def chart_digest() -> str:
    """Of all that decides what the chart renders."""
    digest = hashlib.sha256()
    for path in sorted(path for path in CHART.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(CHART)}\0{path.read_text()}\0".encode())
    return digest.hexdigest()


def without_our_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAFT")}


OBJECTS_OF_CHART: Final = objects_of(MANIFEST.read_text())
