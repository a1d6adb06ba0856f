"""LMTP (RFC 2033): one reply for each accepted RCPT, whatever stands behind the server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.server.harness import Memory, Peer, dialogue
from tests.server.test_direct import DELIVERED, FULL, UNKNOWN, Routes, to
from tests.server.test_tls import Trace

from smtprecv.delivery import Attempt
from smtprecv.message import Client, Message, Redirect
from smtprecv.protocol import Config, Dialect, EnhancedStatus, Envelope, Rcpt, Reply
from smtprecv.server import DirectIntake, Limits, SpoolIntake
from smtprecv.spool import open_spool

CONFIG = Config("mx.example", dialect=Dialect.LMTP)
AWAY = Reply(421, "away", EnhancedStatus(4, 3, 2))


async def prepare(peer: Peer, *names: str) -> None:
    """Go as far as 354, with these local parts for recipients."""
    assert (await peer.ask("LHLO client.example")).startswith("250 ")
    assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("250 ")
    for name in names:
        assert (await peer.ask(f"RCPT TO:<{name}@mx.example>")).startswith("250 ")
    assert (await peer.ask("DATA")).startswith("354 ")


async def send(peer: Peer, *names: str, text: str = "hello") -> list[str]:
    """Send a message, and give the replies to its end."""
    await prepare(peer, *names)
    await peer.say(text, ".")
    return [await peer.reply() for _ in names]


async def test_each_recipient_has_its_own_reply_in_order() -> None:
    """RFC 2033 section 4.2: after the final dot, one reply for each RCPT that was accepted; and the trace says LMTP."""
    trace = Trace()
    async with dialogue(DirectIntake(Routes({"b": UNKNOWN, "c": FULL})), config=CONFIG) as (peer, _):
        assert peer.greeting == "220 mx.example LMTP"
        replies = await send(peer, "a", "b", "c", "a")
        assert replies == [str(DELIVERED), str(UNKNOWN), str(FULL), str(DELIVERED)]
        assert await peer.ask("NOOP") == "250 2.0.0 ok"
    async with dialogue(DirectIntake(trace), config=CONFIG) as (peer, _):
        await send(peer, "a")
    assert " with LMTP " in trace.fields[0]


async def test_only_lhlo_greets() -> None:
    """RFC 2033 section 4.1: HELO and EHLO are no commands here."""
    async with dialogue(Memory(), config=CONFIG) as (peer, _):
        assert [(await peer.ask(f"{verb} client.example"))[:3] for verb in ("HELO", "EHLO", "LHLO")] == [
            "500",
            "500",
            "250",
        ]


async def test_a_refused_message_is_refused_for_each() -> None:
    """A defect of the data has as many replies as there are recipients, and the next message is not touched by it."""
    delivery = Routes()
    async with dialogue(DirectIntake(delivery), config=CONFIG) as (peer, _):
        replies = await send(peer, "a", "b", text="bare\nLF")
        assert [reply[:3] for reply in replies] == ["554", "554"]
        assert await send(peer, "c") == [str(DELIVERED)]

    assert delivery.tried == [["c"]]


async def test_a_redirected_rcpt_has_one_reply() -> None:
    """RCPT that a policy sent to several mailboxes is answered by the worst of their outcomes, in its place."""

    class Lists:
        async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply | Redirect:
            return to("x", "full", "y") if str(rcpt.forward_path).startswith("list") else DELIVERED

    delivery = Routes({"full": FULL, "gone": UNKNOWN})
    async with dialogue(DirectIntake(delivery), Lists(), config=CONFIG) as (peer, _):
        assert await send(peer, "a", "list", "gone") == [str(DELIVERED), str(FULL), str(UNKNOWN)]

    assert delivery.tried == [["a", "x", "full", "y", "gone"]]


async def test_a_spool_repeats_its_one_reply(tmp_path: Path) -> None:
    """Behind a queue there is one outcome for all, and each recipient hears it."""
    async with open_spool(tmp_path) as spool, dialogue(SpoolIntake(spool), config=CONFIG) as (peer, _):
        replies = await send(peer, "a", "b")
        [entry] = await spool.entries()

    assert replies == [f"250 2.0.0 queued as {entry.queue_id}"] * 2


async def test_a_message_policy_refuses_for_each() -> None:
    """One decision over the message is one for all its recipients, and nothing is delivered."""

    class No:
        async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
            return UNKNOWN if b"evil" in await message.bytes() else DELIVERED

    delivery = Routes()
    async with dialogue(DirectIntake(delivery), No(), config=CONFIG) as (peer, _):
        assert await send(peer, "a", "b", text="evil") == [str(UNKNOWN)] * 2
        assert await send(peer, "a", "b") == [str(DELIVERED)] * 2

    assert delivery.tried == [["a", "b"]]


async def test_a_421_for_one_takes_no_promise_from_another() -> None:
    """A delivery's 421 is 451 beside other replies: what was delivered is told of, and the session goes on."""
    async with dialogue(DirectIntake(Routes({"b": AWAY})), config=CONFIG) as (peer, _):
        assert await send(peer, "a", "b", "c") == [str(DELIVERED), "451 4.3.2 away", str(DELIVERED)]
        assert await peer.ask("NOOP") == "250 2.0.0 ok"
        assert await send(peer, "b") == [str(AWAY)]
        assert await peer.hear() == ""


