"""Messages that other people's clients send arrive byte for byte."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import aiosmtplib
import pytest
from tests.e2e import programs
from tests.e2e.messages import HEAD, MESSAGES, without_trace
from tests.e2e.peers import clients
from tests.e2e.served import Served
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ANNA: Final = "anna@example.com"


def stuffed(message: bytes) -> bytes:
    """Give a message as it goes over the wire, the end of mail data included (RFC 5321 section 4.5.2)."""
    return (b"\n" + message).replace(b"\n.", b"\n..")[1:].replace(b"\n", b"\r\n") + b".\r\n"


def by_smtplib(served: Served, to: str, message: bytes, tmp_path: Path) -> None:
    """Send with Python's own client."""
    with smtplib.SMTP(served.host, served.port) as client:
        refused = client.sendmail(ANNA, [to], message.replace(b"\n", b"\r\n"), mail_options=["BODY=8BITMIME"])
    assert refused == {}


def by_aiosmtplib(served: Served, to: str, message: bytes, tmp_path: Path) -> None:
    """Send with the asyncio client."""
    sending = aiosmtplib.send(message, sender=ANNA, recipients=[to], hostname=served.host, port=served.port)
    refused, _ = asyncio.run(sending)
    assert refused == {}


def by_swaks(served: Served, to: str, message: bytes, tmp_path: Path) -> None:
    """Send with swaks octets as they are: what it makes of a file of its own accord changes the ends of some."""
    file = tmp_path / "message"
    file.write_bytes(stuffed(message))
    programs.run("swaks", *swaks_arguments(served, to), "--no-data-fixup", "--data", f"@{file}")


def by_swaks_itself(served: Served, to: str, message: bytes, tmp_path: Path) -> None:
    """Send with swaks, which turns LF into CRLF, doubles dots, and ends the last line."""
    file = tmp_path / "message"
    file.write_bytes(message)
    programs.run("swaks", *swaks_arguments(served, to), "--data", f"@{file}")


def swaks_arguments(served: Served, to: str) -> list[str]:
    """Give what swaks must know in any case."""
    return ["--server", served.host, "--port", str(served.port), "--hide-all", "--from", ANNA, "--to", to]


def by_curl(served: Served, to: str, message: bytes, tmp_path: Path) -> None:
    """Send with curl, which doubles dots and ends the last line."""
    file = tmp_path / "message"
    file.write_bytes(message.replace(b"\n", b"\r\n"))
    sent = clients.curl(f"smtp://{served.address}", to, file)
    assert sent.returncode == 0, sent.stderr


def by_smtp_source(served: Served, to: str, message: bytes, tmp_path: Path) -> None:
    """Send with Postfix's load generator, which reads a file and sends an empty line after it."""
    file = tmp_path / "message"
    file.write_bytes(message)
    programs.run("smtp-source", "-F", str(file), "-f", ANNA, "-t", to, served.address)


def by_hand(served: Served, to: str, message: bytes, tmp_path: Path) -> None:
    """Send over a bare socket, the message in pieces of a prime length."""
    with Wire(served) as wire:
        wire.ask("EHLO client.example.com", 250)
        wire.ask(f"MAIL FROM:<{ANNA}> BODY=8BITMIME", 250)
        wire.ask(f"RCPT TO:<{to}>", 250)
        wire.ask("DATA", 354)
        octets = stuffed(message)
        for start in range(0, len(octets), 65521):
            wire.send(octets[start : start + 65521])
        assert wire.reply()[0] == 250


CLIENTS: Final[Mapping[str, Callable[[Served, str, bytes, Path], None]]] = {
    "smtplib": by_smtplib,
    "aiosmtplib": by_aiosmtplib,
    "swaks": by_swaks,
    "curl": by_curl,
    "smtp-source": by_smtp_source,
    "socket": by_hand,
}
ADDED: Final[Mapping[str, bytes]] = {"smtp-source": b"\n"}
"""What a client sends behind the message."""


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("client", CLIENTS)
def test_byte_for_byte(shared: Served, client: str, message: str, tmp_path: Path) -> None:
    """What a client sends is in the Maildir to the octet, below the trace fields and with LF line ends.

    RFC 5321 section 4.5.2; RFC 6152 section 3.
    """
    local_part = f"{client}.{message.lower()}"
    CLIENTS[client](shared, f"{local_part}@example.org", MESSAGES[message], tmp_path)
    (file,) = shared.await_files(1, f"{local_part}/new")
    assert MESSAGES[message] + ADDED.get(client, b"") == without_trace(file)


@pytest.mark.parametrize("send", [by_smtplib, by_aiosmtplib, by_swaks_itself, by_curl])
def test_no_final_newline(shared: Served, send: Callable[[Served, str, bytes, Path], None], tmp_path: Path) -> None:
    """A source whose last line does not end arrives with an end, which SMTP cannot do without."""
    local_part = f"unfinished.{send.__name__}"
    send(shared, f"{local_part}@example.org", HEAD + b"first\n.last", tmp_path)
    (file,) = shared.await_files(1, f"{local_part}/new")
    assert HEAD + b"first\n.last\n" == without_trace(file)


