"""A certificate authority in a folder, and the certificates it signs: mutual TLS without another tool.

Keys are ECDSA on the curve P-256: the quickest that gRPC's TLS accepts (it refuses Ed25519).

    ca.pem          ca-key.pem           signs the others; its key is needed only to sign more
    server.pem      server-key.pem       the server's, for the names and addresses that clients connect to
    peer.pem        peer-key.pem         between servers, so it may open and accept connections
    NAME-client.pem NAME-client-key.pem  a client's; its common name NAME is the subject of the access policy
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raftlog.errors import CertificateError

FILE_MODE: Final = 0o644  # of what is not a key
CLOCK_SKEW: Final = timedelta(minutes=5)  # a peer whose clock is this much behind accepts a new certificate

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")

# A name becomes a part of file names and of policy lines. 64 characters are X.509's limit for a common name.
_SUBJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_HOST_NAME: Final = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


class Role(Enum):
    """What the holder of a certificate may do with it."""

    SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
    CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    PEER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePlan:
    """What `init_folder` makes. Lifetimes in days; no certificate outlives its authority."""

    authority_name: str = "raftlog CA"
    server_name: str = "server"
    peer_name: str = "peer"
    host_names: Sequence[str] = LOOPBACK_NAMES  # host names and addresses of the servers
    client_names: Sequence[str] = ("root", "nobody")
    authority_days: int = 3650
    leaf_days: int = 365

    def __post_init__(self) -> None:
        for name in (self.server_name, self.peer_name, *self.client_names):
            check_subject(name)
        if not 1 <= len(self.authority_name) <= 64:
            raise CertificateError(f"authority name {self.authority_name!r}: use 1 to 64 characters")
        for host_name in self.host_names:
            parse_host_name(host_name)
        for days in (self.authority_days, self.leaf_days):
            check_days(days)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as the bytes of their files."""

    certificate: bytes
    key: bytes
    ends: datetime


def check_subject(name: str) -> None:
    if not _SUBJECT.fullmatch(name):
        raise CertificateError(
            f"name {name!r}: use 1 to 64 letters, digits and . _ @ + -, a letter or digit first"
        )


def check_days(days: int) -> None:
    if not 1 <= days <= 36_500:
        raise CertificateError(f"lifetime of {days} days: use 1 to 36500")


def parse_host_name(host_name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host_name))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host_name) or len(host_name) > 253:
        raise CertificateError(f"host name {host_name!r}: give a DNS name or an IP address, without port")
    return x509.DNSName(host_name)


# ── signing ─────────────────────────────────────────────────────────────────────────────────────────


def make_authority(name: str, *, days: int, now: datetime) -> Authority:
    """A new authority, good for `days` from `now`; it signs leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name(name)
    builder = _begin(subject, subject, key.public_key(), now=now, ends=now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Authority, name: str, role: Role, *, host_names: Sequence[str], days: int, now: datetime
) -> Issued:
    """A new key and a certificate for it with the common name `name`, good for `days` but not past its authority."""
    check_subject(name)
    check_days(days)
    ends = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    if ends <= now:
        raise CertificateError(
            f"the authority expired on {ends:%Y-%m-%d}; make a new one with `raftlog certs init`"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _begin(_common_name(name), authority.certificate.subject, key.public_key(), now=now, ends=ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(role.value), critical=False)
    builder = builder.add_extension(_authority_key_identifier(authority), critical=False)
    if host_names:
        names = x509.SubjectAlternativeName([parse_host_name(each) for each in host_names])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Issued(_to_pem(certificate), _key_to_pem(key), ends)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _to_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# ── the folder ──────────────────────────────────────────────────────────────────────────────────────


def init_folder(
    folder: Path,
    plan: CertificatePlan,
    *,
    force: bool = False,
    extra_files: Mapping[str, bytes] | None = None,
    now: datetime | None = None,
) -> list[Path]:
    """Make the folder, a new authority and its certificates, and put `extra_files` beside them.

    Returns the paths written. Without `force`, CertificateError if a certificate or key exists, and then nothing is
    written; with it they are replaced one by one, each in one step. Extra files that exist are always kept.
    """
    now = now or datetime.now(UTC)
    authority = make_authority(plan.authority_name, days=plan.authority_days, now=now)
    files = {"ca-key.pem": _key_to_pem(authority.key), "ca.pem": _to_pem(authority.certificate)}
    leaves = [
        ("server", plan.server_name, Role.SERVER, plan.host_names),
        ("peer", plan.peer_name, Role.PEER, plan.host_names),
        *((f"{name}-client", name, Role.CLIENT, ()) for name in plan.client_names),
    ]
    for stem, name, role, host_names in leaves:
        issued = issue(authority, name, role, host_names=host_names, days=plan.leaf_days, now=now)
        files |= _files_of(stem, issued)
    missing = {
        name: content for name, content in (extra_files or {}).items() if not os.path.lexists(folder / name)
    }
    return write_files(folder, files | missing, force=force)


def issue_into_folder(
    folder: Path,
    name: str,
    role: Role,
    *,
    host_names: Sequence[str] = (),
    days: int = 365,
    force: bool = False,
    now: datetime | None = None,
) -> list[Path]:
    """Sign one more certificate with the folder's authority; with `force`, renew one that is there.

    Writes NAME-client.pem for a client, else server.pem or peer.pem, and the key beside it.
    """
    authority = read_authority(folder)
    issued = issue(authority, name, role, host_names=host_names, days=days, now=now or datetime.now(UTC))
    stem = f"{name}-client" if role is Role.CLIENT else role.name.lower()
    return write_files(folder, _files_of(stem, issued), force=force)


def read_authority(folder: Path) -> Authority:
    """The authority that `init_folder` made; CertificateError if it is not there or is not whole."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), password=None)
    except FileNotFoundError as error:
        raise CertificateError(f"{error.filename}: no such file; `raftlog certs init` makes it") from error
    except OSError as error:
        raise CertificateError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{folder}: ca.pem or ca-key.pem is damaged or encrypted") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateError(f"{folder}: ca-key.pem is not the key of ca.pem")
    return Authority(certificate, key)


def _files_of(stem: str, issued: Issued) -> dict[str, bytes]:
    return {f"{stem}-key.pem": issued.key, f"{stem}.pem": issued.certificate}


def write_files(folder: Path, files: Mapping[str, bytes], *, force: bool) -> list[Path]:
    """Write each file whole or not at all, keys (`*-key.pem`) readable by their owner only from the start.

    Without `force`, CertificateError if one of them exists, and then none is written.
    """
    taken = [name for name in files if os.path.lexists(folder / name)]
    if taken and not force:
        raise CertificateError(
            f"{folder} already has {', '.join(taken)}; nothing was written. --force replaces them"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write_file(folder / name, content, replace=force)
        _sync_folder(folder)
    except OSError as error:
        raise CertificateError(f"{error.filename2 or error.filename or folder}: {error.strerror}") from error
    return [folder / name for name in files]


def _write_file(path: Path, content: bytes, *, replace: bool) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # its mode is 0600
    try:
        with open(descriptor, "wb") as file:
            if not path.name.endswith("-key.pem"):
                os.fchmod(descriptor, FILE_MODE)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename, never replaces what came meanwhile
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
