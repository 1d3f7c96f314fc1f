from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509

from raftlog.cli import run
from raftlog.server.acl import default_files


def names_in(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def test_init_writes_certificates_model_and_policy_and_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "certs"

    assert run(["certs", "init", str(folder), "--host", "log.example.com", "--client", "alice"]) == 0

    stems = ["alice-client", "ca", "nobody-client", "peer", "root-client", "server"]
    expected = {"model.conf", "policy.csv"} | {
        f"{stem}{end}" for stem in stems for end in (".pem", "-key.pem")
    }
    assert set(os.listdir(folder)) == expected
    assert set(capsys.readouterr().out.split()) == {str(folder / name) for name in expected}
    assert names_in(folder / "server.pem") == ["localhost", "127.0.0.1", "::1", "log.example.com"]
    assert {name: (folder / name).read_bytes() for name in default_files()} == default_files()


def test_a_second_init_is_refused_and_force_keeps_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["certs", "init", str(tmp_path)]) == 0
    (tmp_path / "policy.csv").write_text("p, alice, *, consume\n")

    assert run(["certs", "init", str(tmp_path)]) == 1
    assert "--force replaces them" in capsys.readouterr().err

    assert run(["certs", "init", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "policy.csv").read_text() == "p, alice, *, consume\n"


def test_issue_adds_a_client_and_renews_a_server(tmp_path: Path) -> None:
    assert run(["certs", "init", str(tmp_path)]) == 0
    before = (tmp_path / "server.pem").read_bytes()

    assert run(["certs", "issue", str(tmp_path), "bob"]) == 0
    assert run(["certs", "issue", str(tmp_path), "server", "--role", "server", "--host", "b", "--force"]) == 0

    assert (tmp_path / "bob-client.pem").exists()
    assert (tmp_path / "server.pem").read_bytes() != before
    assert names_in(tmp_path / "server.pem")[-1] == "b"


def test_a_bad_lifetime_is_a_usage_error(tmp_path: Path) -> None:
    assert run(["certs", "init", str(tmp_path / "certs"), "--days", "0"]) == 2

    assert not (tmp_path / "certs").exists()
