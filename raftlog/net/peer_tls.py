"""TLS between servers: contexts of `ssl` from files, made anew for the next connection when the files change."""

from __future__ import annotations

import logging
import ssl

from raftlog.errors import TlsError
from raftlog.net.tls import IdentityReloader, TlsFiles, TlsIdentity

log = logging.getLogger(__name__)


class TlsContext:
    """The context for one direction. Both sides prove who they are, with TLS 1.2 or later."""

    def __init__(self, files: TlsFiles, *, is_server: bool) -> None:
        """Read the files; TlsError if they cannot be used."""
        self._files = files
        self._is_server = is_server
        self._reloader = IdentityReloader(files)
        try:
            self._context = self._make(self._reloader.identity)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise TlsError(f"{files.cert_file}: {_in_words(error)}") from error

    def current(self) -> ssl.SSLContext:
        """For a new connection: from the files as they are now or, if those cannot be used, as they were."""
        identity = self._reloader.reload_if_changed()
        if identity is not None:
            try:
                self._context = self._make(identity)
            except (
                OSError,
                ValueError,
            ) as error:  # replaced again meanwhile: the next connection looks again
                log.warning(
                    "new certificate cannot be used yet cert_file=%s reason=%s",
                    self._files.cert_file, _in_words(error),
                )  # fmt: skip
        return self._context

    def _make(self, identity: TlsIdentity) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if self._is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = not self._is_server
        # `ssl` takes no bytes here. The key must still be that of the certificate, else it is refused.
        context.load_cert_chain(self._files.cert_file, self._files.key_file)
        context.load_verify_locations(cadata=identity.authorities.decode("ascii", "replace"))
        return context


def _in_words(error: Exception) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or str(error)).lower().replace("_", " ")
