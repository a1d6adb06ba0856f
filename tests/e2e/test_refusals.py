"""What a server refuses to a real client, and what it takes that looks odd."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Final

import pytest
from tests.e2e import programs
from tests.e2e.messages import MESSAGES, without_trace
from tests.e2e.served import Served
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SIZE: Final = 65536


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server that takes one domain and small messages."""
    options = ["--accept-domain", "example.org", "--max-message-size", str(SIZE), "--max-recipients", "100"]
    with Served(tmp_path_factory.mktemp("strict"), *options, deliver="Maildir/{local_part}") as server:
        yield server


@pytest.fixture
def wire(strict: Served) -> Iterator[Wire]:
    """Give a session past EHLO."""
    with Wire(strict) as client:
        client.ask("EHLO client.example.com", 250)
        yield client


def begin(wire: Wire, to: str, sender: str = "anna@example.com") -> None:
    """Hold a transaction up to the 354."""
    wire.ask(f"MAIL FROM:<{sender}>", 250)
    wire.ask(f"RCPT TO:{to}", 250)
    wire.ask("DATA", 354)


def test_ehlo_says_what_there_is(strict: Served) -> None:
    """EHLO is answered with the host's name and the extensions.

    RFC 5321 section 4.1.1.1; RFC 1870 section 3, RFC 2034 section 3, RFC 2920 section 2, RFC 6152 section 2,
    RFC 6531 section 3.1.
    """
    with Wire(strict) as wire:
        texts = wire.ask("EHLO client.example.com", 250).split("\n")
    assert texts[0] == "mx.example.com"
    offers = {"PIPELINING", f"SIZE {SIZE}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"}
    assert offers - set(texts[1:]) == set()


def test_helo_only(strict: Served) -> None:
    """A client that knows only HELO is served, without the extensions, and Received says SMTP (RFC 3848)."""
    with Wire(strict) as wire:
        assert wire.ask("HELO client.example.com", 250) == "mx.example.com"
        wire.ask("MAIL FROM:<anna@example.com> SIZE=1", 555)
        begin(wire, "<helo@example.org>")
        wire.ask("hello\r\n.", 250)
    (file,) = strict.await_files(1, "helo/new")
    assert b" with SMTP\n" in file.read_bytes()


def test_declared_size(wire: Wire) -> None:
    """A size over the limit is refused at MAIL, one at the limit is not (RFC 1870 section 6.1)."""
    assert wire.ask(f"MAIL FROM:<anna@example.com> SIZE={SIZE + 1}", 552).startswith("5.3.4 ")
    wire.ask(f"MAIL FROM:<anna@example.com> SIZE={SIZE}", 250)


def test_actual_size(strict: Served, wire: Wire) -> None:
    """A message of one octet too many is refused after the data, the session goes on, and the limit itself fits."""
    begin(wire, "<sized@example.org>")
    assert wire.ask("x" * (SIZE - 1) + "\r\n.", 552).startswith("5.3.4 ")
    begin(wire, "<sized@example.org>")
    wire.ask("x" * (SIZE - 2) + "\r\n.", 250)
    (file,) = strict.await_files(1, "sized/new")
    assert without_trace(file) == b"x" * (SIZE - 2) + b"\n"


def test_far_too_large(strict: Served) -> None:
    """A client that does not declare 30 MB and sends them all hears 552, and can go on."""
    with Wire(strict) as wire:
        wire.ask("HELO client.example.com", 250)
        begin(wire, "<flood@example.org>")
        wire.send(MESSAGES["30-MB"].replace(b"\n", b"\r\n"))
        wire.ask(".", 552)
        wire.ask("QUIT", 221)
    assert strict.files("flood/new") == []


def test_smtplib_is_told_of_the_size(strict: Served) -> None:
    """Python's client declares the size, and raises with the server's 552."""
    with smtplib.SMTP(strict.host, strict.port) as client, pytest.raises(smtplib.SMTPSenderRefused) as refused:
        client.sendmail("anna@example.com", ["sized@example.org"], b"x" * (SIZE + 10))
    assert refused.value.smtp_code == 552


def test_recipients(strict: Served) -> None:
    """The 101st recipient is put off with 452, and the message goes to the hundred (RFC 5321 section 4.5.3.1.10)."""
    recipients = [f"{number}@example.org" for number in range(102)]
    with smtplib.SMTP(strict.host, strict.port) as client:
        refused = client.sendmail("anna@example.com", recipients, b"hello\r\n")
    assert {address: code for address, (code, _) in refused.items()} == {
        "100@example.org": 452,
        "101@example.org": 452,
    }
    for number in range(100):
        strict.await_files(1, f"{number}/new")
    assert (strict.files("100/new"), strict.files("101/new")) == ([], [])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("<ben@example.com>", 550),
        ("<ben@sub.example.org>", 550),
        ("<ben@mx.example.com>", 550),
        ("<ben@[127.0.0.1]>", 550),
        ("<ben%example.com@example.net>", 550),
        ("<ben@EXAMPLE.org>", 250),
        ("<@relay.example.com,@b.example:ben@example.org>", 250),
        ("<@example.org:ben@example.com>", 550),
        ("<postmaster>", 250),
        ("<PostMaster>", 250),
        ("<postmaster@example.org>", 250),
        ("<ben>", 501),
        ("<>", 501),
        ("<ben@example.org", 501),
        ("<ben@-example.org>", 501),
        ("<ben@example.org> FOO=bar", 555),
    ],
)
def test_who_is_taken(wire: Wire, path: str, code: int) -> None:
    """Every local part of the accepted domain and <postmaster> are taken, other domains and bad paths are not."""
    wire.ask("MAIL FROM:<anna@example.com>", 250)
    wire.ask(f"RCPT TO:{path}", code)


