"""What a hostile client sends inside of what it may send: nothing of it becomes a command, a field or a line."""

from __future__ import annotations

import json
import re
import ssl
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

import pytest
from tests.e2e.messages import without_trace
from tests.e2e.peers.certificates import Authority, Certificate, serving
from tests.e2e.served import Served, smtprecv
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SMUGGLED: Final = b"MAIL FROM:<eve@example.com>\r\nRCPT TO:<smuggled@example.org>\r\nDATA\r\nsmuggled\r\n.\r\n"
ENDS: Final = {
    "LF": b"\n.\n",
    "LF-CRLF": b"\n.\r\n",
    "CRLF-LF": b"\r\n.\n",
    "CR": b"\r.\r",
    "CR-CRLF": b"\r.\r\n",
    "CRLF-CR": b"\r\n.\r",
    "NUL": b"\r\n\0.\r\n",
    "NUL-behind": b"\r\n.\0\r\n",
    "space": b"\r\n .\r\n",
    "space-behind": b"\r\n. \r\n",
    "dots": b"\r\n..\r\n",
    "CRCRLF": b"\r\r\n.\r\r\n",
    "NEL": "\r\n\u0085.\r\n".encode(),
}
"""What some other server has taken for the end of mail data."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Served]:
    """Give a server with STARTTLS and TLS from the first octet on."""
    options = [*serving(certificate), "--tls-listen", "127.0.0.1:0"]
    with Served(tmp_path_factory.mktemp("target"), *options, deliver="Maildir/{local_part}") as server:
        yield server


@contextmanager
def inside_tls(server: Served, authority: Authority) -> Iterator[Wire]:
    """Give a session inside TLS, past EHLO."""
    with Wire(server) as clear:
        clear.ask("EHLO client.example.com", 250)
        with clear.starttls(authority.context) as wire:
            wire.ask("EHLO client.example.com", 250)
            yield wire


@pytest.mark.parametrize("behind", [b"RSET\r\n", b"MAIL FR", b"EHLO x\r\n" + SMUGGLED[:29], b"\r\n", b"\0"])
def test_octets_behind_starttls(target: Served, authority: Authority, behind: bytes) -> None:
    """STARTTLS with anything behind it in the same segment is refused, and there is no TLS to inject into.

    RFC 3207 section 4.2. Sent anew and alone it is taken, and nothing of what was before it is in the session.
    """
    with Wire(target) as wire:
        wire.ask("EHLO client.example.com", 250)
        wire.send(b"STARTTLS\r\n" + behind)
        assert wire.reply()[0] == 503
    with Wire(target) as clear:
        clear.ask("EHLO injected.example.com", 250)
        clear.ask("MAIL FROM:<eve@example.com>", 250)
        clear.ask("RCPT TO:<smuggled@example.org>", 250)
        clear.ask("RSET", 250)
        with clear.starttls(authority.context) as inside:
            inside.ask("MAIL FROM:<eve@example.com>", 503)
            inside.ask("DATA", 503)


def test_octets_between_the_reply_and_the_handshake(target: Served, authority: Authority) -> None:
    """What is sent in clear behind the 220 is taken for TLS, which it is not: the connection ends, nothing is run."""
    with Wire(target) as wire:
        wire.ask("EHLO client.example.com", 250)
        wire.ask("STARTTLS", 220)
        wire.send(b"EHLO client.example.com\r\n" + SMUGGLED)
        assert b"250" not in wire.rest()
    with Wire(target) as clear:
        clear.ask("EHLO client.example.com", 250)
        clear.ask("STARTTLS", 220)
        clear.send(b"RSET\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            authority.context.wrap_socket(clear.socket, server_hostname="mx.example.com")
    assert "Traceback" not in target.log


@pytest.mark.parametrize("end", ENDS)
def test_smuggling_inside_tls(target: Served, authority: Authority, end: str) -> None:
    """Inside TLS too only CRLF.CRLF ends a message: what is behind anything else belongs to it.

    RFC 5321 section 4.1.1.4. One message has one reply, and the session goes on behind it.
    """
    with inside_tls(target, authority) as wire:
        wire.begin("tls@example.org")
        wire.send(b"hello" + ENDS[end] + SMUGGLED.removesuffix(b".\r\n"))
        code, _ = wire.ask_any(".")
        assert code in {250, 554}
        wire.ask("NOOP", 250)
        wire.ask("DATA", 503)
    assert target.files("smuggled/new") == []


@pytest.mark.parametrize("end", ["\r\n.\r\n", *("LF", "CR", "NUL")])
def test_smuggling_in_chunks(target: Served, authority: Authority, end: str) -> None:
    """A chunk is as long as it says: the end of mail data and commands are mere content in it (RFC 3030 section 2)."""
    content = b"hello" + ENDS.get(end, end.encode()) + SMUGGLED
    with inside_tls(target, authority) as wire:
        wire.ask("MAIL FROM:<anna@example.com> BODY=BINARYMIME", 250)
        wire.ask("RCPT TO:<chunk@example.org>", 250)
        wire.send(f"BDAT {len(content)}\r\n".encode() + content + b"BDAT 0 LAST\r\nNOOP\r\n")
        assert [wire.reply()[0] for _ in range(3)] == [250, 250, 250]
    assert target.files("smuggled/new") == []


@pytest.mark.parametrize("begun", ["", "MAIL FROM:<anna@example.com>"])
def test_a_refused_chunk_is_no_command(target: Served, authority: Authority, begun: str) -> None:
    """The octets of a chunk that cannot be obeyed are swallowed, however they come (RFC 3030 section 2)."""
    with inside_tls(target, authority) as wire:
        if begun:
            wire.ask(begun, 250)
        wire.send(f"BDAT {len(SMUGGLED)} LAST\r\n".encode())
        for octet in SMUGGLED[:40]:
            wire.send(bytes([octet]))
        wire.send(SMUGGLED[40:] + b"NOOP\r\n")
        assert [wire.reply()[0] for _ in range(2)] == [503, 250]
    assert target.files("smuggled/new") == []


HOSTILE: Final = [
    "x\rX-Forged: 1",
    "x\nX-Forged: 1",
    "x\0y",
    "x\x1b[2J\x1b]0;forged\x07",
    "x\x7f\x08",
    "x) (forged",
    "x;forged",
    "x from=<eve@example.com> 250 2.0.0 queued as forged",
    "x\u0085X-Forged: 1",
    "x\u2028X-Forged: 1",
    "x\u202edegrof",
    "x\u200b\ufeff",
    "\u00fc" * 120,
    "x" * 250,
    "%s%n{0}{hostname}",
    "=?utf-8?q?=0AX-Forged:_1?=",
]
"""What somebody may call himself who wants to be read by people, programs and terminals."""


def attack(server: Served, words: str) -> None:
    """Say a hostile thing wherever a client may say something; in several sessions, as each may make few errors."""
    xtext = "".join(f"+{octet:02X}" for octet in words.encode())
    with Wire(server) as wire:
        wire.ask("EHLO client.example.com", 250)
        for name in ("LOGIN", "NAME", "HELO", "ADDR", "PORT", "PROTO", words):
            if wire.ask_any(f"XCLIENT {name}={xtext}")[0] == 220:
                wire.ask("EHLO client.example.com", 250)
    with Wire(server) as wire:
        wire.ask("EHLO client.example.com", 250)
        for credentials in (f"\0{words}\0secret", f"{words}\0anna\0secret", f"\0anna\0{words}"):
            wire.ask_any(f"AUTH PLAIN {b64encode(credentials.encode()).decode()}")
        if wire.ask_any(f"AUTH SCRAM-SHA-256 {b64encode(f'n,,n={words},r=nonce'.encode()).decode()}")[0] == 334:
            wire.ask_any("*")
    with Wire(server) as wire:
        for verb in ("HELO", "NOOP", "VRFY", "MAIL", "RCPT", words):
            wire.ask_any(f"{verb} {words}")
    with Wire(server) as wire:
        wire.ask("EHLO client.example.com", 250)
        wire.ask_any(f"EHLO {words}")
        send_from(wire, words, xtext)


def send_from(wire: Wire, words: str, xtext: str) -> None:
    """Send a message with a hostile envelope, as far as that is taken."""
    local_part = '"' + re.sub(r'(["\\])', r"\\\1", words) + '"'
    for name in ("NAME", "ADDR", "HELO", "PROTO"):
        wire.ask_any(f"XFORWARD {name}={xtext}")
    if wire.ask_any(f"MAIL FROM:<{local_part}@example.com> SMTPUTF8 ENVID={xtext[:90]}")[0] != 250:
        wire.ask("MAIL FROM:<anna@example.com> SMTPUTF8", 250)
    wire.ask_any(f"RCPT TO:<{local_part}@example.org>")
    wire.ask_any(f"RCPT TO:<ben@example.org> ORCPT=utf-8;{xtext}")
    wire.ask_any(f"RCPT TO:<ben@{words}>")
    wire.ask("RCPT TO:<ben@example.org>", 250)
    wire.ask("DATA", 354)
    wire.ask("hello\r\n.", 250)


RECEIVED: Final = (
    r"Received: from [\w.:?-]+ (\(([\w.:?-]+ )?\[[\w.:?-]+\]\) )?by mx\.example with (UTF8|E)?SMTP id \w+"
    r" for <.+@example\.org>; [\w,:+ -]+"
)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server that lets everybody say all that can be said, keeps the mail, and has heard all of HOSTILE."""
    folder = tmp_path_factory.mktemp("attacked")
    users = folder / "users"
    users.touch(0o600)
    options = ["--auth-file", str(users), "--auth-without-tls", "--xclient-from", "127.0.0.0/8", "--no-runqueue"]
    with Served(folder, *options, deliver=None) as server:
        with ThreadPoolExecutor(len(HOSTILE)) as pool:
            list(pool.map(partial(attack, server), HOSTILE))
        yield server


