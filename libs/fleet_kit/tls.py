"""TLS of a service: whom it trusts, what it shows, and files that are read again when they change."""

import asyncio
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
import structlog
from cryptography import x509

from fleet_kit.metrics import CERTIFICATE_EXPIRY

__all__ = ["Tls", "TlsFiles", "client_context", "database_address"]

log = structlog.get_logger()

CHECK_SECONDS: Final = 10.0
"""How often the files are compared with what was read of them."""
_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class TlsFiles:
    """PEM files, by the settings' names without their `tls_`."""

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file belong together: set both, or neither")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("tls_client_ca_file needs tls_certificate_file: clients show a certificate over TLS alone")

    def stamps(self) -> tuple[_Stamp | None, ...]:
        """What changes with the files' contents, also where a mounted secret is exchanged by a symbolic link."""
        return tuple(map(_stamp, (self.ca_file, self.certificate_file, self.key_file, self.client_ca_file)))


class Tls:
    """The TLS contexts of one process. A connection that is open keeps what it was opened with.

    Raises:
        ValueError: a file that cannot be read or is not PEM; names the setting.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self.client = client_context(files.ca_file)
        """For connections to other services and servers: the public authorities, and those of `tls_ca_file`."""
        self.server: ssl.SSLContext | None = None
        """For the HTTP side; None where it is plain."""
        if files.certificate_file is not None:
            self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.server.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load()
        self._seen = files.stamps()

    @property
    def requires_client_certificate(self) -> bool:
        """Whether HTTP clients must show a certificate."""
        return self._files.client_ca_file is not None

    def reload(self) -> bool:
        """Read the files again if one has changed; whether they were. A file that cannot be read leaves all as it is.

        Authorities that were taken out of a file stay trusted until the process ends: a context only takes more.
        """
        found = self._files.stamps()
        if found == self._seen:
            return False
        try:
            self._load()
        except ValueError as error:
            log.warning("certificates_not_reloaded", reason=str(error))
            return False
        self._seen = found
        log.info("certificates_reloaded")
        return True

    async def watch(self) -> None:
        """Call `reload` again and again, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await asyncio.to_thread(self.reload)

    def _load(self) -> None:
        files = self._files
        if files.ca_file is not None:
            _trust(self.client, files.ca_file, "tls_ca_file")
        if self.server is None or files.certificate_file is None or files.key_file is None:
            return
        # A pair that does not fit, half-way through a renewal, must not reach the contexts.
        _show(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files.certificate_file, files.key_file)
        for context in (self.server, self.client):
            _show(context, files.certificate_file, files.key_file)
        if files.client_ca_file is not None:
            _trust(self.server, files.client_ca_file, "tls_client_ca_file")
            # Probes have none: the HTTP server refuses what is not theirs.
            self.server.verify_mode = ssl.CERT_OPTIONAL
        shown = x509.load_pem_x509_certificate(files.certificate_file.read_bytes())
        CERTIFICATE_EXPIRY.set(shown.not_valid_after_utc.timestamp())


tls_of = cache(Tls)
"""One `Tls` for the same files: whoever needs a context gets the one that is kept up to date."""


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """A context that verifies servers by the public authorities (SSL_CERT_FILE, else certifi's) and those of a file.

    Raises ValueError for a file that cannot be read or is not PEM.
    """
    context = httpx.create_ssl_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        _trust(context, ca_file, "tls_ca_file")
    return context


def database_address(url: str, ca_file: Path | None) -> str:
    """A PostgreSQL URL that verifies its server by `ca_file`, where it verifies and names no `sslrootcert` itself."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if ca_file is None or query.get("sslmode") not in {"verify-ca", "verify-full"} or "sslrootcert" in query:
        return url
    return urlunsplit(parts._replace(query=urlencode(query | {"sslrootcert": str(ca_file)})))


def _trust(context: ssl.SSLContext, path: Path, setting: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{setting} is {path}, expected certificates as PEM: {_reason(error)}") from error


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"tls_certificate_file is {certificate}, tls_key_file is {key}, expected a certificate with its chain and "
            f"its key without a passphrase, as PEM: {_reason(error)}"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or getattr(error, "reason", None) or str(error)


def _stamp(path: Path | None) -> _Stamp | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