def test_no_domain_given_takes_all(served: Served) -> None:
    """On loopback and without --accept-domain every domain is taken."""
    with smtplib.SMTP(served.host, served.port) as client:
        assert client.sendmail("anna@example.com", ["ben@example.net", "c@[192.0.2.1]"], b"hello\r\n") == {}
    served.await_files(2)


def test_hops(strict: Served, wire: Wire) -> None:
    """A message with more than a hundred Received fields is in a loop (RFC 5321 section 6.3)."""
    begin(wire, "<looped@example.org>")
    assert wire.ask("Received: from x\r\n" * 101 + "\r\nhello\r\n.", 554).startswith("5.4.6 ")
    begin(wire, "<looped@example.org>")
    wire.ask("Received: from x\r\n" * 100 + "\r\n" + "Received: in the body\r\n" * 100 + ".", 250)
    strict.await_files(1, "looped/new")


def test_null_reverse_path(strict: Served, wire: Wire) -> None:
    """A bounce has the null reverse-path, and Return-Path shows it (RFC 5321 sections 4.4 and 4.5.5)."""
    begin(wire, "<bounced@example.org>", sender="")
    wire.ask("hello\r\n.", 250)
    (file,) = strict.await_files(1, "bounced/new")
    assert file.read_bytes().startswith(b"Return-Path: <>\nDelivered-To: bounced@example.org\n")


@pytest.mark.parametrize(
    ("path", "folder", "shown"),
    [
        ('"a b"@example.org', "a%20b", '"a b"@example.org'),
        ('"a\\"b"@example.org', "a%22b", '"a\\"b"@example.org'),
        ('"plain"@example.org', "plain", "plain@example.org"),
        ('"../../escape"@example.org', "%2E.%2F..%2Fescape", '"../../escape"@example.org'),
        ('""@example.org', "%", '""@example.org'),
    ],
)
def test_quoted_local_part(strict: Served, wire: Wire, path: str, folder: str, shown: str) -> None:
    """A quoted local part is delivered, names no folder outside, and is shown as its shortest form."""
    begin(wire, f"<{path}>", sender='"an na"@example.com')
    wire.ask("hello\r\n.", 250)
    (file,) = strict.await_files(1, f"{folder}/new")
    assert file.read_text().startswith(f'Return-Path: <"an na"@example.com>\nDelivered-To: {shown}\n')


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("VRFY ben", 252),
        ("EXPN list", 502),
        ("HELP", 214),
        ("NOOP", 250),
        ("NOOP what ever", 250),
        ("RSET", 250),
        ("RSET now", 501),
        ("RCPT TO:<ben@example.org>", 503),
        ("DATA", 503),
        ("BDAT 0 LAST", 503),
        ("STARTTLS", 502),
        ("AUTH PLAIN", 502),
        ("TURN", 502),
        ("XYZZY", 500),
        ("", 500),
        ("MAIL", 501),
        ("MAIL TO:<a@example.com>", 501),
        ("x" * 4096, 500),
        ("EHLO again.example.com", 250),
        ("QUIT", 221),
    ],
)
def test_other_commands(wire: Wire, command: str, code: int) -> None:
    """Every command has the reply that RFC 5321 gives it: unknown 500, not here 502, not now 503."""
    wire.ask(command, code)


def test_bare_line_feed(strict: Served, wire: Wire) -> None:
    """A message with a bare LF is refused whole, and what hides behind it is no command."""
    begin(wire, "<smuggled@example.org>")
    wire.send(b"hello\r\n\n.\r\nMAIL FROM:<eve@example.com>\r\nRCPT TO:<smuggled@example.org>\r\n")
    wire.ask("DATA\r\nhello\r\n.", 554)
    wire.ask("NOOP", 250)
    assert strict.files("smuggled/new") == []


def test_errors_end_the_session(strict: Served) -> None:
    """The twentieth error is answered, then 421 and the end."""
    with Wire(strict) as wire:
        for _ in range(20):
            wire.ask("XYZZY", 500)
        assert wire.reply()[0] == 421
        assert wire.rest() == b""


def test_swaks_is_told_of_the_refusal(strict: Served) -> None:
    """Swaks reports a refused recipient with its exit status, and the server's words."""
    where = ["--server", strict.host, "--port", str(strict.port)]
    with pytest.raises(AssertionError, match=r"550 5\.7\.1"):
        programs.run("swaks", *where, "--from", "anna@example.com", "--to", "ben@example.com")