def test_no_octets(shared: Served) -> None:
    """A message of no octets at all, which only a bare socket can send, is a message."""
    by_hand(shared, "nothing@example.org", b"", Path())
    (file,) = shared.await_files(1, "nothing/new")
    assert without_trace(file) == b""


def test_smtputf8_by_smtplib(shared: Served) -> None:
    """Addresses and header fields in UTF-8 arrive, and the trace fields show them so (RFC 6531 section 3.7.3)."""
    message = HEAD + "Subject: Füße\n\nGrüße\n".encode()
    with smtplib.SMTP(shared.host, shared.port) as client:
        options = ["SMTPUTF8", "BODY=8BITMIME"]
        client.sendmail("jörg@bücher.example", ["søren@bücher.example"], message.replace(b"\n", b"\r\n"), options)
    (file,) = shared.await_files(1, "s%C3%B8ren/new")
    assert message == without_trace(file)
    stored = file.read_text(encoding="utf-8")
    assert stored.startswith("Return-Path: <jörg@bücher.example>\nDelivered-To: søren@bücher.example\nReceived: ")
    assert " with UTF8SMTP" in stored


def test_smtputf8_by_aiosmtplib(shared: Served) -> None:
    """Another client's idea of SMTPUTF8 works as well."""
    message = HEAD + "Grüße\n".encode()

    async def send() -> None:
        async with aiosmtplib.SMTP(hostname=shared.host, port=shared.port) as client:
            await client.sendmail("jörg@example.com", ["bjørn@example.org"], message, mail_options=["SMTPUTF8"])

    asyncio.run(send())
    (file,) = shared.await_files(1, "bj%C3%B8rn/new")
    assert message == without_trace(file)


def test_one_session_many_messages(shared: Served) -> None:
    """One connection carries one message after the other, with RSET and refusals in between."""
    with smtplib.SMTP(shared.host, shared.port) as client:
        for number in range(10):
            client.sendmail(ANNA, ["many@example.org"], b"%d\r\n" % number)
            assert client.docmd("RCPT TO:<early@example.org>")[0] == 503
            assert client.rset()[0] == 250
    files = shared.await_files(10, "many/new")
    assert sorted(without_trace(file) for file in files) == [b"%d\n" % number for number in range(10)]


def test_a_hundred_recipients(served: Served) -> None:
    """One message for a hundred recipients is a hundred files, each with its own Delivered-To."""
    recipients = [f"user{number}@example.org" for number in range(100)]
    with smtplib.SMTP(served.host, served.port) as client:
        assert client.sendmail(ANNA, recipients, MESSAGES["plain"].replace(b"\n", b"\r\n")) == {}
    files = served.await_files(100)
    assert {without_trace(file) for file in files} == {MESSAGES["plain"]}
    delivered_to = [line for file in files for line in file.read_text().splitlines() if line.startswith("Delivered")]
    assert sorted(delivered_to) == sorted(f"Delivered-To: {address}" for address in recipients)
    served.await_empty_queue()


def test_pipelining_in_one_segment(shared: Served) -> None:
    """Two whole transactions and QUIT in one segment are answered in order, and both messages arrive (RFC 2920)."""
    transaction = f"MAIL FROM:<{ANNA}>\r\nRCPT TO:<piped@example.org>\r\nDATA\r\n"
    first, second = (f"{transaction}Subject: {n}\r\n\r\n..dot\r\n.\r\n" for n in ("one", "two"))
    with Wire(shared) as wire:
        wire.send(f"EHLO client.example.com\r\n{first}{second}QUIT\r\n".encode())
        codes = [wire.reply()[0] for _ in range(10)]
        assert codes == [250, 250, 250, 354, 250, 250, 250, 354, 250, 221]
        assert wire.rest() == b""
    files = shared.await_files(2, "piped/new")
    assert sorted(map(without_trace, files)) == [b"Subject: one\n\n.dot\n", b"Subject: two\n\n.dot\n"]


def test_octet_by_octet(shared: Served) -> None:
    """A client that sends one octet a segment is served like any other."""
    session = (
        f"EHLO c.example\r\nMAIL FROM:<{ANNA}>\r\nRCPT TO:<slowly@example.org>\r\nDATA\r\n..\r\nx\r\n.\r\nQUIT\r\n"
    )
    with Wire(shared) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in session.encode():
            wire.send(bytes([octet]))
        assert [wire.reply()[0] for _ in range(6)] == [250, 250, 250, 354, 250, 221]
    (file,) = shared.await_files(1, "slowly/new")
    assert without_trace(file) == b".\nx\n"
