"""Certificates in files: read again when they change, kept as they were while they make no sense."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests.server.certificates import AUTHORITY, CERTIFICATE, client_context, write
from tests.server.harness import CONFIG, Memory, Peer, talk

from smtprecv.errors import ConfigError
from smtprecv.protocol import Tls
from smtprecv.server import TlsFiles
from smtprecv.server._tls import client_name_in, secure


async def shown(source: TlsFiles, context: ssl.SSLContext | None = None) -> tuple[str | None, Tls]:
    """Shake hands: give the serial number of the server's certificate, and what the server knows."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = trio.SSLStream(theirs, context or client_context(), server_hostname="mx.example")
    known: list[Tls] = []

    async def serve() -> None:
        _, tls = await secure(ours, source, 10)
        known.append(tls)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await client.do_handshake()
    certificate: dict[str, str] = client.getpeercert()
    return certificate["serialNumber"], known[0]


def serial(octets: bytes) -> str:
    """Give the serial number of the certificate that a file begins with, as ``ssl`` writes it."""
    text = f"{x509.load_pem_x509_certificate(octets).serial_number:X}"
    return text if len(text) % 2 == 0 else f"0{text}"


async def test_a_connection_that_breaks_off_is_not_one_that_was_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the build of Python makes of it by itself."""
    make = ssl.create_default_context

    def ignoring(purpose: ssl.Purpose, cafile: str | None) -> ssl.SSLContext:
        context = make(purpose, cafile=cafile)
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        return context

    monkeypatch.setattr(ssl, "create_default_context", ignoring)
    context = await TlsFiles(*write(tmp_path)).context()
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF


async def test_a_new_certificate_is_used_without_a_restart(
    tmp_path: Path, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The files are looked at again for a handshake a second later, and those that are the same are not read."""
    caplog.set_level(logging.INFO)
    certificate, key = write(tmp_path)
    source = TlsFiles(certificate, key)
    assert (await shown(source))[0] == serial(certificate.read_bytes())
    mock_clock.jump(1)
    first = await source.context()

    write(tmp_path, AUTHORITY.issue_cert("mx.example"))
    assert await source.context() is first
    mock_clock.jump(1)

    assert (await shown(source))[0] == serial(certificate.read_bytes())
    assert [record.getMessage() for record in caplog.records] == [f"read the TLS certificate {certificate} anew"]


