"""Make deploy/kubernetes/raftlog.yaml of the chart: `python -m tests.deploy.render`, with helm 3 on the PATH."""

from __future__ import annotations

import subprocess

from tests.deploy.assets import CHART, MANIFEST, chart_digest

HEADER = """\
# Three servers for Kubernetes without Helm; made of deploy/helm/raftlog by `python -m tests.deploy.render`.
# They need two Secrets: docs/deployment.md.
# sha256 of the chart: {digest}
"""


def render(*options: str) -> str:
    """What the chart makes of these options; CalledProcessError."""
    command = ["helm", "template", "raftlog", str(CHART), "--kube-version", "1.30.0", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def manifest_of(rendered: str) -> str:
    return HEADER.format(digest=chart_digest()) + rendered.replace(
        "app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl"
    )


if __name__ == "__main__":
    MANIFEST.parent.mkdir(exist_ok=True)
    MANIFEST.write_text(manifest_of(render()))
