"""The trace fields on top of a delivered message, to the octet."""

from __future__ import annotations

import re
from typing import Final

import pytest
from tests.e2e.served import Served
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DATE: Final = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"


@pytest.mark.parametrize(
    ("hello", "parameters", "said", "protocol"),
    [
        ("HELO client.example.com", "", "client.example.com", "SMTP"),
        ("EHLO client.example.com", "", "client.example.com", "ESMTP"),
        ("EHLO client.example.com", " BODY=8BITMIME", "client.example.com", "ESMTP"),
        ("EHLO client.example.com", " SMTPUTF8", "client.example.com", "UTF8SMTP"),
        ("EHLO [192.0.2.1]", "", "[192.0.2.1]", "ESMTP"),
    ],
)
def test_trace_fields(served: Served, hello: str, parameters: str, said: str, protocol: str) -> None:
    """Return-Path, Delivered-To and Received stand on top, in this order and shape (RFC 5321 section 4.4)."""
    with Wire(served) as wire:
        wire.ask(hello, 250)
        wire.ask(f"MAIL FROM:<anna@example.com>{parameters}", 250)
        wire.ask("RCPT TO:<ben@example.org>", 250)
        wire.ask("DATA", 354)
        queue_id = wire.ask("Subject: hello\r\n\r\n.", 250).split()[-1]
    (file,) = served.await_files(1)
    unfolded = file.read_text().replace("\n\t", " ")
    assert re.fullmatch(
        "Return-Path: <anna@example.com>\n"
        "Delivered-To: ben@example.org\n"
        rf"Received: from {re.escape(said)} \(\[127\.0\.0\.1\]\) by mx\.example\.com with {protocol}"
        rf" id {queue_id} for <ben@example\.org>; {DATE}\n"
        "Subject: hello\n\n",
        unfolded,
    )
    assert max(map(len, file.read_text().split("\n"))) <= 78


def test_blind_copies_stay_blind(served: Served) -> None:
    """No file names another recipient than its own (RFC 5321 section 7.2)."""
    with Wire(served) as wire:
        wire.ask("EHLO client.example.com", 250)
        wire.ask("MAIL FROM:<anna@example.com>", 250)
        wire.ask("RCPT TO:<ben@example.org>", 250)
        wire.ask("RCPT TO:<eve@example.org>", 250)
        wire.ask("DATA", 354)
        wire.ask("hello\r\n.", 250)
    named = [set(re.findall(r"ben@|eve@", file.read_text())) for file in served.await_files(2)]
    assert sorted(map(sorted, named)) == [["ben@"], ["eve@"]]


@pytest.mark.parametrize("start", [" for <eve@example.org>; forged", "\tforged"])
def test_a_message_cannot_continue_our_fields(served: Served, start: str) -> None:
    """A message that begins with white space stands below an empty line, and not inside our Received field."""
    with Wire(served) as wire:
        wire.ask("EHLO client.example.com", 250)
        wire.ask("MAIL FROM:<anna@example.com>", 250)
        wire.ask("RCPT TO:<ben@example.org>", 250)
        wire.ask("DATA", 354)
        wire.ask(f"{start}\r\nSubject: hello\r\n\r\n.", 250)
    (file,) = served.await_files(1)
    header, _, rest = file.read_text().partition("\n\n")
    assert "forged" not in header
    assert rest == f"{start}\nSubject: hello\n\n"
