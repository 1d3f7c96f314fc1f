from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from raftlog.errors import TlsError
from raftlog.net.certificates import (
    CertificatePlan,
    Role,
    init_folder,
    issue_into_folder,
    make_authority,
)
from raftlog.net.tls import (
    FILE_BYTES_MAX,
    IdentityReloader,
    TlsFiles,
    TlsIdentity,
    channel_credentials,
    read_identity,
    server_credentials,
)

CALL_DEADLINE_S = 5.0


@pytest.fixture
def folder(certificates: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(certificates, tmp_path / "certs"))


@pytest.fixture
def files(folder: Path) -> TlsFiles:
    return TlsFiles.in_folder(folder, "server")


def refusal(files: TlsFiles, **when: datetime) -> str:
    with pytest.raises(TlsError) as caught:
        read_identity(files, **when)
    return str(caught.value)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_identity_tells_its_subject_serial_and_end(files: TlsFiles) -> None:
    certificate = x509.load_pem_x509_certificate(Path(files.cert_file).read_bytes())

    identity = read_identity(files)

    assert identity.subject == "server"
    assert identity.serial_number == certificate.serial_number
    assert identity.ends == certificate.not_valid_after_utc


def test_an_identity_does_not_show_its_key(files: TlsFiles) -> None:
    assert "PRIVATE" not in repr(read_identity(files))


@pytest.mark.parametrize("field", ["cert_file", "key_file", "ca_file"])
def test_a_missing_file_is_named(files: TlsFiles, field: str) -> None:
    path = getattr(files, field)
    Path(path).unlink()

    assert refusal(files) == f"{path}: no such file; `raftlog certs init` makes one"


def test_a_file_that_may_not_be_read_is_named(files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)

    assert refusal(files) == f"{files.cert_file}: this user may not read it; change its owner or mode"


def test_a_folder_instead_of_a_file_is_named(files: TlsFiles, tmp_path: Path) -> None:
    files = TlsFiles(cert_file=str(tmp_path), key_file=files.key_file, ca_file=files.ca_file)

    assert refusal(files) == f"{tmp_path}: Is a directory"


def test_a_file_larger_than_any_certificate_is_refused(files: TlsFiles) -> None:
    Path(files.ca_file).write_bytes(b"x" * (FILE_BYTES_MAX + 1))

    assert refusal(files).startswith(f"{files.ca_file}: more than {FILE_BYTES_MAX} bytes")


@pytest.mark.parametrize("damage", [b"", b"hello", b"half"])
@pytest.mark.parametrize("field", ["cert_file", "key_file", "ca_file"])
def test_a_damaged_file_is_named_and_not_quoted(files: TlsFiles, field: str, damage: bytes) -> None:
    path = Path(getattr(files, field))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == b"half" else damage)

    message = refusal(files)

    assert message.startswith(f"{path}: no ")
    assert "or a damaged one" in message


def test_an_error_never_carries_key_material(files: TlsFiles) -> None:
    path = Path(files.key_file)
    secret = path.read_text().splitlines()[1]
    path.write_text(path.read_text().replace("END PRIVATE", "END PRIVATF"))

    with pytest.raises(TlsError) as caught:
        read_identity(files)

    assert secret not in str(caught.getrepr(style="long", showlocals=False))
    assert caught.value.__cause__ is None


def test_an_encrypted_key_is_refused(files: TlsFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    Path(files.key_file).write_bytes(encrypted)

    assert refusal(files) == f"{files.key_file}: the key is encrypted; store it decrypted, with mode 0600"


def test_a_key_of_another_certificate_is_refused(files: TlsFiles, folder: Path) -> None:
    (folder / "peer-key.pem").rename(files.key_file)

    message = refusal(files)

    assert message == f"{files.key_file}: not the key of {files.cert_file}; copy both from the same place"


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=["ed25519", "p521", "rsa1024"],
)
def test_keys_that_grpc_refuses_are_refused_with_a_reason(files: TlsFiles, key: Any) -> None:
    Path(files.key_file).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    assert refusal(files).startswith(f"{files.key_file}: gRPC takes ECDSA keys on P-256 or P-384")


