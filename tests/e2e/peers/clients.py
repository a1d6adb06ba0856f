"""Other people's clients with what each must know in any case: the rest is options of theirs.

`curl` and `swaks` run to their end and may fail: their exit status and what they said are for the test to judge.
`s_client` is a conversation under TLS, command by command; `aiosmtp` is aiosmtplib's client inside TLS.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import aiosmtplib
from tests.e2e import programs
from tests.e2e.wire import Wire

ANNA: Final = "anna@example.com"
_GREETING: Final = "client.example.com"
_DEADLINE: Final = 30.0


def curl(url: str, to: str, message: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Send a file, whose lines end in CRLF, to smtp://HOST:PORT or smtps://HOST:PORT."""
    envelope = ["--mail-from", ANNA, "--mail-rcpt", to, "--upload-file", str(message)]
    return programs.outcome("curl", "--silent", "--show-error", *envelope, *options, f"{url}/{_GREETING}")


def swaks(address: str, to: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Send what swaks makes up, or as its options say, to HOST:PORT; it prints the whole session."""
    return programs.outcome("swaks", "--server", address, "--helo", _GREETING, "--from", ANNA, "--to", to, *options)


@contextmanager
def s_client(log: Path, address: str, *options: str) -> Iterator[Wire]:
    """Talk to HOST:PORT through `openssl s_client`: TLS at once, or with `-starttls smtp` (or lmtp) behind that.

    Behind STARTTLS there is no banner. `log` holds what OpenSSL says of protocol, cipher and certificate.
    """
    ours, theirs = socket.socketpair()
    with ours, log.open("wb") as said:
        with theirs:
            process = subprocess.Popen(
                [programs.find("openssl"), "s_client", "-brief", "-nocommands", "-connect", address, *options],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=said,
            )
        try:
            ours.settimeout(_DEADLINE)
            with Wire(ours, greets="-starttls" not in options) as wire:
                yield wire
            process.wait(_DEADLINE)
        finally:
            process.kill()
            process.wait()


@asynccontextmanager
async def aiosmtp(address: str, context: ssl.SSLContext, *, starttls: bool) -> AsyncIterator[aiosmtplib.SMTP]:
    """Connect to HOST:PORT, and at the end wait until the connection is closed, for which aiosmtplib does not."""
    host, _, port = address.rpartition(":")
    client = aiosmtplib.SMTP(
        hostname=host, port=int(port), use_tls=not starttls, start_tls=starttls, tls_context=context, timeout=_DEADLINE
    )
    async with client:
        assert client.transport is not None
        connection: TransportSocket = client.transport.get_extra_info("socket")
        yield client
    async with asyncio.timeout(_DEADLINE):
        while connection.fileno() >= 0:  # noqa: ASYNC110  # nobody sets an event
            await asyncio.sleep(0.01)
