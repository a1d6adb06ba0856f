"""BDAT (RFC 3030) in a session: when policies and intakes are asked, and what is swallowed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio.testing
from tests.server.harness import Memory, Peer, dialogue

from smtprecv.errors import SpoolFull
from smtprecv.message import Client, Message
from smtprecv.protocol import EnhancedStatus, Envelope, Reply

NO = Reply(554, "no thanks", EnhancedStatus(5, 7, 1))


class Watch:
    """A policy that counts how often it is asked, and answers what it is told to."""

    def __init__(self, data: Reply | None = None, message: Reply | None = None) -> None:
        self.answers = {"data": data or Reply(250, "ok"), "message": message or Reply(250, "ok")}
        self.asked: list[str] = []

    async def data(self, client: Client, envelope: Envelope) -> Reply:
        self.asked.append("data")
        return self.answers["data"]

    async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
        self.asked.append("message")
        return self.answers["message"]


async def chunk(peer: Peer, octets: bytes, last: str = "") -> str:
    """Send a chunk, and give its reply."""
    await peer.stream.send_all(f"BDAT {len(octets)}{last}\r\n".encode() + octets)
    return await peer.reply()


async def test_a_message_in_chunks() -> None:
    """Its octets are passed on as they are; the policy is asked once before and once after all of them."""
    intake, policy = Memory(), Watch()
    async with dialogue(intake, policy) as (peer, _):
        await peer.open_transaction()
        assert await chunk(peer, b"Subject: hello\r\n\r\n") == "250 2.0.0 chunk received"
        assert await chunk(peer, b".\r\n..\r") == "250 2.0.0 chunk received"
        assert await chunk(peer, b"\n.\r\n", " LAST") == "250 2.0.0 queued as 1"
        await peer.open_transaction()
        assert await chunk(peer, b"", " LAST") == "250 2.0.0 queued as 2"

    assert [octets for _, _, octets in intake.taken] == [b"Subject: hello\r\n\r\n.\r\n..\r\n.\r\n", b""]
    assert policy.asked == ["data", "message"] * 2


async def test_a_binary_message() -> None:
    """BODY=BINARYMIME has no lines: every octet may stand anywhere, and DATA cannot carry it."""
    intake = Memory()
    octets = bytes(range(256)) * 40
    async with dialogue(intake) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@client.example> BODY=BINARYMIME")
        await peer.ask("RCPT TO:<b@mx.example>")
        assert (await peer.ask("DATA")).startswith("503 ")
        await chunk(peer, octets[:5000])
        await chunk(peer, octets[5000:], " LAST")

    assert [taken for _, _, taken in intake.taken] == [octets]


@pytest.mark.parametrize("last", ["", " LAST"])
async def test_a_refused_chunk_is_swallowed_and_answered_at_its_end(last: str) -> None:
    """RFC 3030 section 2: the octets come in any case, and no line of theirs runs; then the transaction is over."""
    intake, policy = Memory(), Watch(data=NO)
    async with dialogue(intake, policy) as (peer, _):
        await peer.open_transaction()
        await peer.stream.send_all(f"BDAT 30{last}\r\nMAIL FROM:".encode())
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(b"<evil@x.example>\r\n\r\n")

        assert await peer.reply() == str(NO)

        assert (await chunk(peer, b"RSET\r\n", " LAST")).startswith("503 ")
        assert await peer.ask("NOOP") == "250 2.0.0 ok"
    assert (intake.taken, policy.asked) == ([], ["data"])


@pytest.mark.parametrize("step", ["on_begin", "on_write", "on_commit"])
async def test_a_spool_in_trouble_is_4yz_at_the_end_of_the_chunk(step: str) -> None:
    """The rest of a pipelined message is swallowed as 503, and the next message is taken."""
    intake = Memory()
    setattr(intake, step, SpoolFull("full"))
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await peer.stream.send_all(b"BDAT 6\r\nMAIL\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n")
        replies = [await peer.reply() for _ in range(3)]
        setattr(intake, step, None)
        await peer.open_transaction()
        assert (await chunk(peer, b"hello\r\n", " LAST")).startswith("250 ")

    told = [reply[:3] for reply in replies]
    assert told == (["250", "250", "452"] if step == "on_commit" else ["452", "503", "503"])
    assert [octets for _, _, octets in intake.taken] == [b"hello\r\n"]


async def test_a_defect_ends_the_message_at_its_chunk() -> None:
    """A bare LF is found at the end of the chunk that has it, and nothing is kept of those before."""
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await chunk(peer, b"fine\r\n")
        assert (await chunk(peer, b"bare\nLF\r\n")).startswith("554 ")
        assert (await peer.ask("DATA")).startswith("503 ")

    assert (intake.taken, intake.aborted) == ([], 1)


@pytest.mark.parametrize("ending", [["RSET"], ["EHLO client.example"], ["HELO client.example"]])
@pytest.mark.parametrize("by_data", [False, True])
async def test_what_came_before_a_reset_is_in_no_other_message(
    ending: Sequence[str],
    by_data: bool,  # noqa: FBT001
) -> None:
    """RFC 5321 sections 4.1.1.5 and 4.1.4: the chunks of a transaction that is given up are gone."""
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await chunk(peer, b"secret\r\n")
        await peer.ask(*ending)
        assert intake.aborted == 1
        await peer.open_transaction()
        if by_data:
            await peer.ask("DATA")
            await peer.ask("other", ".")
        else:
            await chunk(peer, b"other\r\n", " LAST")

    assert [octets for _, _, octets in intake.taken] == [b"other\r\n"]
    assert intake.aborted == 1


async def test_a_hello_that_is_refused_ends_no_transaction() -> None:
    """The reply moves the session: where a policy says no, the chunks stay."""

    class Once:
        def __init__(self) -> None:
            self.is_asked = False

        async def hello(self, client: Client, hello: object) -> Reply:
            refused, self.is_asked = self.is_asked, True
            return NO if refused else Reply(250, "ok")

    intake = Memory()
    async with dialogue(intake, Once()) as (peer, _):
        await peer.open_transaction()
        await chunk(peer, b"one\r\n")
        assert await peer.ask("EHLO client.example") == str(NO)
        await chunk(peer, b"two\r\n", " LAST")

    assert [octets for _, _, octets in intake.taken] == [b"one\r\ntwo\r\n"]


async def test_a_client_that_goes_between_chunks_leaves_nothing() -> None:
    """Without the last chunk nothing is accepted."""
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await chunk(peer, b"hello\r\n")

    assert (intake.taken, intake.aborted) == ([], 1)


async def test_a_message_policy_refuses_what_came_in_chunks() -> None:
    """The refusal is the reply to the last chunk; the session goes on."""
    intake = Memory()
    async with dialogue(intake, Watch(message=NO)) as (peer, _):
        await peer.open_transaction()
        await chunk(peer, b"hello\r\n")
        assert await chunk(peer, b"hello\r\n", " LAST") == str(NO)
        assert await peer.ask("NOOP") == "250 2.0.0 ok"

    assert (intake.taken, intake.aborted) == ([], 1)
