"""Delivery before the answer: each recipient's own outcome, redirects followed, and no octet left behind."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from tests.server.harness import CLIENT, dialogue

from smtprecv.delivery import Attempt
from smtprecv.errors import SpoolError
from smtprecv.message import Redirect
from smtprecv.protocol import EnhancedStatus, Envelope, Recipient, Reply, parse_forward_path, parse_reverse_path
from smtprecv.server import DirectIntake

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DELIVERED = Reply(250, "delivered", EnhancedStatus(2, 1, 5))
FULL = Reply(452, "mailbox full", EnhancedStatus(4, 2, 2))
UNKNOWN = Reply(550, "no such user", EnhancedStatus(5, 1, 1))
LARGE = b"x" * 2_000_000


@dataclass
class Routes:
    """A delivery that answers by local part, and remembers its attempts."""

    routes: dict[str, Reply | Redirect | Exception] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    octets: list[bytes] = field(default_factory=list)

    async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
        self.attempts.append(attempt)
        self.octets.append(await attempt.message.bytes())
        outcomes: list[Reply | Redirect] = []
        for recipient in attempt.recipients:
            outcome = self.routes.get(str(recipient.forward_path.mailbox).partition("@")[0], DELIVERED)
            if isinstance(outcome, Exception):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    @property
    def tried(self) -> list[list[str]]:
        """The recipients of each attempt."""
        return [[str(each).partition("@")[0] for each in attempt.recipients] for attempt in self.attempts]


def envelope(*names: str) -> Envelope:
    """Give an envelope for these local parts."""
    recipients = tuple(Recipient(parse_forward_path(f"{name}@mx.example")) for name in names)
    return Envelope(parse_reverse_path("a@client.example"), recipients=recipients)


def to(*names: str) -> Redirect:
    """Redirect to these local parts."""
    return Redirect.to(*(f"{name}@mx.example" for name in names))


async def committed(delivery: Routes, *names: str, octets: bytes = b"hello\r\n") -> list[str]:
    """Deliver a message, and give the replies."""
    incoming = await DirectIntake(delivery, now=lambda: EPOCH).begin(CLIENT)
    await incoming.write(octets)
    return [str(reply) for reply in await incoming.commit(CLIENT, envelope(*names))]


async def test_each_recipient_has_its_own_reply() -> None:
    """What the delivery answers is what the client hears, in the order of the envelope."""
    delivery = Routes({"b": FULL, "c": UNKNOWN})
    assert await committed(delivery, "a", "b", "c") == [str(DELIVERED), str(FULL), str(UNKNOWN)]
    [attempt] = delivery.attempts
    assert (attempt.client, attempt.entry.received, attempt.entry.size) == (CLIENT, EPOCH, 7)
    assert (attempt.envelope, attempt.recipients) == (envelope("a", "b", "c"), envelope("a", "b", "c").recipients)
    assert len(attempt.queue_id) == 20
    assert delivery.octets == [b"hello\r\n"]


async def test_redirects_are_followed_at_once() -> None:
    """Those who stand for a recipient are tried in one attempt more, and the worst of their replies is its reply."""
    delivery = Routes({"list": to("a", "full", "b"), "alias": to("alias2"), "alias2": to("c"), "full": FULL})
    assert await committed(delivery, "list", "x", "alias") == [str(FULL), str(DELIVERED), str(DELIVERED)]
    assert delivery.tried == [["list", "x", "alias"], ["a", "full", "b", "alias2"], ["c"]]
    [last] = delivery.attempts[-1].recipients
    assert str(last.original) == "alias@mx.example"


async def test_who_is_served_is_not_served_again() -> None:
    """A list that leads to who has the message is served; a circle ends, and is for the client to try again."""
    delivery = Routes({"one": to("a"), "circle": to("circle", "b")})
    assert await committed(delivery, "a", "one") == [str(DELIVERED), "250 2.1.5 redirected to who has it already"]
    assert delivery.tried == [["a", "one"]]

    assert await committed(delivery, "circle") == ["451 4.4.6 redirected without end"]
    assert delivery.tried[1:] == [["circle"], ["circle", "b"], *[["circle"]] * 8]


async def test_a_delivery_that_raises_is_451_for_each(caplog: pytest.LogCaptureFixture) -> None:
    """The error is in the log under the reference that the client is told; one behind a redirect takes nothing back."""
    delivery = Routes({"bad": RuntimeError("secret"), "list": to("bad", "b")})
    replies = await committed(delivery, "a", "bad")
    assert [reply[:3] for reply in replies] == ["451", "451"]
    reference = replies[0].rpartition("reference ")[2].rstrip(")")
    assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)

    assert [reply[:3] for reply in await committed(delivery, "a", "list", "c")] == ["250", "451", "250"]


@pytest.mark.parametrize("outcomes", [[], [DELIVERED] * 3, [DELIVERED, Reply(354, "go on")]])
async def test_a_delivery_that_answers_amiss_is_451_for_each(
    outcomes: list[Reply], caplog: pytest.LogCaptureFixture
) -> None:
    """One final reply is due for each recipient; anything else promises nothing to anybody."""
    caplog.set_level(logging.CRITICAL)

    class Amiss:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
            return outcomes

    incoming = await DirectIntake(Amiss()).begin(CLIENT)
    replies = await incoming.commit(CLIENT, envelope("a", "b"))
    assert [reply.code for reply in replies] == [451, 451]


@pytest.mark.parametrize("size", [100, 2_000_000])
async def test_nothing_is_left_behind(size: int, tmp_path: Path) -> None:
    """A large body has a file while it is delivered, a small one none, and afterwards there is nothing."""
    files: list[int] = []

    class Looks:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
            files.append(len(list(tmp_path.iterdir())))
            assert await attempt.message.bytes() == b"x" * size
            return [DELIVERED]

    incoming = await DirectIntake(Looks(), folder=tmp_path).begin(CLIENT)
    await incoming.write(b"x" * size)
    message = await incoming.message()
    assert message.size == size
    assert [reply.code for reply in await incoming.commit(CLIENT, envelope("a"))] == [250]
    await incoming.abort()

    assert files == [int(size > 1_000_000)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["abort", "raise", "cancel"])
async def test_nothing_is_left_behind_however_it_ends(ending: str, tmp_path: Path) -> None:
    """A message that is given up, a delivery that fails, one that is cancelled in the middle."""

    class Ends:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
            if ending == "raise":
                raise RuntimeError
            scope.cancel()
            await trio.sleep_forever()
            raise AssertionError

    incoming = await DirectIntake(Ends(), folder=tmp_path).begin(CLIENT)
    await incoming.write(LARGE)
    assert len(list(tmp_path.iterdir())) == 1
    with trio.CancelScope() as scope:
        if ending != "abort":
            await incoming.commit(CLIENT, envelope("a"))
    await incoming.abort()

    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_gone_is_a_want_of_room(tmp_path: Path) -> None:
    """What cannot be written is a SpoolError, which the client is told as 4yz; its work is over then."""
    incoming = await DirectIntake(Routes(), folder=tmp_path / "gone").begin(CLIENT)
    with pytest.raises(SpoolError):
        await incoming.write(LARGE)
    with pytest.raises(SpoolError):
        await incoming.commit(CLIENT, envelope("a"))
    await incoming.abort()


async def test_smtp_has_one_reply_for_all() -> None:
    """Where one reply must do, a recipient who may be served later makes it 4yz: the client tries all again."""
    async with dialogue(DirectIntake(Routes({"b": FULL, "c": UNKNOWN}))) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@client.example>")
        for name in ("a", "c", "b"):
            await peer.ask(f"RCPT TO:<{name}@mx.example>")
        await peer.ask("DATA")
        assert await peer.ask("hello", ".") == str(FULL)
        assert await peer.ask("NOOP") == "250 2.0.0 ok"
