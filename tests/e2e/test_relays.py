"""Mail that comes by way of other people's servers: a relay before us, a proxy before us."""

from __future__ import annotations

import re
import smtplib
import socket
from pathlib import Path
from typing import Literal

import pytest
from tests.e2e import programs
from tests.e2e.messages import HEAD
from tests.e2e.peers.haproxy import HAProxy
from tests.e2e.peers.postfix import Postfix
from tests.e2e.served import Served
from tests.e2e.wire import Wire

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


def lmtp(folder: Path) -> list[str]:
    """Give the options of a server that listens for LMTP at a Unix socket to which Postfix may write."""
    return ["--lmtp-listen", f"unix:{folder}/lmtp,mode=666"]


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


@pytest.mark.parametrize("direct", [[], ["--lmtp-direct"]], ids=["queued", "direct"])
def test_postfix_to_maildir_by_lmtp(tmp_path: Path, open_folder: Path, direct: list[str]) -> None:
    """Postfix hands over a thousand messages by LMTP at a Unix socket: each is in the Maildir once (RFC 2033)."""
    with (
        Served(tmp_path, *lmtp(open_folder), *direct) as served,
        Postfix(open_folder / "postfix", f"lmtp:unix:{served.listener('LMTP')}") as postfix,
    ):
        programs.run("smtp-source", *LOAD, postfix.address)
        files = served.await_files(MESSAGES)
        postfix.await_empty_queue()
        served.await_empty_queue()
    fields = [file.read_text().replace("\n\t", " ").split("\n")[:3] for file in files]
    assert {recipient for _, recipient, _ in fields} == {f"Delivered-To: {recipient}" for recipient in RECIPIENTS}
    # Whoever is at a Unix socket has no address.
    assert {received.partition(" id ")[0] for *_, received in fields} == {
        "Received: from relay.example.com by mx.example.com with LMTP"
    }


@pytest.mark.parametrize("direct", [[], ["--lmtp-direct"]], ids=["queued", "direct"])
def test_a_refused_recipient_is_the_only_one_to_bounce(tmp_path: Path, open_folder: Path, direct: list[str]) -> None:
    """Postfix returns what was refused for one of three recipients, and the other two have their message, once."""
    options = [*lmtp(open_folder), *direct, "--accept-domain", "example.org"]
    with (
        Served(tmp_path, *options, deliver="Maildir/{local_part}") as served,
        Postfix(open_folder / "postfix", f"lmtp:unix:{served.listener('LMTP')}") as postfix,
    ):
        with smtplib.SMTP(postfix.host, postfix.port) as client:
            to = ["ben@example.org", "eve@example.net", "carla@example.org"]
            client.sendmail("anna@example.org", to, b"Subject: hello\r\n\r\nhello\r\n")
        (bounce,) = served.await_files(1, "anna/new")
        served.await_files(1, "ben/new")
        served.await_files(1, "carla/new")
        postfix.await_empty_queue()
    text = bounce.read_text()
    assert text.startswith("Return-Path: <>\nDelivered-To: anna@example.org\n")
    assert text.count("Final-Recipient: rfc822; eve@example.net") == text.count("Final-Recipient:") == 1
    assert "550 5.7.1" in text


def test_postfix_says_who_its_client_was(tmp_path: Path, open_folder: Path) -> None:
    """With XFORWARD the Received field names the client of Postfix and not Postfix, message by message."""
    settings = {
        "mynetworks": "127.0.0.0/8 192.0.2.0/24",
        "smtp_send_xforward_command": "yes",
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
    }
    with (
        Served(tmp_path, "--xclient-from", "127.0.0.0/8") as served,
        Postfix(open_folder / "postfix", f"smtp:{served.address}", settings) as postfix,
    ):
        for number in (7, 8):
            with smtplib.SMTP(postfix.host, postfix.port, "behind.example.net") as client:
                client.ehlo()
                assert client.docmd("XCLIENT", f"ADDR=192.0.2.{number} NAME=client{number}.example.net")[0] == 220
                client.ehlo()
                client.sendmail("anna@example.com", [f"{number}@example.org"], b"hello\r\n")
        files = served.await_files(2)
    fields = sorted(file.read_text().replace("\n\t", " ").split("\n")[2].partition(" id ")[0] for file in files)
    assert fields == [
        f"Received: from behind.example.net (client{number}.example.net [192.0.2.{number}])"
        " by mx.example.com with ESMTP"
        for number in (7, 8)
    ]


@pytest.mark.parametrize("announce", ["send-proxy", "send-proxy-v2"])
def test_haproxy_says_who_its_client_is(tmp_path: Path, announce: Literal["send-proxy", "send-proxy-v2"]) -> None:
    """Through HAProxy a thousand messages arrive once each, and name the real client, the proxy never."""
    with Served(tmp_path, "--proxy-from", "127.0.0.2", "--accept-any") as served:
        with HAProxy(tmp_path, served.address, announce) as proxy:
            programs.run("smtp-source", *LOAD, "-M", "client.example.com", proxy.address)
            files = served.await_files(MESSAGES)
            trace = received(files)
            served.await_empty_queue()
        # Nobody else is believed to be a proxy.
        with Wire(served) as wire:
            wire.ask("PROXY TCP4 192.0.2.7 127.0.0.1 4711 25", 500)
    assert {(recipient, "client.example.com", "127.0.0.1") for recipient in RECIPIENTS} == set(trace)
    assert not any(b"127.0.0.2" in file.read_bytes() for file in files)
    assert "127.0.0.2" not in served.log


def test_limits_hold_for_the_clients_of_a_proxy(tmp_path: Path) -> None:
    """Behind HAProxy each client has its own limit: a crowd at one address leaves room for another."""
    options = ["--proxy-from", "127.0.0.2", "--accept-domain", "example.org", "--max-connections-per-client", "2"]
    with (
        Served(tmp_path, *options) as served,
        HAProxy(tmp_path, served.address, "send-proxy-v2") as proxy,
    ):

        def connect(source: str) -> Wire:
            connection = socket.create_connection((proxy.host, proxy.port), 30, (source, 0))
            return Wire(connection, greets=False)

        with connect("127.0.0.1") as first, connect("127.0.0.1") as second, connect("127.0.0.1") as third:
            codes = sorted(wire.reply()[0] for wire in (first, second, third))
            assert codes == [220, 220, 421]
            with connect("127.0.1.1") as other:
                assert other.reply()[0] == 220
