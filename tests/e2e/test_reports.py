"""What a program sees of mail that Postfix sends to it inside TLS: reports asked for, outcomes honoured."""

from __future__ import annotations

import smtplib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import trio
from tests.e2e.peers.certificates import Authority, Certificate
from tests.e2e.peers.clients import ANNA
from tests.e2e.peers.postfix import Postfix

from smtprecv import (
    Attempt,
    Client,
    Config,
    Dialect,
    DirectIntake,
    EnhancedStatus,
    Envelope,
    Notify,
    OriginalRecipient,
    Rcpt,
    RcptParameters,
    Reply,
    Ret,
    Server,
    TlsFiles,
    Xtext,
    address_of,
    listen,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ENVID: Final = "QQ+2B1+3D2Zz"
ENVELOPE: Final[Mapping[str, tuple[list[str], RcptParameters]]] = {
    "ben@example.org": (
        ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Ben+2BList@Example.org"],
        RcptParameters(
            frozenset({Notify.SUCCESS, Notify.DELAY}), OriginalRecipient("rfc822", Xtext("Ben+2BList@Example.org"))
        ),
    ),
    "carla@example.org": (
        ["NOTIFY=NEVER"],
        RcptParameters(frozenset(), OriginalRecipient("rfc822", Xtext("carla@example.org"))),
    ),
    "dora@example.org": (
        ["ORCPT=x-local;Dora"],
        RcptParameters(None, OriginalRecipient("x-local", Xtext("Dora"))),
    ),
}
"""What Postfix is told of each recipient, and what it must tell us: it names the original recipient itself."""


@dataclass
class Receiver:
    """A program's policy and delivery: who is refused at RCPT, and who after the message."""

    attempts: list[Attempt] = field(default_factory=list)
    has_changed: trio.Event = field(default_factory=trio.Event)

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        """Serve all but nobody."""
        if rcpt.forward_path.mailbox.local_part == "nobody":
            return Reply(550, "nobody has that name here", EnhancedStatus(5, 1, 1))
        return Reply(250, "ok")

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Refuse one, put another off at its first time, keep the message for the rest."""
        is_first = not self.attempts
        self.attempts.append(attempt)
        self.has_changed.set()
        self.has_changed = trio.Event()
        answers = {
            "full@example.org": Reply(552, "mailbox full", EnhancedStatus(5, 2, 2)),
            "busy@example.org": Reply(451, "busy", EnhancedStatus(4, 2, 0)) if is_first else Reply(250, "kept"),
        }
        return [answers.get(str(recipient), Reply(250, "kept")) for recipient in attempt.recipients]

    async def await_attempts(self, count: int) -> None:
        """Wait for so many attempts."""
        with trio.fail_after(30):
            while len(self.attempts) < count:
                await self.has_changed.wait()


@asynccontextmanager
async def served(receiver: Receiver, address: str, certificate: Certificate, dialect: Dialect) -> AsyncIterator[str]:
    """Give the next hop of a Postfix, which is the program."""
    config = Config("mx.example.com", dialect=dialect)
    server = Server(
        DirectIntake(receiver), config=config, policy=receiver, tls=TlsFiles(certificate.chain, certificate.key)
    )
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(server.serve, await listen(address))
        where = address_of(listener)
        yield f"lmtp:unix:{where}" if address.startswith("unix:") else f"smtp:{where}"
        server.drain()


def settings(authority: Authority, transport: str) -> dict[str, str]:
    """Let Postfix speak to nobody but our server, inside TLS, and say so."""
    return {
        f"{transport}_tls_security_level": "secure",
        f"{transport}_tls_CAfile": str(authority.file),
        f"{transport}_tls_secure_cert_match": "mx.example.com",
        f"{transport}_tls_loglevel": "1",
        f"{transport}_destination_recipient_limit": "50",
    }


async def send(postfix: Postfix, talk: Callable[[smtplib.SMTP], None]) -> None:
    """Be a client of Postfix, in a thread."""

    def hold() -> None:
        with smtplib.SMTP(postfix.host, postfix.port, timeout=30) as client:
            client.ehlo()
            talk(client)

    await trio.to_thread.run_sync(hold)


def ask_for_reports(client: smtplib.SMTP) -> None:
    """Send a message with all that RFC 3461 has."""
    assert client.mail(ANNA, ["RET=HDRS", f"ENVID={ENVID}"])[0] == 250
    for recipient, (options, _) in ENVELOPE.items():
        assert client.rcpt(recipient, options)[0] == 250
    assert client.data(b"hello\r\n")[0] == 250


def to_each(client: smtplib.SMTP) -> None:
    """Send a message to somebody who is refused at RCPT, to two who are not served after it, and to two who are."""
    to = [f"{name}@example.org" for name in ("ben", "nobody", "full", "busy", "carla")]
    assert client.sendmail(ANNA, to, b"hello\r\n") == {}


@pytest.mark.parametrize("dialect", Dialect)
async def test_reports_that_are_asked_for(
    dialect: Dialect, authority: Authority, certificate: Certificate, open_folder: Path
) -> None:
    """RET, ENVID, NOTIFY and ORCPT come through Postfix to the delivery as they were given, case and encoding included.

    RFC 3461 sections 4, 4.1, 4.2, 4.3 and 4.4; by SMTP over TCP, and by LMTP over a Unix socket (RFC 2033).
    """
    is_lmtp = dialect is Dialect.LMTP
    address = f"unix:{open_folder}/lmtp,mode=666" if is_lmtp else "127.0.0.1:0"
    transport, receiver = dialect.value.lower(), Receiver()
    async with served(receiver, address, certificate, dialect) as hop:
        with Postfix(open_folder / "postfix", hop, settings(authority, transport)) as postfix:
            await send(postfix, ask_for_reports)
            await receiver.await_attempts(1)
            await trio.to_thread.run_sync(postfix.await_empty_queue)
            assert "Verified TLS connection established to" in postfix.log
    (attempt,) = receiver.attempts
    parameters, session = attempt.envelope.parameters, attempt.client.session
    assert (parameters.ret, parameters.envid) == (Ret.HDRS, Xtext(ENVID))
    assert {str(each): each.parameters for each in attempt.recipients} == {
        recipient: expected for recipient, (_, expected) in ENVELOPE.items()
    }
    assert (session.hello, session.dialect, session.is_secure) == ("relay.example.com", dialect, True)


async def test_each_recipient_of_lmtp_is_answered_for(
    authority: Authority, certificate: Certificate, open_folder: Path
) -> None:
    """Who is refused at RCPT or after the message is in the one bounce, who is put off is tried again, alone.

    RFC 2033 section 4.2.
    """
    receiver = Receiver()
    async with served(receiver, f"unix:{open_folder}/lmtp,mode=666", certificate, Dialect.LMTP) as hop:
        with Postfix(open_folder / "postfix", hop, settings(authority, "lmtp")) as postfix:
            await send(postfix, to_each)
            await receiver.await_attempts(3)
            await trio.to_thread.run_sync(postfix.await_empty_queue)
    to = [[recipient.forward_path.mailbox.local_part for recipient in each.recipients] for each in receiver.attempts]
    assert sorted(to[0]) == ["ben", "busy", "carla", "full"]
    assert sorted(to[1:]) == [["anna"], ["busy"]]
    (bounce,) = (each for each in receiver.attempts if not str(each.envelope.reverse_path))
    text = (await bounce.message.bytes()).decode()
    assert all(f"Final-Recipient: rfc822; {name}@example.org" in text for name in ("nobody", "full"))
    assert text.count("Final-Recipient:") == 2
    assert "550 5.1.1 nobody has that name here" in text.replace("\r\n    ", " ")
    assert "552 5.2.2 mailbox full" in text.replace("\r\n    ", " ")
