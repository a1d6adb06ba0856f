"""TLS with other people's clients: STARTTLS, TLS from the first octet on, and certificates that are renewed."""

from __future__ import annotations

import asyncio
import re
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.e2e import programs
from tests.e2e.messages import MESSAGES, without_trace
from tests.e2e.peers import clients
from tests.e2e.peers.certificates import Authority, Certificate, serving
from tests.e2e.peers.clients import ANNA
from tests.e2e.served import Served, until
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NAME: Final = "mx.example.com"
CRLF: Final = MESSAGES["dots"].replace(b"\n", b"\r\n")
TLS_1_3: Final = "TLSv1.3 TLS_AES_256_GCM_SHA384 256 bits"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Served]:
    """Give a server with STARTTLS, TLS from the first octet on, and LMTP."""
    options = [*serving(certificate), "--tls-listen", "127.0.0.1:0", "--lmtp-listen", "127.0.0.1:0"]
    with Served(tmp_path_factory.mktemp("secured"), *options, deliver="Maildir/{local_part}") as server:
        yield server


def verifying(authority: Authority) -> list[str]:
    """Give the options with which OpenSSL's client talks to nobody but our server."""
    return ["-CAfile", str(authority.file), "-verify_return_error", "-verify_hostname", NAME]


def protocol(served: Served, local_part: str) -> str:
    """Give what the Received field of the only message says between WITH and ID."""
    (file,) = served.await_files(1, f"{local_part}/new")
    match = re.search(r" by mx\.example\.com with (.*) id ", file.read_text().replace("\n\t", " "))
    assert match is not None
    return match[1]


@pytest.mark.parametrize(
    ("role", "starttls", "hello", "with_protocol"),
    [
        ("", "smtp", "EHLO", "ESMTPS"),
        ("TLS", "", "EHLO", "ESMTPS"),
        ("LMTP", "lmtp", "LHLO", "LMTPS"),
    ],
    ids=["starttls", "implicit", "lmtp"],
)
def test_openssl(
    secured: Served, authority: Authority, tmp_path: Path, role: str, starttls: str, hello: str, with_protocol: str
) -> None:
    """OpenSSL verifies the certificate; Received names protocol, version and cipher; STARTTLS is not offered again.

    RFC 3207 section 4.2; RFC 8314 section 3.3; RFC 3848.
    """
    address = secured.listener(role) if role else secured.address
    options = ["-starttls", starttls] if starttls else []
    log, local_part = tmp_path / "log", f"openssl.{role or 'smtp'}".lower()
    with clients.s_client(log, address, *options, *verifying(authority)) as wire:
        offers = wire.ask(f"{hello} client.example.com", 250).split("\n")
        assert "STARTTLS" not in offers
        assert "REQUIRETLS" in offers
        wire.mail(f"{local_part}@example.org")
        wire.ask("STARTTLS", 503)
        wire.ask("QUIT", 221)
        assert wire.rest() == b""
    assert protocol(secured, local_part) == f"{with_protocol} ({TLS_1_3})"
    assert "Verification: OK" in log.read_text()


def test_tls_1_2(secured: Served, authority: Authority, tmp_path: Path) -> None:
    """TLS 1.2 is spoken, and Received says so."""
    options = ["-starttls", "smtp", "-tls1_2", *verifying(authority)]
    with clients.s_client(tmp_path / "log", secured.address, *options) as wire:
        wire.ask("EHLO client.example.com", 250)
        wire.mail("old@example.org")
    assert protocol(secured, "old").startswith("ESMTPS (TLSv1.2 ECDHE-")


def test_tls_1_1_is_refused(secured: Served) -> None:
    """TLS 1.1 is not spoken (RFC 8996 section 5), and the log has one line on it."""
    tried = programs.outcome(
        "openssl", "s_client", "-connect", secured.listener("TLS"), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"
    )
    assert tried.returncode == 1
    secured.await_log("connection lost: [SSL: UNSUPPORTED_PROTOCOL]")
    assert "Traceback" not in secured.log


def test_a_client_that_does_not_trust_us(secured: Served, tmp_path: Path) -> None:
    """Whoever does not know the authority hangs up, and nobody else is disturbed."""
    with (
        pytest.raises(AssertionError, match="not a line of a reply"),
        clients.s_client(tmp_path / "log", secured.listener("TLS"), "-verify_return_error") as wire,
    ):
        wire.ask("EHLO client.example.com", 250)
    assert "unable to get local issuer certificate" in (tmp_path / "log").read_text()
    with Wire(secured) as wire:
        wire.ask("NOOP", 250)


def test_plain_smtp_on_the_tls_port(secured: Served) -> None:
    """Who speaks in clear where TLS is due hears nothing that it could take for SMTP."""
    host, _, port = secured.listener("TLS").rpartition(":")
    with pytest.raises(smtplib.SMTPServerDisconnected):
        # It waits for a banner, in vain, unless it speaks first.
        smtplib.SMTP(host, int(port), timeout=1)
    assert "Traceback" not in secured.log