def test_an_rsa_key_of_2048_bits_is_taken(files: TlsFiles, folder: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    Path(files.key_file).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
    certificate = builder.not_valid_after(now + timedelta(days=1)).sign(authority, hashes.SHA256())
    Path(files.cert_file).write_bytes(certificate.public_bytes(Encoding.PEM))

    assert read_identity(files).subject == "rsa"


def test_the_last_moment_of_a_certificate_is_good_and_the_next_is_not(files: TlsFiles) -> None:
    ends = read_identity(files).ends

    assert read_identity(files, now=ends).ends == ends
    message = refusal(files, now=ends + timedelta(seconds=1))
    assert message == f"{files.cert_file}: expired on {ends:%Y-%m-%d %H:%M} UTC; renew it"


def test_a_certificate_from_the_future_is_refused(files: TlsFiles) -> None:
    message = refusal(files, now=datetime(2020, 1, 1, tzinfo=UTC))

    assert message.startswith(f"{files.cert_file}: not valid before ")
    assert message.endswith("; check the clock")


def test_a_certificate_that_is_no_authority_is_no_ca_file(files: TlsFiles, folder: Path) -> None:
    files = TlsFiles(cert_file=files.cert_file, key_file=files.key_file, ca_file=str(folder / "peer.pem"))

    assert refusal(files).startswith(f"{files.ca_file}: not the certificate of an authority")


def test_an_expired_authority_is_refused(files: TlsFiles) -> None:
    old = make_authority("old", days=1, now=datetime(2020, 1, 1, tzinfo=UTC))
    Path(files.ca_file).write_bytes(old.certificate.public_bytes(Encoding.PEM))

    assert refusal(files) == f"{files.ca_file}: expired on 2020-01-02 00:00 UTC; renew it"


def test_a_namesake_of_the_right_authority_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    init_folder(tmp_path / "other", CertificatePlan())
    (tmp_path / "other" / "ca.pem").rename(files.ca_file)

    assert refusal(files).startswith(
        f"{files.ca_file}: has the name of the authority that signed {files.cert_file}, but another key"
    )


def test_a_bundle_may_hold_the_old_and_the_new_authority_of_a_name(files: TlsFiles, tmp_path: Path) -> None:
    init_folder(tmp_path / "other", CertificatePlan())
    with open(files.ca_file, "ab") as bundle:
        bundle.write((tmp_path / "other" / "ca.pem").read_bytes())

    assert read_identity(files).subject == "server"


def test_a_certificate_from_another_authority_is_warned_about(
    files: TlsFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    init_folder(tmp_path / "other", CertificatePlan(authority_name="clients"))
    (tmp_path / "other" / "ca.pem").rename(files.ca_file)

    read_identity(files)

    assert [record.getMessage() for record in caplog.records] == [
        f"certificate is from no authority in the CA file cert_file={files.cert_file} ca_file={files.ca_file}"
    ]


@pytest.mark.parametrize(
    ("mode", "is_warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)]
)
def test_a_key_that_others_may_read_is_warned_about(
    files: TlsFiles, caplog: pytest.LogCaptureFixture, mode: int, is_warned: bool
) -> None:
    Path(files.key_file).chmod(mode)

    read_identity(files)

    warning = f"private key is readable by others path={files.key_file} mode={mode:04o}; chmod 600"
    assert [record.getMessage() for record in caplog.records] == ([warning] if is_warned else [])


# ── reloading ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The first words of what tls.py logs."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage().split(" serial_number")[0])  # type: ignore[method-assign]
    caplog.set_level(logging.INFO, "raftlog.net.tls")
    logging.getLogger("raftlog.net.tls").addHandler(handler)
    yield found
    logging.getLogger("raftlog.net.tls").removeHandler(handler)


def renew_server(folder: Path) -> int:
    """Replace the server's certificate and key; the new serial number."""
    issue_into_folder(folder, "server", Role.SERVER, host_names=["localhost"], force=True)
    return x509.load_pem_x509_certificate((folder / "server.pem").read_bytes()).serial_number


def test_unchanged_files_are_not_read_again(files: TlsFiles, messages: list[str]) -> None:
    reloader = IdentityReloader(files)

    assert reloader.reload_if_changed() is None
    assert messages == []


def test_changed_files_are_taken_up_once(files: TlsFiles, folder: Path, messages: list[str]) -> None:
    reloader = IdentityReloader(files)
    serial_number = renew_server(folder)

    identity = reloader.reload_if_changed()

    assert identity is not None
    assert identity == reloader.identity
    assert identity.serial_number == serial_number
    assert reloader.reload_if_changed() is None
    assert messages == [f"certificate reloaded cert_file={files.cert_file} subject=server"]


def test_half_a_renewal_keeps_the_old_pair_until_the_other_half_comes(
    files: TlsFiles, folder: Path, messages: list[str]
) -> None:
    reloader = IdentityReloader(files)
    old, old_certificate = reloader.identity, (folder / "server.pem").read_bytes()
    serial_number = renew_server(folder)
    new_certificate = (folder / "server.pem").read_bytes()
    (folder / "server.pem").write_bytes(old_certificate)

    assert reloader.reload_if_changed() is None
    assert reloader.reload_if_changed() is None
    assert reloader.identity == old
    assert messages == ["new certificate cannot be used; the old one stays"]

    (folder / "server.pem").write_bytes(new_certificate)

    identity = reloader.reload_if_changed()
    assert identity is not None
    assert identity.serial_number == serial_number


def test_files_that_vanish_keep_the_old_pair(files: TlsFiles, folder: Path, messages: list[str]) -> None:
    reloader = IdentityReloader(files)
    shutil.rmtree(folder)

    assert reloader.reload_if_changed() is None
    assert messages == ["new certificate cannot be used; the old one stays"]


# ── against a real server ───────────────────────────────────────────────────────────────────────────


async def answer_with_common_name(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return b",".join(context.auth_context().get("x509_common_name", []))


@asynccontextmanager
async def serving(credentials: grpc.ServerCredentials) -> AsyncIterator[int]:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer_with_common_name)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Whoami": handler}),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def whoami(port: int, credentials: grpc.ChannelCredentials) -> str:
    """The subject that the server sees, over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        return (await whoami_call(channel)(b"", timeout=CALL_DEADLINE_S)).decode()


def whoami_call(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary("/test/Whoami", request_serializer=bytes, response_deserializer=bytes)


async def served_serial_number(port: int, folder: Path) -> int:
    """Of the certificate that a new connection gets."""

    def connect() -> int:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "root-client.pem", folder / "root-client-key.pem")
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=CALL_DEADLINE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            certificate = secure.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number

    return await asyncio.to_thread(connect)


def test_the_server_sees_the_common_name_of_its_client(files: TlsFiles, folder: Path) -> None:
    async def scenario() -> None:
        async with serving(server_credentials(files)) as port:
            for name in ("root", "nobody"):
                client = channel_credentials(TlsFiles.in_folder(folder, f"{name}-client"))
                assert await whoami(port, client) == name

    asyncio.run(scenario())


def test_connections_without_a_fit_certificate_are_refused(
    files: TlsFiles, folder: Path, tmp_path: Path
) -> None:
    init_folder(tmp_path / "other", CertificatePlan())
    shutil.copy(folder / "ca.pem", tmp_path / "other" / "real-ca.pem")
    other = tmp_path / "other"
    authorities = (folder / "ca.pem").read_bytes()
    refused = {
        "no certificate": grpc.ssl_channel_credentials(authorities),
        "another authority": grpc.ssl_channel_credentials(
            authorities,
            (other / "root-client-key.pem").read_bytes(),
            (other / "root-client.pem").read_bytes(),
        ),
        "a server's": channel_credentials(files),
    }

    async def scenario() -> None:
        async with serving(server_credentials(files)) as port:
            for name, credentials in refused.items():
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await whoami(port, credentials)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, name

    asyncio.run(scenario())


def test_a_client_refuses_a_server_of_another_authority(files: TlsFiles, tmp_path: Path) -> None:
    init_folder(tmp_path / "other", CertificatePlan())

    async def scenario() -> None:
        async with serving(server_credentials(files)) as port:
            with pytest.raises(grpc.aio.AioRpcError, match="CERTIFICATE_VERIFY_FAILED"):
                await whoami(port, channel_credentials(TlsFiles.in_folder(tmp_path / "other", "root-client")))

    asyncio.run(scenario())


def test_a_renewed_certificate_is_served_without_a_restart(files: TlsFiles, folder: Path) -> None:
    loaded: list[TlsIdentity] = []

    async def scenario() -> None:
        client = channel_credentials(TlsFiles.in_folder(folder, "root-client"))
        async with serving(server_credentials(files, on_loaded=loaded.append)) as port:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(f"localhost:{port}", client, options=options) as open_channel:
                call = whoami_call(open_channel)
                await call(b"", timeout=CALL_DEADLINE_S)
                assert await served_serial_number(port, folder) == loaded[0].serial_number

                serial_number = renew_server(folder)

                assert await served_serial_number(port, folder) == serial_number
                assert await call(b"", timeout=CALL_DEADLINE_S) == b"root"  # on the connection from before
        assert [each.serial_number for each in loaded[1:]] == [serial_number]

    asyncio.run(scenario())


def test_a_half_written_certificate_does_not_break_serving(
    files: TlsFiles, folder: Path, messages: list[str]
) -> None:
    async def scenario() -> None:
        client = channel_credentials(TlsFiles.in_folder(folder, "root-client"))
        async with serving(server_credentials(files)) as port:
            before = await served_serial_number(port, folder)
            whole = (folder / "server.pem").read_bytes()

            (folder / "server.pem").write_bytes(whole[: len(whole) // 2])

            assert await served_serial_number(port, folder) == before
            assert await whoami(port, client) == "root"
            assert messages == ["new certificate cannot be used; the old one stays"]

    asyncio.run(scenario())


def test_a_replaced_authority_is_trusted_without_a_restart(files: TlsFiles, folder: Path) -> None:
    async def scenario() -> None:
        async with serving(server_credentials(files)) as port:
            init_folder(folder, CertificatePlan(), force=True)

            client = channel_credentials(TlsFiles.in_folder(folder, "root-client"))
            assert await whoami(port, client) == "root"

    asyncio.run(scenario())


def test_a_server_does_not_start_with_bad_files(files: TlsFiles) -> None:
    Path(files.key_file).unlink()

    with pytest.raises(TlsError, match="no such file"):
        server_credentials(files)
    with pytest.raises(TlsError, match="no such file"):
        channel_credentials(files)
