from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raftlog.errors import CertificateError
from raftlog.net.certificates import (
    CertificatePlan,
    Role,
    init_folder,
    issue,
    issue_into_folder,
    make_authority,
    parse_host_name,
    read_authority,
    write_files,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["ca", "server", "peer", "root-client", "nobody-client"]


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def host_names(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


# ── what is made ────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_holds_each_certificate_with_its_key(tmp_path: Path) -> None:
    paths = init_folder(tmp_path, CertificatePlan())

    expected = sorted(f"{name}{end}" for name in NAMES for end in (".pem", "-key.pem"))
    assert sorted(path.name for path in paths) == expected == sorted(os.listdir(tmp_path))
    for name in NAMES:
        key = load_pem_private_key((tmp_path / f"{name}-key.pem").read_bytes(), password=None)
        assert key.public_key() == load(tmp_path / f"{name}.pem").public_key()
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP256R1)


def test_keys_are_readable_by_their_owner_only(certificates: Path) -> None:
    for path in certificates.iterdir():
        expected = 0o600 if path.name.endswith("-key.pem") else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path.name


def test_the_authority_signs_every_certificate_and_nothing_below_them(certificates: Path) -> None:
    authority = load(certificates / "ca.pem")

    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.value.ca, basic.value.path_length, basic.critical) == (True, 0, True)
    for name in NAMES[1:]:
        leaf = load(certificates / f"{name}.pem")
        leaf.verify_directly_issued_by(authority)
        assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        key_usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (key_usage.digital_signature, key_usage.key_cert_sign) == (True, False)


def test_key_identifiers_link_a_certificate_to_its_authority(certificates: Path) -> None:
    authority, leaf = load(certificates / "ca.pem"), load(certificates / "server.pem")

    identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier

    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert identifier == own


def test_each_role_gets_its_usages_only(certificates: Path) -> None:
    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH

    assert usages(load(certificates / "server.pem")) == [server]
    assert usages(load(certificates / "peer.pem")) == [server, client]
    assert usages(load(certificates / "root-client.pem")) == [client]


def test_a_clients_common_name_is_its_name(certificates: Path) -> None:
    subject = load(certificates / "nobody-client.pem").subject

    assert [name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["nobody"]


def test_server_certificates_name_loopback_and_the_hosts_asked_for(tmp_path: Path) -> None:
    plan = CertificatePlan(host_names=("localhost", "127.0.0.1", "::1", "*.logs.example.com"))

    init_folder(tmp_path, plan)

    assert host_names(load(tmp_path / "server.pem")) == list(plan.host_names)
    assert host_names(load(tmp_path / "peer.pem")) == list(plan.host_names)


def test_certificates_hold_from_five_minutes_ago_for_their_lifetime(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan(authority_days=10, leaf_days=3), now=NOW)

    authority, leaf = load(tmp_path / "ca.pem"), load(tmp_path / "server.pem")
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=3)
    assert authority.not_valid_after_utc == NOW + timedelta(days=10)


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan(authority_days=2, leaf_days=3), now=NOW)

    assert load(tmp_path / "server.pem").not_valid_after_utc == NOW + timedelta(days=2)


def test_an_expired_authority_signs_nothing() -> None:
    authority = make_authority("old", days=1, now=NOW)

    with pytest.raises(CertificateError, match="expired on 2026-01-02"):
        issue(authority, "late", Role.CLIENT, host_names=(), days=1, now=NOW + timedelta(days=1))


# ── the folder ──────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_overwritten_or_added_without_force(tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_bytes(b"mine")

    with pytest.raises(CertificateError, match=r"already has server\.pem; nothing was written"):
        init_folder(tmp_path, CertificatePlan())

    assert os.listdir(tmp_path) == ["server.pem"]
    assert (tmp_path / "server.pem").read_bytes() == b"mine"


def test_a_dangling_link_counts_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "ca-key.pem").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(CertificateError, match="already has ca-key"):
        init_folder(tmp_path, CertificatePlan())


def test_force_replaces_all_and_narrows_the_mode_of_keys(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan())
    before = (tmp_path / "server.pem").read_bytes()
    (tmp_path / "server-key.pem").chmod(0o644)

    init_folder(tmp_path, CertificatePlan(), force=True)

    assert (tmp_path / "server.pem").read_bytes() != before
    assert stat.S_IMODE((tmp_path / "server-key.pem").stat().st_mode) == 0o600


