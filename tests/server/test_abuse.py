"""A hard shell: who talks too early, too slowly, too often or something else, and that a normal client passes."""

from __future__ import annotations

import logging
from contextlib import suppress
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from tests.server.certificates import client_context, server_context
from tests.server.harness import CONFIG, Memory, Peer, dialogue, talk

from smtprecv.message import Client, SessionId
from smtprecv.protocol import Config, Mail, Reply
from smtprecv.server import Limits, Rate, Server

DELAY = Limits(greet_delay=5)
STRANGER = Client(SessionId("s1"), ip_address("192.0.2.1"), 40000)


async def test_who_talks_before_the_greeting_is_sent_away(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 5321 section 4.3.1: a client waits for the greeting; one that does not hears 421, and nothing of it runs."""
    caplog.set_level(logging.INFO)
    intake = Memory()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, limits=DELAY, intake=intake).run)
        peer = Peer(theirs)
        await peer.say("EHLO client.example", "MAIL FROM:<a@client.example>")

        assert await peer.reply() == "421 4.7.0 you must wait for the greeting"
        assert await peer.hear() == ""
        await theirs.aclose()

    assert [record.getMessage() for record in caplog.records] == ["s1: 421 4.7.0 you must wait for the greeting"]


async def test_who_waits_is_greeted_after_the_delay(autojump_clock: trio.testing.MockClock) -> None:
    """A patient client loses just the delay, and from then on has its time as any other."""
    began = trio.current_time()
    async with dialogue(Memory(), limits=DELAY) as (peer, _):
        assert trio.current_time() - began == pytest.approx(5)
        assert peer.greeting == "220 mx.example ESMTP"
        await peer.open_transaction()


async def test_the_delay_is_kept_inside_tls_too(autojump_clock: trio.testing.MockClock) -> None:
    """What counts is what is said before the greeting, and not the handshake."""
    began = trio.current_time()
    async with dialogue(Memory(), limits=DELAY, tls=server_context(), implicit_tls=client_context()) as (peer, _):
        assert trio.current_time() - began == pytest.approx(5)
        assert peer.greeting == "220 mx.example ESMTP"


async def test_who_leaves_before_the_greeting_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """A port scan is no talk."""
    caplog.set_level(logging.INFO)
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_eof()
    await talk(ours, limits=DELAY).run()

    assert [record.getMessage() for record in caplog.records] == [
        "s1: connection lost: it did not wait for the greeting"
    ]


async def test_a_drain_does_not_greet(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever waits for the greeting when the server drains hears 421 in its place."""
    ours, theirs = trio.testing.memory_stream_pair()
    held = talk(ours, limits=DELAY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run)
        await trio.sleep(1)
        held.drain()
        assert await Peer(theirs).reply() == "421 4.3.2 service shutting down"
        await theirs.aclose()


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: mx.example\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nEHLO x\r\nMAIL FROM:<evil@x.example>\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\nMAIL FROM:<evil@x.example>\r\n",
    ],
)
async def test_who_speaks_another_protocol_is_hung_up_on(opening: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who was sent here to speak HTTP or TLS: one reply, and no line behind the first one runs."""
    caplog.set_level(logging.INFO)
    async with dialogue(Memory()) as (peer, _):
        await peer.stream.send_all(opening)

        assert await peer.reply() == "421 4.7.0 This is not the protocol that is spoken here"
        assert await peer.hear() == ""

    [record] = caplog.records
    assert "refused " in record.getMessage()
    assert record.getMessage().isprintable()


async def test_errors_past_a_number_wait(autojump_clock: trio.testing.MockClock) -> None:
    """A dictionary attack pays a second for each guess behind the tenth, and ends at the twentieth."""
    async with dialogue(Memory()) as (peer, _):
        times = []
        for _ in range(20):
            began = trio.current_time()
            assert (await peer.ask("NONSENSE")).startswith("500 ")
            times.append(round(trio.current_time() - began))

        assert times == [0] * 10 + [1] * 10
        assert await peer.reply() == "421 4.7.0 too many errors"


@pytest.mark.parametrize("is_mail_data", [False, True])
async def test_an_octet_a_minute_is_cut_off(is_mail_data: bool, autojump_clock: trio.testing.MockClock) -> None:  # noqa: FBT001
    """A slow drip holds its connection hardly longer than silence does, in a command and in the data."""
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        if is_mail_data:
            await peer.open_transaction()
            await peer.ask("DATA")
        began = trio.current_time()
        with suppress(trio.BrokenResourceError):
            for _ in range(100):
                await peer.stream.send_all(b"x")
                await trio.sleep(60)

        assert trio.current_time() - began < 300 + 60 + 1

    assert intake.taken == []


async def test_a_slow_and_steady_client_passes(autojump_clock: trio.testing.MockClock) -> None:
    """Who sends at the least rate may go on for as long as the session lasts."""
    intake = Memory()
    async with dialogue(intake, config=Config("mx.example")) as (peer, _):
        await peer.open_transaction()
        await peer.ask("DATA")
        began = trio.current_time()
        for _ in range(200):
            await peer.stream.send_all((b"x" * 498 + b"\r\n") * 10)
            await trio.sleep(10)
        assert (await peer.ask(".")).startswith("250 ")
        assert trio.current_time() - began >= 2000


async def test_slow_chunks_do_not_outlast_the_session(autojump_clock: trio.testing.MockClock) -> None:
    """A chunk of one octet now and then is a request like any other: the session's own end stands."""
    async with dialogue(Memory(), limits=Limits(session_timeout=990)) as (peer, _):
        await peer.open_transaction()
        began = trio.current_time()
        reply = ""
        while not reply.startswith("421"):
            await trio.sleep(200)
            with suppress(trio.BrokenResourceError):
                await peer.stream.send_all(b"BDAT 1\r\nx")
            reply = await peer.reply()

        assert trio.current_time() - began <= 1000


async def test_who_sends_too_much_waits(autojump_clock: trio.testing.MockClock) -> None:
    """Past the rate of transactions MAIL is 451, which is no error of the client's, until its time has come."""
    limits = Limits(transaction_rate=Rate(2, 60))
    async with dialogue(Memory(), limits=limits, client=STRANGER) as (peer, _):
        replies = []
        for _ in range(10):
            await peer.ask("EHLO client.example")
            replies.append((await peer.ask("MAIL FROM:<a@client.example>"))[:9])
        assert replies == ["250 2.1.0"] * 2 + ["451 4.7.1"] * 8
        await trio.sleep(30)
        assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("250 ")


async def test_a_refused_sender_takes_nothing_of_the_rate() -> None:
    """What the policy refuses is not counted: the rate is of accepted MAIL commands."""

    class Choosy:
        async def mail(self, client: Client, mail: Mail) -> Reply:
            return Reply(250 if str(mail.reverse_path).startswith("good") else 450, "so it is")

    async with dialogue(Memory(), Choosy(), Limits(transaction_rate=Rate(1, 60)), STRANGER) as (peer, _):
        await peer.ask("EHLO client.example")
        for _ in range(5):
            assert (await peer.ask("MAIL FROM:<bad@client.example>")).startswith("450 ")
        assert (await peer.ask("MAIL FROM:<good@client.example>")).startswith("250 ")


async def test_who_errs_too_often_is_not_let_in_again(autojump_clock: trio.testing.MockClock) -> None:
    """The errors of all sessions of a client count together; its open session is not ended by them."""
    limits = Limits(error_rate=Rate(3, 60))
    async with dialogue(Memory(), limits=limits, client=STRANGER) as (peer, running):
        for _ in range(5):
            assert (await peer.ask("NONSENSE")).startswith("500 ")
        assert await peer.ask("NOOP") == "250 2.0.0 ok"
        assert running._doorkeeper.enter(STRANGER.address) is not None
        await trio.sleep(60)
        assert running._doorkeeper.enter(STRANGER.address) is None


async def test_transactions_of_a_session_are_limited_and_announced() -> None:
    """RFC 9422 section 4.1: MAILMAX; the MAIL past it is 4yz, and the client sends the rest in another session."""
    config = Config("mx.example", max_transactions=2)
    async with dialogue(Memory(), config=config) as (peer, _):
        await peer.say("EHLO client.example")
        assert "250-LIMITS MAILMAX=2 RCPTMAX=1000" in await peer.lines()
        replies = []
        for _ in range(3):
            replies.append((await peer.ask("MAIL FROM:<a@client.example>"))[:1])
            await peer.ask("RSET")
        assert replies == ["2", "2", "4"]


async def test_the_limit_of_connections_holds_for_all_roles() -> None:
    """However many listeners and roles a server has, it has one door."""
    server = Server(Memory(), config=CONFIG, limits=Limits(max_connections=1))
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.talk, ours)
        assert (await Peer(theirs).reply()).startswith("220 ")
        others, second = trio.testing.memory_stream_pair()
        nursery.start_soon(server.talk, others)
        assert (await Peer(second).reply()).startswith("421 ")
        await theirs.aclose()