def lines(text: str) -> list[str]:
    """Give the lines of a text that is printable, whatever a reader takes for the end of one; AssertionError if not."""
    assert text.endswith("\n")
    found = text.removesuffix("\n").split("\n")
    assert [line for line in found if not line.isprintable()] == []
    assert found == text.splitlines()
    return found


def test_hostile_words_in_the_log(attacked: Served) -> None:
    """Every line of the log begins with a time and an id, and is printable."""
    record = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (listening on |[0-9a-f]{10}: )")
    found = lines(attacked.log)
    assert len(found) > 10 * len(HOSTILE)
    assert [line for line in found if not record.match(line)] == []


def test_hostile_words_in_the_queue(attacked: Served) -> None:
    """Showqueue has two lines at least and nothing unprintable for each message, and its JSON is ASCII."""
    found = lines(attacked.showqueue())
    row = re.compile(r"ID  |  STATUS|[0-9a-z]{20} |  pending ")
    assert [line for line in found if not row.match(line)] == []
    objects = lines(attacked.showqueue("--json"))
    assert all(line.isascii() for line in objects)
    assert len([json.loads(line) for line in objects]) == len(HOSTILE)


def test_hostile_words_in_trace_fields(attacked: Served) -> None:
    """Above each delivered message are three fields and nothing else, without control characters."""
    maildir = attacked.folder / "Maildir"
    ran = smtprecv("runqueue", "--queue", attacked.queue, "--deliver", f"maildir:{maildir}", "--hostname", "mx.example")
    assert (ran.returncode, ran.stderr) == (0, "")
    files = list((maildir / "new").iterdir())
    assert len(files) >= len(HOSTILE)
    for file in files:
        assert without_trace(file) == b"hello\n"
        text = file.read_bytes().decode().removesuffix("hello\n")
        fields = lines(text.replace("\n\t", " "))
        assert [field.partition(": ")[0] for field in fields] == ["Return-Path", "Delivered-To", "Received"]
        assert re.fullmatch(RECEIVED, fields[2]), fields[2]
