"""The URLs of next hops on the command line: what they mean, and what is wrong with them in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from smtprecv.cli._scheme import read_delivery
from smtprecv.deliveries import Relay
from smtprecv.errors import ConfigError
from smtprecv.protocol import Dialect
from smtprecv.relay import TlsMode
from smtprecv.sasl import Password


def made(text: str) -> Relay:
    """Give the delivery of a URL."""
    delivery = read_delivery(text)(hostname="us.example")
    assert isinstance(delivery, Relay)
    return delivery


@pytest.mark.parametrize(
    ("text", "host", "port", "dialect", "tls", "is_implicit"),
    [
        ("smtp://mx.example", "mx.example", 25, Dialect.SMTP, TlsMode.OPPORTUNISTIC, False),
        ("smtp://MX.example:2525/", "mx.example", 2525, Dialect.SMTP, TlsMode.OPPORTUNISTIC, False),
        ("smtp://192.0.2.1?tls=none", "192.0.2.1", 25, Dialect.SMTP, TlsMode.NONE, False),
        ("smtp://[2001:db8::1]:26?tls=required", "2001:db8::1", 26, Dialect.SMTP, TlsMode.REQUIRED, False),
        ("smtp://mx.example?tls=verify", "mx.example", 25, Dialect.SMTP, TlsMode.VERIFIED, False),
        ("smtps://mx.example", "mx.example", 465, Dialect.SMTP, TlsMode.VERIFIED, True),
        ("smtps://mx.example?tls=required", "mx.example", 465, Dialect.SMTP, TlsMode.REQUIRED, True),
        ("lmtp://localhost", "localhost", 24, Dialect.LMTP, TlsMode.OPPORTUNISTIC, False),
        ("lmtp+unix:/run/dovecot/lmtp", Path("/run/dovecot/lmtp"), 25, Dialect.LMTP, TlsMode.NONE, False),
    ],
)
def test_url(text: str, host: str | Path, port: int, dialect: Dialect, tls: TlsMode, *, is_implicit: bool) -> None:
    """A URL says where, by which protocol and inside of what; what is not said has its default."""
    relay = made(text)
    terms = relay._terms
    assert (relay._host, terms.hostname) == (host, "us.example")
    assert relay._port == port
    assert (terms.dialect, terms.tls, terms.is_implicit, terms.credentials) == (dialect, tls, is_implicit, None)


def test_files(tmp_path: Path) -> None:
    """User and password come from a file, and with them TLS is verified; so it is with authorities of one's own."""
    (tmp_path / "user").write_text("anna\nsecret word\n")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca")
    terms = made(f"smtp://mx.example:587?auth={tmp_path}/user&ca={tmp_path}/ca")._terms
    assert (terms.credentials, terms.tls) == (Password("anna", "secret word"), TlsMode.VERIFIED)
    assert made(f"smtp://mx.example?ca={tmp_path}/ca")._terms.tls is TlsMode.VERIFIED


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("smtp:mx.example", "'smtp:mx.example' is not smtp://HOST:PORT"),
        ("smtp://", "'smtp://' is not"),
        ("smtp://:25", "is not"),
        ("smtp://a_b.example", "is not"),
        ("smtp://mx.example:0", "is not"),
        ("smtp://mx.example:65536", "is not"),
        ("smtp://mx.example:smtp", "is not"),
        ("smtp://[::1", "is not"),
        ("smtp://mx.example/inbox", "is not"),
        ("smtp://mx.example#x", "is not"),
        ("smtp://mx.example?tls=maybe", "tls=maybe is not"),
        ("smtp://mx.example?verify=yes", "the options are"),
        ("smtp://mx.example?tls=none&tls=none", "each once"),
        ("smtps://mx.example?tls=none", "TLS"),
        ("smtp://mx.example?auth=/nobody/here", "auth=/nobody/here: No such file"),
        ("smtp://mx.example?ca=/nobody/here", "ca=/nobody/here: No such file"),
        ("lmtp+unix:run/lmtp", "'lmtp+unix:run/lmtp' is not lmtp+unix:/PATH"),
        ("uucp:x", "'uucp:x' is none of maildir:PATH, mbox:PATH, smtp://HOST:PORT"),
    ],
)
def test_wrong(text: str, culprit: str) -> None:
    """What can't be read is named in one line."""
    with pytest.raises((ConfigError, ValueError), match=r"\A.+\Z") as caught:
        read_delivery(text)
    assert culprit in str(caught.value)


@pytest.mark.parametrize("text", ["smtp://anna:secret@mx.example", "smtp://anna@mx.example", "lmtp://:secret@mx"])
def test_no_password_is_repeated(text: str) -> None:
    """A password in a URL is refused, and not shown to whoever reads over the shoulder."""
    with pytest.raises(ConfigError, match=r"\?auth=FILE") as caught:
        read_delivery(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"anna\n", b"", b"anna\nsecret\nmore\n", b"\nsecret\n", b"\xff\nx\n", b"a\0\nb\n"])
def test_user_file(content: bytes, tmp_path: Path) -> None:
    """A file of a user that has anything but two lines is refused, and not shown."""
    (tmp_path / "user").write_bytes(content)
    with pytest.raises(ConfigError, match="two lines, the user and the password"):
        read_delivery(f"smtp://mx.example?auth={tmp_path}/user")


@pytest.mark.parametrize("text", ["smtp://mx.example", "lmtp+unix:/run/lmtp"])
def test_envelope_to(text: str) -> None:
    """A copy for several recipients has no field that names one."""
    with pytest.raises(ConfigError, match="--envelope-to is for maildir:PATH"):
        read_delivery(text)(hostname="us.example", envelope_to=True)
