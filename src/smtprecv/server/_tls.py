"""TLS around a stream: contexts that follow their files, and what is known of a client behind its handshake.

Its one rule: whatever comes before the end of the handshake is the client's trouble, one line in the log; octets
that were sent in clear are never read through TLS.
"""

from __future__ import annotations

import logging
import math
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeGuard, final, runtime_checkable

import trio

from smtprecv.errors import ConfigError
from smtprecv.protocol import Tls

_log: Final = logging.getLogger("smtprecv.server")

_CHECK_INTERVAL: Final = 1.0
"""Seconds for which the files of a certificate are taken to be as they were."""

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


@runtime_checkable
class TlsSource(Protocol):
    """Gives the TLS context for each new handshake."""

    async def context(self) -> ssl.SSLContext:
        """Give a context for the server's side; what it raises is our fault, and ends the connection."""
        ...


@final
class TlsFiles:
    """A TlsSource over a certificate chain and its key in PEM files, which are read again when they have changed.

    Files that cannot be read, or do not belong together, are one line in the log, and the certificate stays as it
    was: so they may be replaced one after the other. ``client_ca``: certificates of those who may vouch for clients
    (AUTH EXTERNAL); None asks no client for one. To make one blocks while the files are read: ConfigError if
    that cannot be done. TLS 1.2 is the least (RFC 8996 sections 4 and 5).
    """

    def __init__(
        self,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str],
        *,
        client_ca: str | os.PathLike[str] | None = None,
    ) -> None:
        """Read the files."""
        self._certificate: Final = Path(certificate)
        self._key: Final = Path(key)
        self._client_ca: Final = None if client_ca is None else Path(client_ca)
        try:
            self._stamp: _Stamp = self._look()
            self._context = self._load()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            msg = f"no TLS with {self._certificate} and {self._key}: {_reason(error)}"
            raise ConfigError(msg) from None
        self._trouble = ""
        self._looked_at = -math.inf

    async def context(self) -> ssl.SSLContext:
        """Give the context of the newest files; at most once a second they are looked at, in a thread."""
        now = trio.current_time()
        # Another run of Trio has another clock.
        if abs(now - self._looked_at) >= _CHECK_INTERVAL:
            self._looked_at = now
            await trio.to_thread.run_sync(self._follow)
        return self._context

    def _follow(self) -> None:
        try:
            # Looked at before they are read: what changes meanwhile is read once more.
            stamp = self._look()
            if stamp != self._stamp:
                self._context, self._stamp = self._load(), stamp
                _log.info("read the TLS certificate %s anew", self._certificate)
            trouble = ""
        except (OSError, ValueError) as error:
            trouble = _reason(error)
        if trouble and trouble != self._trouble:
            _log.warning("the TLS certificate stays as it was: %s", trouble)
        self._trouble = trouble

    def _look(self) -> _Stamp:
        paths = [path for path in (self._certificate, self._key, self._client_ca) if path is not None]
        return tuple((status.st_ino, status.st_ctime_ns, status.st_size) for status in map(os.stat, paths))

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._client_ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Some builds of Python take a connection that breaks off for one that was closed (RFC 8446 section 6.1).
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        # A key that wants a password would ask for it at the terminal, in the middle of serving.
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


async def secure(
    stream: trio.abc.Stream, source: ssl.SSLContext | TlsSource, seconds: float
) -> tuple[trio.SSLStream[trio.abc.Stream], Tls]:
    """Shake hands as the server, and give the stream inside TLS and what is known of it.

    BrokenResourceError if that fails, or takes more than ``seconds``: the stream is then of no more use.
    """
    context = source if isinstance(source, ssl.SSLContext) else await source.context()
    secured = trio.SSLStream(stream, context, server_side=True)
    with trio.move_on_after(seconds):
        await secured.do_handshake()
        return secured, _known_of(secured)
    msg = "no TLS handshake in time"
    raise trio.BrokenResourceError(msg)


def _known_of(secured: trio.SSLStream[trio.abc.Stream]) -> Tls:
    version: str | None = secured.version()
    cipher: tuple[str, str, int] | None = secured.cipher()
    name, _, bits = cipher or ("", "", 0)
    certificate: object = secured.getpeercert()
    return Tls(version or "", name, bits, client_name_in(certificate))


def client_name_in(certificate: object) -> str | None:
    """Give the name in a verified certificate, as ``ssl`` shows it: its first mail address, DNS name or common name."""
    if not _is_mapping(certificate):
        return None
    subject = certificate.get("subject", ())
    names = [
        *_pairs(certificate.get("subjectAltName", ())),
        *(pair for part in _items(subject) for pair in _pairs(part)),
    ]
    for wanted in ("email", "DNS", "commonName"):
        for kind, name in names:
            if kind == wanted and name.isprintable() and name:
                return name
    return None


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def _is_tuple(value: object) -> TypeGuard[tuple[object, ...]]:
    return isinstance(value, tuple)


def _items(value: object) -> tuple[object, ...]:
    return value if _is_tuple(value) else ()


def _pairs(value: object) -> Iterator[tuple[str, str]]:
    for item in _items(value):
        match item:
            case (str(kind), str(name)):
                yield kind, name
            case _:
                pass


def _no_password() -> str:
    msg = "the key needs a password"
    raise ValueError(msg)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)