@pytest.mark.parametrize(("option", "role"), [("--tls", ""), ("--tls-on-connect", "TLS")])
def test_swaks(secured: Served, authority: Authority, option: str, role: str) -> None:
    """Swaks sends inside TLS, both ways, and verifies the certificate."""
    address = secured.listener(role) if role else secured.address
    local_part = f"swaks.{role}".lower().rstrip(".")
    sent = clients.swaks(
        address, f"{local_part}@example.org", option, "--tls-verify", "--tls-ca-path", str(authority.file)
    )
    assert sent.returncode == 0, sent.stdout
    assert protocol(secured, local_part) == f"ESMTPS ({TLS_1_3})"


@pytest.mark.parametrize(("scheme", "role", "options"), [("smtp", "", ["--ssl-reqd"]), ("smtps", "TLS", [])])
def test_curl(
    secured: Served, authority: Authority, tmp_path: Path, scheme: str, role: str, options: list[str]
) -> None:
    """Curl insists on TLS, both ways, and the message arrives byte for byte."""
    (tmp_path / "message").write_bytes(CRLF)
    address = secured.listener(role) if role else secured.address
    options = [*options, "--cacert", str(authority.file)]
    sent = clients.curl(f"{scheme}://{address}", f"curl.{scheme}@example.org", tmp_path / "message", *options)
    assert sent.returncode == 0, sent.stderr
    (file,) = secured.await_files(1, f"curl.{scheme}/new")
    assert MESSAGES["dots"] == without_trace(file)
    assert protocol(secured, f"curl.{scheme}") == f"ESMTPS ({TLS_1_3})"


def test_curl_insists(served: Served, tmp_path: Path) -> None:
    """A server without a certificate does not offer STARTTLS, and a client that insists on it sends nothing."""
    (tmp_path / "message").write_bytes(CRLF)
    sent = clients.curl(f"smtp://{served.address}", "ben@example.org", tmp_path / "message", "--ssl-reqd")
    assert sent.returncode == 64  # CURLE_USE_SSL_FAILED
    assert served.files() == []


def test_tls_may_be_demanded(tmp_path: Path, certificate: Certificate, authority: Authority) -> None:
    """With --require-tls a client in clear hears 530 to MAIL, and one inside TLS is served (RFC 3207 section 4)."""
    (tmp_path / "message").write_bytes(CRLF)
    with Served(tmp_path, *serving(certificate), "--require-tls") as served:
        url, message = f"smtp://{served.address}", tmp_path / "message"
        sent = clients.curl(url, "ben@example.org", message)
        assert (sent.returncode, sent.stderr.strip()) == (55, "curl: (55) MAIL failed: 530")
        with Wire(served) as wire:
            wire.ask("EHLO client.example.com", 250)
            for command in ("MAIL FROM:<anna@example.com>", "VRFY ben", "AUTH PLAIN"):
                assert wire.ask(command, 530).startswith("5.7.0 ")
            wire.ask("NOOP", 250)
        sent = clients.curl(url, "ben@example.org", message, "--ssl-reqd", "--cacert", str(authority.file))
        assert sent.returncode == 0, sent.stderr
        served.await_files(1)


@pytest.mark.parametrize(("tls", "message"), [("starttls", "dots"), ("implicit", "30-MB")])
def test_aiosmtplib(secured: Served, authority: Authority, tls: str, message: str) -> None:
    """The asyncio client sends inside TLS, both ways, messages of any size."""
    address = secured.address if tls == "starttls" else secured.listener("TLS")

    async def send() -> None:
        async with clients.aiosmtp(address, authority.context, starttls=tls == "starttls") as client:
            await client.sendmail(ANNA, [f"aio.{tls}@example.org"], MESSAGES[message])

    asyncio.run(send())
    (file,) = secured.await_files(1, f"aio.{tls}/new")
    assert MESSAGES[message] == without_trace(file)


def test_a_renewed_certificate(tmp_path: Path, authority: Authority) -> None:
    """Once the files are replaced the next handshake shows the new certificate, and the old session goes on.

    Files that do not belong together, as between the two steps of a renewal, change nothing.
    """
    first = authority.issue("renewed.example.com")
    shown = ssl.PEM_cert_to_DER_cert(first.chain.read_text())

    def handshake() -> bytes | None:
        with Wire(served) as clear:
            clear.ask("EHLO client.example.com", 250)
            with clear.starttls(authority.context, "renewed.example.com") as wire:
                assert isinstance(wire.socket, ssl.SSLSocket)
                return wire.socket.getpeercert(binary_form=True)

    with Served(tmp_path, *serving(first)) as served:
        with clients.s_client(tmp_path / "openssl", served.address, "-starttls", "smtp") as wire:
            wire.ask("EHLO client.example.com", 250)
            assert handshake() == shown
            first.key.write_text("half a key")
            until(lambda: handshake() == shown and "stays as it was" in served.log, "a word on the files")
            authority.issue("renewed.example.com")
            renewed = ssl.PEM_cert_to_DER_cert(first.chain.read_text())
            assert renewed != shown
            until(lambda: handshake() == renewed, "the new certificate")
            wire.mail("ben@example.org")
        served.await_files(1)
        assert "Traceback" not in served.log
