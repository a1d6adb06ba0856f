"""Mail that comes by way of other people's servers: a relay before us, a proxy before us."""

from __future__ import annotations

import re
import smtplib
from pathlib import Path

import pytest
from tests.e2e import programs
from tests.e2e.messages import HEAD
from tests.e2e.peers.haproxy import HAProxy
from tests.e2e.peers.postfix import Postfix
from tests.e2e.served import Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MESSAGES = 1000
LOAD = ["-s", "10", "-m", str(MESSAGES), "-l", "1024", "-N", "-f", "anna@example.com", "-t", "ben@example.org"]
"""A message for each of a thousand recipients."""
RECIPIENTS = {f"{number}ben@example.org" for number in range(1, MESSAGES + 1)}
_RECEIVED = re.compile(r"^Delivered-To: (\S+)\nReceived: from (\S+) \(\[(\S+)\]\) by mx\.example\.com ", re.MULTILINE)


def received(files: list[Path]) -> list[tuple[str, str, str]]:
    """Give each file's recipient, what the client called itself, and its address."""
    texts = [file.read_text().replace("\n\t", " ") for file in files]
    found = [match.groups() for text in texts if (match := _RECEIVED.search(text))]
    assert len(found) == len(files)
    return [(recipient, name, address) for recipient, name, address in found]


def test_postfix_to_maildir(served: Served, open_folder: Path) -> None:
    """Postfix hands over a thousand messages by SMTP: each is in the Maildir once, and Postfix's queue is empty."""
    with Postfix(open_folder / "postfix", f"smtp:[{served.host}]:{served.port}") as postfix:
        programs.run("smtp-source", *LOAD, postfix.address)
        trace = received(served.await_files(MESSAGES))
        postfix.await_empty_queue()
    assert {(recipient, "relay.example.com", "127.0.0.1") for recipient in RECIPIENTS} == set(trace)
    served.await_empty_queue()


def test_postfix_passes_utf_8_on(served: Served, open_folder: Path) -> None:
    """Addresses and content in UTF-8 come through Postfix as they are: it finds 8BITMIME and SMTPUTF8 announced."""
    message = HEAD + "Subject: Füße\n\nGrüße\n".encode()
    with Postfix(open_folder / "postfix", f"smtp:[{served.host}]:{served.port}") as postfix:
        with smtplib.SMTP(postfix.host, postfix.port) as client:
            options = ["SMTPUTF8", "BODY=8BITMIME"]
            client.sendmail("jörg@bücher.example", ["søren@bücher.example"], message.replace(b"\n", b"\r\n"), options)
        (file,) = served.await_files(1)
    stored = file.read_bytes()
    assert stored.startswith("Return-Path: <jörg@bücher.example>\nDelivered-To: søren@bücher.example\n".encode())
    assert b" by mx.example.com with UTF8SMTP\n" in stored
    assert stored.endswith(message)


def test_haproxy_to_maildir(served: Served, tmp_path: Path) -> None:
    """Through HAProxy a thousand messages arrive once each; it does not say who the client is, so it is the client."""
    with HAProxy(tmp_path, served.address) as proxy:
        programs.run("smtp-source", *LOAD, "-M", "client.example.com", proxy.address)
        trace = received(served.await_files(MESSAGES))
    assert {(recipient, "client.example.com", "127.0.0.2") for recipient in RECIPIENTS} == set(trace)
    served.await_empty_queue()