def test_extra_files_are_written_once_and_then_kept(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan(), extra_files={"policy.csv": b"first"})
    init_folder(tmp_path, CertificatePlan(), extra_files={"policy.csv": b"second"}, force=True)

    assert (tmp_path / "policy.csv").read_bytes() == b"first"


def test_of_two_who_write_at_once_one_is_told(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def write(content: bytes) -> None:
        barrier.wait()
        try:
            write_files(tmp_path, {"ca-key.pem": content}, force=False)
            outcomes.append(content.decode())
        except CertificateError:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(content,)) for content in (b"one", b"two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = [outcome for outcome in outcomes if outcome != "refused"]
    assert len(outcomes) == 2
    assert (tmp_path / "ca-key.pem").read_text() == winner
    assert os.listdir(tmp_path) == ["ca-key.pem"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CertificateError, match=r"file/certs: Not a directory"):
        init_folder(tmp_path / "file" / "certs", CertificatePlan())


def test_one_more_client_is_signed_by_the_folders_authority(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan())

    paths = issue_into_folder(tmp_path, "alice@example.com", Role.CLIENT)

    assert [path.name for path in paths] == [
        "alice@example.com-client-key.pem",
        "alice@example.com-client.pem",
    ]
    load(paths[1]).verify_directly_issued_by(load(tmp_path / "ca.pem"))


def test_a_server_certificate_is_renewed_with_force_only(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan())
    before = load(tmp_path / "server.pem").serial_number

    with pytest.raises(CertificateError, match="already has server-key"):
        issue_into_folder(tmp_path, "server", Role.SERVER, host_names=["localhost"])
    issue_into_folder(tmp_path, "server", Role.SERVER, host_names=["localhost"], force=True)

    assert load(tmp_path / "server.pem").serial_number != before


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["", "a,b", "a b", "../a", ".a", "*", "a\n", "x" * 65, "é"])
def test_names_that_would_hurt_files_or_policies_are_refused(name: str) -> None:
    with pytest.raises(CertificateError, match="use 1 to 64 letters"):
        CertificatePlan(client_names=(name,))


def test_the_longest_name_is_taken() -> None:
    authority = make_authority("ca", days=1, now=NOW)

    assert issue(authority, "x" * 64, Role.CLIENT, host_names=(), days=1, now=NOW).certificate


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_an_authority_needs_a_name_of_1_to_64_characters(name: str) -> None:
    with pytest.raises(CertificateError, match="authority name"):
        CertificatePlan(authority_name=name)


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_lifetimes_have_bounds(days: int) -> None:
    with pytest.raises(CertificateError, match=f"lifetime of {days} days"):
        CertificatePlan(leaf_days=days)
    with pytest.raises(CertificateError, match=f"lifetime of {days} days"):
        CertificatePlan(authority_days=days)


@pytest.mark.parametrize("host_name", ["", "host:8400", "a b", "-a", "a..b", "a." * 127 + "a", "http://a"])
def test_host_names_that_are_none_are_refused(host_name: str) -> None:
    with pytest.raises(CertificateError, match="DNS name or an IP address"):
        parse_host_name(host_name)


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"ca\.pem: no such file; `raftlog certs init`"):
        read_authority(tmp_path)


def test_an_unreadable_authority_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").mkdir()

    with pytest.raises(CertificateError, match=r"ca\.pem: Is a directory"):
        read_authority(tmp_path)


def test_a_damaged_authority_is_refused(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan())
    (tmp_path / "ca-key.pem").write_bytes(b"damaged")

    with pytest.raises(CertificateError, match=r"ca\.pem or ca-key\.pem is damaged"):
        read_authority(tmp_path)


def test_an_authority_with_anothers_key_is_refused(tmp_path: Path) -> None:
    init_folder(tmp_path, CertificatePlan())
    (tmp_path / "server-key.pem").rename(tmp_path / "ca-key.pem")

    with pytest.raises(CertificateError, match=r"ca-key\.pem is not the key of ca\.pem"):
        read_authority(tmp_path)