async def test_a_421_for_all_is_said_once() -> None:
    """A policy that ends the session at the end of a message is heard, however many replies are due."""

    class Leaves:
        async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
            return AWAY

    async with dialogue(Memory(), Leaves(), config=CONFIG) as (peer, _):
        assert await send(peer, "a", "b") == [str(AWAY), ""]


@pytest.mark.parametrize("where", ["delivery", "policy", "intake"])
async def test_what_raises_is_451_for_each(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """Our faults are 4yz for each recipient, and the session goes on."""
    caplog.set_level(logging.CRITICAL)

    class Raises:
        async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
            raise RuntimeError

    intake = Memory(on_commit=RuntimeError()) if where == "intake" else DirectIntake(Routes({"a": RuntimeError()}))
    async with dialogue(intake, Raises() if where == "policy" else None, config=CONFIG) as (peer, _):
        replies = await send(peer, "a", "b", "c")
        assert [reply[:9] for reply in replies] == ["451 4.3.0"] * 3
        assert await peer.ask("NOOP") == "250 2.0.0 ok"


async def test_a_delivery_that_hangs_is_451_for_each(autojump_clock: trio.testing.MockClock) -> None:
    """A client waits no longer than for a commit."""

    class Hangs:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            await trio.sleep_forever()
            raise AssertionError

    async with dialogue(DirectIntake(Hangs()), config=CONFIG) as (peer, _):
        began = trio.current_time()
        assert [reply[:9] for reply in await send(peer, "a", "b")] == ["451 4.3.0"] * 2
        assert trio.current_time() - began < 600


async def test_a_promise_does_not_wait_behind_refusals(autojump_clock: trio.testing.MockClock) -> None:
    """Who has many refused recipients is slowed down, but never kept from hearing that one was served."""
    async with dialogue(
        DirectIntake(Routes({"b": UNKNOWN})), limits=Limits(tarpit_after=0, tarpit_delay=60), config=CONFIG
    ) as (peer, _):
        began = trio.current_time()
        replies = await send(peer, "a", *["b"] * 10)

        assert [reply[:3] for reply in replies] == ["250", *["550"] * 10]
        assert trio.current_time() == began
        assert [reply[:3] for reply in await send(peer, "b", "b")] == ["550", "550"]
        assert trio.current_time() - began == pytest.approx(60)


@pytest.mark.parametrize("ending", ["gone", "cancelled"])
async def test_a_large_message_leaves_no_file_behind(ending: str, tmp_path: Path) -> None:
    """Neither a client that goes in the middle nor a cancelled server keeps anything."""
    async with dialogue(DirectIntake(Routes(), folder=tmp_path), config=CONFIG) as (peer, _):
        await send(peer, "a", text="\r\n".join(["x" * 998] * 60))
        assert list(tmp_path.iterdir()) == []
    config = Config("mx.example", dialect=Dialect.LMTP)
    with trio.CancelScope() as scope:
        async with dialogue(DirectIntake(Routes(), folder=tmp_path), config=config) as (peer, _):
            await prepare(peer, "a")
            with trio.move_on_after(5):
                while not list(tmp_path.iterdir()):
                    await peer.say(*["x" * 998] * 300)
            assert len(list(tmp_path.iterdir())) == 1
            if ending == "cancelled":
                scope.cancel()

    assert list(tmp_path.iterdir()) == []
