"""TLS from files: what a server presents, what both sides trust, and taking up new files without a restart.

A server asks every client for a certificate that an authority in its `ca_file` signed, and refuses the connection
without one. Files are read when the credentials are made. A server's are looked at again, by three `stat` calls, for
each new connection: changed files are taken up if they are good together, else the old ones stay in use. Certificate
and key cannot be replaced in one step, so for a moment they do not match; that moment is survived, and so is a
half-written file. Connections that are open keep what they began with.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from raftlog.errors import TlsError
from raftlog.file_stamp import stamp_files

log = logging.getLogger(__name__)

RSA_BITS_MIN: Final = 2048
CURVES: Final = (ec.SECP256R1, ec.SECP384R1)  # gRPC's TLS offers no others, and no Ed25519
FILE_BYTES_MAX: Final = 1024 * 1024  # all public authorities have 0.2 MB; beyond it the path is wrong

MAKE_FILES: Final = "`raftlog certs init` makes one"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files: this side's certificate (with intermediates behind it), its key, and whom it trusts."""

    cert_file: str
    key_file: str
    ca_file: str

    @classmethod
    def in_folder(cls, folder: str | os.PathLike[str], name: str) -> Self:
        """The files that `raftlog certs init` names for `name`: "server", "peer", "root-client"."""
        path = Path(folder)
        return cls(
            cert_file=str(path / f"{name}.pem"),
            key_file=str(path / f"{name}-key.pem"),
            ca_file=str(path / "ca.pem"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """The contents of TlsFiles, checked: the key is the certificate's, both are of a kind that gRPC accepts."""

    certificate_chain: bytes
    authorities: bytes
    subject: str  # common name, "" if it has none
    serial_number: int
    ends: datetime
    private_key: bytes = field(repr=False)


# ── reading and checking ────────────────────────────────────────────────────────────────────────────


def read_identity(files: TlsFiles, *, now: datetime | None = None) -> TlsIdentity:
    """The contents of the files, or TlsError naming the file that is at fault and what to do.

    Logs a warning if others may read the key, or if no authority in `ca_file` signed the certificate, which is right
    only where clients and servers have different authorities.
    """
    now = now or datetime.now(UTC)
    certificate_chain = _read(files.cert_file)
    private_key = _read(files.key_file)
    authorities = _read(files.ca_file)
    chain = _parse_certificates(files.cert_file, certificate_chain)
    _check_times(files.cert_file, chain[0], now)
    key = _parse_key(files.key_file, private_key)
    _check_key_kind(files.key_file, key)
    if key.public_key() != chain[0].public_key():
        raise TlsError(f"{files.key_file}: not the key of {files.cert_file}; copy both from the same place")
    _check_authorities(files, _parse_certificates(files.ca_file, authorities), chain[-1], now)
    _warn_if_others_read(files.key_file)
    return TlsIdentity(
        certificate_chain=certificate_chain,
        authorities=authorities,
        subject=_common_name(chain[0]),
        serial_number=chain[0].serial_number,
        ends=chain[0].not_valid_after_utc,
        private_key=private_key,
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise TlsError(f"{path}: no such file; {MAKE_FILES}") from error
    except PermissionError as error:
        raise TlsError(f"{path}: this user may not read it; change its owner or mode") from error
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise TlsError(f"{path}: more than {FILE_BYTES_MAX} bytes, so not a PEM file; check the path")
    return content


def _parse_certificates(path: str, content: bytes) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for certificate in certificates:
            certificate.extensions  # noqa: B018  # parsed when asked for; damage shows now
        return certificates
    except ValueError as error:
        raise TlsError(f"{path}: no certificate in PEM form, or a damaged one; {MAKE_FILES}") from error


def _parse_key(path: str, content: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(content, password=None)
    except TypeError:
        raise TlsError(f"{path}: the key is encrypted; store it decrypted, with mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):  # without the cause: it might quote what it could not parse
        raise TlsError(f"{path}: no private key in PEM form, or a damaged one; {MAKE_FILES}") from None


def _check_key_kind(path: str, key: PrivateKeyTypes) -> None:
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, CURVES):
        return
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= RSA_BITS_MIN:
        return
    raise TlsError(
        f"{path}: gRPC takes ECDSA keys on P-256 or P-384, and RSA of {RSA_BITS_MIN} bits and more"
    )


def _check_times(path: str, certificate: x509.Certificate, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise TlsError(f"{path}: expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it")
    if now < certificate.not_valid_before_utc:
        raise TlsError(
            f"{path}: not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; check the clock"
        )


def _check_authorities(
    files: TlsFiles, authorities: Sequence[x509.Certificate], topmost: x509.Certificate, now: datetime
) -> None:
    """Refuse a CA file that cannot verify anybody, or that holds a namesake of the authority behind `topmost`."""
    if not any(_is_authority(each) for each in authorities):
        raise TlsError(
            f"{files.ca_file}: not the certificate of an authority; give the one that signs the others"
        )
    if all(now > each.not_valid_after_utc for each in authorities):
        _check_times(files.ca_file, authorities[0], now)
    namesakes = [each for each in authorities if each.subject == topmost.issuer]
    if not namesakes:
        log.warning(
            "certificate is from no authority in the CA file cert_file=%s ca_file=%s",
            files.cert_file, files.ca_file,
        )  # fmt: skip
    elif not any(_has_signed(each, topmost) for each in namesakes):
        raise TlsError(
            f"{files.ca_file}: has the name of the authority that signed {files.cert_file}, but another key;"
            " copy both from the same place"
        )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return certificate.subject == certificate.issuer  # as X.509 version 1 did it


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _warn_if_others_read(path: str) -> None:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("private key is readable by others path=%s mode=%s; chmod 600", path, f"{mode:04o}")


# ── credentials ─────────────────────────────────────────────────────────────────────────────────────


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """For a client: proves `cert_file`, trusts servers from `ca_file`. Raises TlsError; files are read once."""
    identity = read_identity(files)
    return grpc.ssl_channel_credentials(
        root_certificates=identity.authorities,
        private_key=identity.private_key,
        certificate_chain=identity.certificate_chain,
    )


def server_credentials(
    files: TlsFiles, *, on_loaded: Callable[[TlsIdentity], None] | None = None
) -> grpc.ServerCredentials:
    """For a server: demands client certificates, takes up changed files with the next connection.

    Raises TlsError if the files cannot be used now; later only logs it. `on_loaded` is called now and after each
    change, from a thread of grpc's; it must be quick and must not raise.
    """
    reloader = IdentityReloader(files)
    told = on_loaded or _ignore
    told(reloader.identity)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        identity = reloader.reload_if_changed()
        if identity is None:
            return None
        told(identity)
        return _server_configuration(identity)

    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(reloader.identity),
        fetch,  # type: ignore[arg-type]  # the stubs do not know that None means unchanged
        require_client_authentication=True,
    )


def _ignore(_: TlsIdentity) -> None:
    pass


def _server_configuration(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    pair = (identity.private_key, identity.certificate_chain)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=identity.authorities)


class IdentityReloader:
    """The newest usable identity in some files. Its calls may come from several threads."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files; TlsError if they cannot be used."""
        self._files = files
        self._lock = threading.Lock()
        self._paths = (files.cert_file, files.key_file, files.ca_file)
        self._stamps = stamp_files(self._paths)  # of the files as last read
        self.identity = read_identity(files)

    def reload_if_changed(self) -> TlsIdentity | None:
        """The new identity if the files changed and are good together; None if the one before stays.

        Files that cannot be used are logged once and not read again until they change again.
        """
        with self._lock:
            stamps = stamp_files(self._paths)
            if stamps == self._stamps:
                return None
            self._stamps = stamps
            try:
                self.identity = read_identity(self._files)
            except TlsError as error:
                log.error(
                    "new certificate cannot be used; the old one stays serial_number=%x ends=%s reason=%s",
                    self.identity.serial_number, self.identity.ends.isoformat(), error,
                )  # fmt: skip
                return None
            log.info(
                "certificate reloaded cert_file=%s subject=%s serial_number=%x ends=%s",
                self._files.cert_file, self.identity.subject,
                self.identity.serial_number, self.identity.ends.isoformat(),
            )  # fmt: skip
            return self.identity
