"""What a program with a delivery and a policy sees of mail that comes over a real socket, sent by smtplib."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from smtprecv import (
    Attempt,
    Client,
    Config,
    EnhancedStatus,
    Envelope,
    Message,
    Rcpt,
    Recipient,
    Redirect,
    Reply,
    Server,
    SpoolIntake,
    all_entries,
    listen,
    open_spool,
    run_queue,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ANNA = "anna@example.com"
TEXT = "Subject: hello\r\nFrom: anna@example.com\r\n\r\nfirst line\r\n.second line\r\n"
NO_THANKS = "Subject: hello\r\n\r\nERROR: 554 no thanks\r\n"
REFUSED = (500, b"5.0.0 relaying denied")


@dataclass
class Receiver:
    """A program's whole part in receiving: whom it serves, what it takes, and what it does with mail."""

    delivered: list[tuple[str, tuple[Recipient, ...], bytes]] = field(default_factory=list)
    has_delivered: trio.Event = field(default_factory=trio.Event)
    expected: int = 1

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply | Redirect:
        """Refuse bad recipients, send what is for the staff to two of them, take the rest."""
        if "bad" in str(rcpt.forward_path):
            return Reply(500, "relaying denied")
        if rcpt.forward_path.mailbox.local_part == "staff":
            return Redirect.to("ben@example.org", "carla@example.org")
        return Reply(250, "ok")

    async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
        """Refuse what says itself how."""
        _, found, words = (await message.bytes()).decode().partition("ERROR: ")
        if not found:
            return Reply(250, "ok")
        code, _, text = words.partition(" ")
        return Reply(int(code), text.strip(), EnhancedStatus(5, 7, 1))

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Keep the message."""
        octets = await attempt.message.bytes()
        self.delivered.append((str(attempt.envelope.reverse_path), attempt.recipients, octets))
        if len(self.delivered) == self.expected:
            self.has_delivered.set()
        return [Reply(250, "kept") for _ in attempt.recipients]


async def receive(receiver: Receiver, folder: Path, talk: Callable[[smtplib.SMTP], None]) -> None:
    """Serve, let the client talk, and return when what was expected is delivered and nothing is left in the queue."""

    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.com", timeout=30) as client:
            talk(client)

    async with open_spool(folder / "queue") as spool, trio.open_nursery() as nursery:
        nursery.start_soon(run_queue, spool, receiver)
        server = Server(SpoolIntake(spool), config=Config("mx.example.com"), policy=receiver)
        [listener] = await nursery.start(server.serve, await listen("127.0.0.1:0"))
        await trio.to_thread.run_sync(send, listener.socket.getsockname()[1])
        with trio.fail_after(30):
            await receiver.has_delivered.wait()
        nursery.cancel_scope.cancel()
        assert [entry async for entry in all_entries(spool)] == []


def people(*addresses: str) -> list[str]:
    """Give the text of each recipient."""
    return [f"{address}@example.org" for address in addresses]


async def test_a_message_arrives_as_it_was_sent(tmp_path: Path) -> None:
    """Reverse-path, recipient, header and body are those of the client, octet for octet."""

    def talk(client: smtplib.SMTP) -> None:
        assert client.sendmail(ANNA, people("ben"), TEXT) == {}

    receiver = Receiver()
    await receive(receiver, tmp_path, talk)

    [(reverse_path, recipients, octets)] = receiver.delivered
    assert (reverse_path, [str(recipient) for recipient in recipients]) == (ANNA, people("ben"))
    assert octets == TEXT.encode()


async def test_a_bad_recipient_is_refused_and_the_session_goes_on(tmp_path: Path) -> None:
    """The client sees the policy's own code and words; the good recipient beside it, and a later message, arrive."""

    def talk(client: smtplib.SMTP) -> None:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail(ANNA, people("bad"), TEXT)
        assert refused.value.recipients == {"bad@example.org": REFUSED}
        assert client.sendmail(ANNA, people("ben", "bad"), TEXT) == {"bad@example.org": REFUSED}
        assert client.sendmail(ANNA, people("carla"), TEXT) == {}

    receiver = Receiver(expected=2)
    await receive(receiver, tmp_path, talk)

    to = [[str(recipient) for recipient in recipients] for _, recipients, _ in receiver.delivered]
    assert sorted(to) == [people("ben"), people("carla")]


async def test_recipients_arrive_together_and_in_order(tmp_path: Path) -> None:
    """A message to three is one attempt for three, in the order in which they were named."""

    def talk(client: smtplib.SMTP) -> None:
        assert client.sendmail(ANNA, people("dora", "ben", "carla"), TEXT) == {}

    receiver = Receiver()
    await receive(receiver, tmp_path, talk)

    [(_, recipients, _)] = receiver.delivered
    assert [str(recipient) for recipient in recipients] == people("dora", "ben", "carla")


async def test_a_message_is_refused_by_what_it_says(tmp_path: Path) -> None:
    """The client sees the code and the words of the policy, nothing is queued, and the session goes on."""

    def talk(client: smtplib.SMTP) -> None:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail(ANNA, people("ben"), NO_THANKS)
        assert (refused.value.smtp_code, refused.value.smtp_error) == (554, b"5.7.1 no thanks")
        assert client.sendmail(ANNA, people("ben"), TEXT) == {}

    receiver = Receiver()
    await receive(receiver, tmp_path, talk)

    assert [octets for _, _, octets in receiver.delivered] == [TEXT.encode()]


async def test_a_redirected_recipient_is_delivered_elsewhere(tmp_path: Path) -> None:
    """The attempt has the mailboxes of the Redirect, each with the name that the client gave."""

    def talk(client: smtplib.SMTP) -> None:
        assert client.sendmail(ANNA, people("staff"), TEXT) == {}

    receiver = Receiver()
    await receive(receiver, tmp_path, talk)

    [(_, recipients, _)] = receiver.delivered
    assert [str(recipient) for recipient in recipients] == people("ben", "carla")
    assert [str(recipient.original) for recipient in recipients] == people("staff", "staff")
