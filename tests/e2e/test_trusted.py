"""Who is believed when he says for whom he speaks: swaks with the PROXY protocol and with XCLIENT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from tests.e2e.peers import clients
from tests.e2e.served import Served
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PORTS: Final = ["--proxy-source-port", "4711", "--proxy-dest-port", "25"]
FOUR: Final = ["--proxy-source", "192.0.2.7", "--proxy-dest", "192.0.2.1"]
SIX: Final = ["--proxy-source", "2001:db8::7", "--proxy-dest", "2001:db8::1"]


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server for which everybody on loopback is a proxy."""
    folder = tmp_path_factory.mktemp("behind")
    options = ["--proxy-from", "127.0.0.0/8", "--accept-domain", "example.org"]
    with Served(folder, *options, deliver="Maildir/{local_part}") as server:
        yield server


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server that believes in XCLIENT from loopback."""
    folder = tmp_path_factory.mktemp("trusting")
    with Served(folder, "--xclient-from", "127.0.0.0/8", deliver="Maildir/{local_part}") as server:
        yield server


def sender(served: Served, local_part: str) -> str:
    """Give what the only message says of where it is from."""
    (file,) = served.await_files(1, f"{local_part}/new")
    return file.read_text().replace("\n\t", " ").split("\n")[2].partition(" by ")[0]


@pytest.mark.parametrize(
    ("version", "family", "addresses", "shown"),
    [
        ("1", "TCP4", FOUR, "[192.0.2.7]"),
        ("1", "TCP6", SIX, "[IPv6:2001:db8::7]"),
        ("2", "AF_INET", FOUR, "[192.0.2.7]"),
        ("2", "AF_INET6", SIX, "[IPv6:2001:db8::7]"),
    ],
)
def test_proxy(behind: Served, version: str, family: str, addresses: list[str], shown: str) -> None:
    """The client is whom the header names, in both versions and both families."""
    options = ["--proxy-version", version, "--proxy-family", family, *addresses, *PORTS]
    sent = clients.swaks(behind.address, f"{family.lower()}@example.org", *options)
    assert sent.returncode == 0, sent.stdout
    assert sender(behind, family.lower()) == f"Received: from client.example.com ({shown})"


@pytest.mark.parametrize(
    "options",
    [
        ["--proxy", "TCP4 192.0.2.7 192.0.2.1 4711 99999"],
        ["--proxy", "TCP4 192.0.2.7\r\nEHLO x 192.0.2.1 4711 25"],
        ["--proxy", f"UNKNOWN {'x' * 100}"],
        ["--proxy-version", "1", "--proxy-family", "TCP4", *SIX, *PORTS],
    ],
    ids=["port", "line", "long", "family"],
)
def test_a_bad_header_ends_the_connection(behind: Served, options: list[str]) -> None:
    """Whoever must send a header and sends a malformed one hears nothing."""
    sent = clients.swaks(behind.address, "ben@example.org", *options)
    assert sent.returncode != 0
    assert "220 mx.example.com" not in sent.stdout
    assert behind.files("ben/new") == []


def test_xclient(trusting: Served) -> None:
    """The client is whom XCLIENT names, under the name that it gives itself after that."""
    options = ["--xclient-addr", "192.0.2.7", "--xclient-name", "client.example.net", "--xclient-port", "4711"]
    sent = clients.swaks(trusting.address, "ben@example.org", *options)
    assert sent.returncode == 0, sent.stdout
    assert sender(trusting, "ben") == "Received: from client.example.com (client.example.net [192.0.2.7])"


def test_a_connection_is_told_of_its_own_client(trusting: Served) -> None:
    """What XCLIENT said in one connection, of a client in the other family, is not known in the next."""
    sent = clients.swaks(trusting.address, "carla@example.org", "--xclient-addr", "IPV6:2001:db8::7")
    assert sent.returncode == 0, sent.stdout
    assert sender(trusting, "carla") == "Received: from client.example.com ([IPv6:2001:db8::7])"
    sent = clients.swaks(trusting.address, "dora@example.org")
    assert sent.returncode == 0, sent.stdout
    assert sender(trusting, "dora") == "Received: from client.example.com ([127.0.0.1])"


def test_strangers_are_not_believed(served: Served) -> None:
    """Where nobody is trusted XCLIENT and XFORWARD are not offered, and are unknown commands to those who try."""
    sent = clients.swaks(served.address, "ben@example.org", "--xclient-addr", "192.0.2.7")
    assert (sent.returncode, sent.stderr) == (33, "*** Host did not advertise XCLIENT\n")
    with Wire(served) as wire:
        assert "XFORWARD" not in wire.ask("EHLO client.example.com", 250)
        wire.ask("XCLIENT ADDR=192.0.2.7", 500)
        wire.ask("XFORWARD ADDR=192.0.2.7", 500)