@pytest.mark.parametrize("fault", ["mismatch", "half", "empty", "gone"])
async def test_files_that_make_no_sense_leave_the_certificate_as_it_was(
    fault: str, tmp_path: Path, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Files may be replaced one after the other, and be written slowly: one line, and again when they are right."""
    certificate, key = write(tmp_path)
    source = TlsFiles(certificate, key)
    before = serial(certificate.read_bytes())
    await source.context()
    other = tmp_path / "other"
    other.mkdir()
    new_certificate, new_key = write(other, AUTHORITY.issue_cert("mx.example"))
    octets = new_certificate.read_bytes()
    certificate.write_bytes({"mismatch": octets, "half": octets[:300]}.get(fault, b""))
    if fault == "gone":
        certificate.unlink()

    for _ in range(3):
        mock_clock.jump(1)
        assert (await shown(source))[0] == before

    [record] = caplog.records
    assert record.getMessage().startswith("the TLS certificate stays as it was: ")
    certificate.write_bytes(octets)
    key.write_bytes(new_key.read_bytes())
    mock_clock.jump(1)
    assert (await shown(source))[0] == serial(octets)


async def test_files_that_may_be_read_again_are_read(
    tmp_path: Path,
    mock_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Permission lost is no reason to look only once, though the files are those that could not be read."""
    certificate, key = write(tmp_path)
    source = TlsFiles(certificate, key)
    write(tmp_path, AUTHORITY.issue_cert("mx.example"))
    with monkeypatch.context() as patch:

        def refuse(self: TlsFiles) -> ssl.SSLContext:
            raise PermissionError(13, "Permission denied", str(key))

        patch.setattr(TlsFiles, "_load", refuse)
        first = await source.context()
    mock_clock.jump(1)

    assert await source.context() is not first
    assert [record.getMessage() for record in caplog.records] == [
        f"the TLS certificate stays as it was: {key}: Permission denied"
    ]


async def test_a_new_run_has_a_new_clock(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """Files are looked at though the time at which they were last looked at is yet to come."""
    certificate, key = write(tmp_path)
    source = TlsFiles(certificate, key)
    source._looked_at = trio.current_time() + 100_000
    first = await source.context()
    source._looked_at += 100_000
    write(tmp_path, AUTHORITY.issue_cert("mx.example"))

    assert await source.context() is not first


@pytest.mark.parametrize("missing", ["cert.pem", "key.pem"])
def test_files_that_are_not_there_are_a_wrong_setting(missing: str, tmp_path: Path) -> None:
    """At the start there is no certificate to keep: the text names the file and says why."""
    certificate, key = write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError, match=r"^no TLS with .*No such file or directory$"):
        TlsFiles(certificate, key)


def test_files_that_do_not_belong_together_are_a_wrong_setting(tmp_path: Path) -> None:
    """A certificate with the key of another one is found out before the first client."""
    certificate, key = write(tmp_path)
    key.write_bytes(AUTHORITY.issue_cert("mx.example").private_key_pem.bytes())
    with pytest.raises(ConfigError, match=r"^no TLS with .*mismatch"):
        TlsFiles(certificate, key)


def test_a_key_with_a_password_is_a_wrong_setting(tmp_path: Path) -> None:
    """Nobody is asked for it at the terminal."""
    certificate, key = write(tmp_path)
    private = load_pem_private_key(CERTIFICATE.private_key_pem.bytes(), None)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError, match=r"the key needs a password$"):
        TlsFiles(certificate, key)


async def test_a_client_with_a_certificate_has_its_name(tmp_path: Path) -> None:
    """Clients are asked for one that ``client_ca`` vouches for, and need none."""
    certificate, key = write(tmp_path)
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    source = TlsFiles(certificate, key, client_ca=tmp_path / "ca.pem")

    _, known = await shown(source, client_context(AUTHORITY.issue_cert("relay.example")))
    _, unknown = await shown(source)

    assert (known.version, known.client_name, known.bits >= 128) == ("TLSv1.3", "relay.example", True)
    assert unknown.client_name is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(
    version: ssl.TLSVersion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 8996 sections 4 and 5: TLS 1.0 and 1.1 must not be used; it is the server that says so."""
    caplog.set_level(logging.INFO)
    old = client_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = old.maximum_version = version
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, config=CONFIG, intake=Memory(), tls=TlsFiles(*write(tmp_path))).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.ask("EHLO client.example")
        await peer.ask("STARTTLS")
        with pytest.raises(trio.BrokenResourceError):
            await peer.start_tls(old)
        await theirs.aclose()

    [record] = caplog.records
    assert "UNSUPPORTED_PROTOCOL" in record.getMessage()


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, None),
        ({}, None),
        ({"subject": ((("commonName", "relay"),),)}, "relay"),
        ({"subject": ((("commonName", "relay"),),), "subjectAltName": (("DNS", "a.example"),)}, "a.example"),
        ({"subjectAltName": (("DNS", "a.example"), ("email", "anna@example.com"))}, "anna@example.com"),
        ({"subjectAltName": (("email", "a\r\nb"), ("DNS", "a.example"))}, "a.example"),
        ({"subjectAltName": (("IP Address", "192.0.2.1"),)}, None),
        ({"subjectAltName": "nonsense", "subject": (("commonName",),)}, None),
    ],
)
def test_the_name_in_a_certificate(certificate: object, name: str | None) -> None:
    """A mail address before a DNS name before a common name, and none that could forge a line."""
    assert client_name_in(certificate) == name
