"""Mail that we hand on: to other people's servers by SMTP and LMTP, and to servers that die."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from tests.e2e import programs
from tests.e2e.peers.dovecot import Dovecot
from tests.e2e.peers.postfix import Postfix
from tests.e2e.served import Served, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SOURCE = ["-s", "10", "-l", "1024", "-N", "-f", "anna@example.com", "-t", "ben@example.org"]


def recipients(messages: int) -> list[str]:
    """Give the recipients of the load: a message for each."""
    return [f"{number}ben@example.org" for number in range(1, messages + 1)]


@pytest.fixture
def relaying(tmp_path: Path) -> Iterator[list[Served]]:
    """Give a list for servers that are to be ended."""
    servers: list[Served] = []
    yield servers
    for server in servers:
        server.close()


def test_postfix_and_back(served: Served, tmp_path: Path, open_folder: Path) -> None:
    """Two hundred messages go from us to Postfix and from there to us: each is in the Maildir once, with every hop."""
    hop = ["--hostname", "first.example.com", "--retry-first", "1s"]
    with Postfix(open_folder / "postfix", f"smtp:[{served.host}]:{served.port}") as postfix:
        first = tmp_path / "first"
        first.mkdir()
        with Served(first, "--deliver", f"smtp://{postfix.address}?tls=none", *hop, deliver=None) as relay:
            programs.run("smtp-source", "-m", "200", *SOURCE, relay.address)
            files = served.await_files(200)
            relay.await_empty_queue()
            postfix.await_empty_queue()
    texts = [file.read_text() for file in files]
    found = [match[1] for text in texts if (match := re.search(r"^Delivered-To: (\S+)$", text, re.MULTILINE))]
    assert sorted(found) == sorted(recipients(200))
    # RFC 5321 section 4.4: each hop puts one field on top.
    hops = [re.findall(r"^Received: .*?\bby (\S+)", text, re.MULTILINE | re.DOTALL) for text in texts]
    assert {tuple(each) for each in hops} == {("mx.example.com", "relay.example.com", "first.example.com")}


def test_dovecot(tmp_path: Path, open_folder: Path) -> None:
    """Dovecot receives a thousand messages by LMTP through a Unix socket: each is in its mailbox once."""
    with Dovecot(open_folder / "dovecot") as dovecot:
        with Served(tmp_path, "--deliver", f"lmtp+unix:{dovecot.socket}", deliver=None) as served:
            programs.run("smtp-source", "-m", "1000", *SOURCE, served.address)
            served.await_empty_queue(60)
        found = Counter(whose for whose, _ in dovecot.messages())
        sessions = dovecot.log.count(": Connect from local")
    assert found == Counter(recipients(1000))
    assert 1 <= sessions <= 100  # connections are used again


class Taker:
    """An aiosmtpd handler that knows who is there, and keeps what it is given."""

    def __init__(self) -> None:
        """Have nothing yet."""
        self.taken: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.original_content, bytes)
        self.taken.append((list(envelope.rcpt_tos), envelope.original_content))
        return "250 taken"


@contextmanager
def aiosmtpd(handler: Taker) -> Iterator[int]:
    """Run aiosmtpd in a thread, and give its port."""
    loop = asyncio.new_event_loop()
    serving = loop.create_server(lambda: SMTP(handler, hostname="mx.example.org", loop=loop), "127.0.0.1", 0)
    server = loop.run_until_complete(serving)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()


def test_aiosmtpd(tmp_path: Path) -> None:
    """A server without PIPELINING takes what is for those whom it knows, dots and all; the others have failed."""
    taker = Taker()
    with aiosmtpd(taker) as port:
        where = ["--deliver", f"smtp://127.0.0.1:{port}", "--hostname", "mx.example.com"]
        with Served(tmp_path, *where, deliver=None) as served:
            body = "Subject: dots\n\n.\n..\n.x\n"
            to = ["--to", "ben@example.org,nobody@example.org", "--data", body.replace("\n", "\\n")]
            programs.run("swaks", "--server", served.address, "--from", "anna@example.com", *to)
            until(lambda: bool(taker.taken) and "failed" in served.showqueue(), "a message taken, a recipient failed")
            assert "5.1.1 no such user" in served.showqueue()
    ((people, octets),) = taker.taken
    assert people == ["ben@example.org"]
    assert octets.startswith(b"Received: from ")
    assert octets.endswith(b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n")


def test_next_hop_killed(tmp_path: Path, relaying: list[Served]) -> None:
    """A next hop that is killed in the middle loses nothing that it took, and gets the rest when it is back."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    second = Served(folders[1])
    relaying.append(second)
    where = ["--deliver", f"smtp://{second.address}", "--retry-first", "1s", "--retry-max", "1s"]
    first = Served(folders[0], *where, deliver=None)
    relaying.append(first)
    programs.run("smtp-source", "-m", "300", *SOURCE, first.address)
    second.kill()
    again = Served(folders[1], port=second.port)
    relaying.append(again)
    first.await_empty_queue(60)
    again.await_empty_queue(60)
    texts = [file.read_text() for file in again.files()]
    found = Counter(match[1] for text in texts if (match := re.search(r"^Delivered-To: (\S+)$", text, re.MULTILINE)))
    assert set(found) == set(recipients(300))
    # Twice only what the second had on disk when its reply was lost: what was open at that moment.
    assert sum(found.values()) - 300 <= 10
