"""TLS around a session: STARTTLS and implicit, what it forgets and what it counts, and clients that break off."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from tests.server.certificates import client_context, server_context
from tests.server.harness import CONFIG, Memory, Peer, dialogue, talk

from smtprecv.delivery import Attempt
from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.protocol import Config, Reply
from smtprecv.sasl import CREDENTIALS_INVALID, External, Identity, Password
from smtprecv.server import DirectIntake, Limits, Role, Server
from smtprecv.trace import trace_fields

TLS = server_context()
TRUSTING = client_context()


@dataclass
class Trace:
    """A delivery that writes trace fields, and delivers to nobody."""

    fields: list[str] = field(default_factory=list)

    async def deliver(self, attempt: Attempt) -> list[Reply]:
        texts = [trace_fields(attempt.entry, each, "mx.example").decode() for each in attempt.recipients]
        self.fields += [" ".join(text.split()) for text in texts]
        return [Reply(250, "delivered") for _ in texts]


async def upgrade(peer: Peer, context: ssl.SSLContext = TRUSTING) -> None:
    """Say EHLO and STARTTLS, and shake hands."""
    assert (await peer.ask("EHLO client.example")).startswith("250 ")
    assert await peer.ask("STARTTLS") == "220 2.0.0 ready to start TLS"
    await peer.start_tls(context)


async def send(peer: Peer) -> str:
    """Send a message, and give the reply to its end."""
    await peer.open_transaction()
    assert (await peer.ask("DATA")).startswith("354 ")
    return await peer.ask("hello", ".")


async def test_a_message_inside_starttls() -> None:
    """RFC 3207: offered in clear and not again inside; the trace names the version and the cipher.

    RFC 8689 section 2: REQUIRETLS is offered inside alone. RFC 3848: the message came with ESMTPS.
    """
    trace = Trace()
    async with dialogue(DirectIntake(trace), tls=TLS) as (peer, _):
        await peer.say("EHLO client.example")
        offers = {line[4:] for line in await peer.lines()}
        await upgrade(peer)
        await peer.say("EHLO client.example")
        offers_inside = {line[4:] for line in await peer.lines()}

        assert (await send(peer)).startswith("250 ")

    assert offers - offers_inside == {"STARTTLS"}
    assert offers_inside - offers == {"REQUIRETLS"}
    [fields] = trace.fields
    assert " with ESMTPS " in fields
    assert "TLSv1.3" in fields
    assert "TLS_AES" in fields


async def test_the_last_word_is_said_inside() -> None:
    """After 221 the client is told that nothing was cut off (RFC 8446 section 6.1)."""
    async with dialogue(Memory(), tls=TLS) as (peer, _):
        await upgrade(peer)

        assert (await peer.ask("QUIT")).startswith("221 ")
        assert await peer.stream.receive_some() == b""


async def test_the_farewell_is_said_inside(autojump_clock: trio.testing.MockClock) -> None:
    """Who is idle inside TLS hears 421 there, and its end."""
    async with dialogue(Memory(), tls=TLS) as (peer, _):
        await upgrade(peer)

        assert (await peer.reply()).startswith("421 4.4.2")
        assert await peer.stream.receive_some() == b""


@pytest.mark.parametrize("behind", ["NOOP\r\n", "NO"])
async def test_what_stands_behind_starttls_never_runs_inside(behind: str) -> None:
    """Octets behind the command, whole or half a command, have it refused before any 220; the session stays in clear.

    RFC 3207 section 4.2: or somebody in between puts commands before those of the client.
    """
    async with dialogue(Memory(), tls=TLS) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.stream.send_all(f"STARTTLS\r\n{behind}".encode())
        assert (await peer.reply())[0] == "5"

        await peer.stream.send_all("NOOP\r\n".removeprefix(behind).encode())

        assert await peer.reply() == "250 2.0.0 ok"


async def test_half_a_command_before_starttls_is_no_starttls() -> None:
    """A line is one command, however it is cut into segments."""
    async with dialogue(Memory(), tls=TLS) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.stream.send_all(b"NOO")
        await trio.testing.wait_all_tasks_blocked()

        assert (await peer.ask("STARTTLS")).startswith("500 ")


@pytest.mark.parametrize("garbage", [b"MAIL FROM:<evil@client.example>\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 9])
async def test_what_is_said_in_clear_after_the_220_breaks_only_the_handshake(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is taken for TLS, is none, and ends the connection with one line in the log."""
    caplog.set_level(logging.INFO)
    asked: list[str] = []

    class Watch:
        async def mail(self, client: Client, mail: object) -> Reply:
            asked.append(str(mail))
            return Reply(250, "ok")

    async with dialogue(Memory(), Watch(), tls=TLS) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("STARTTLS")
        await peer.stream.send_all(garbage)

        assert await peer.stream.receive_some() == b""

    assert asked == []
    [record] = caplog.records
    assert record.getMessage().startswith("s1: connection lost: ")
    assert record.exc_info is None


async def test_a_handshake_has_its_time(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who says nothing after the 220 is cut off when the handshake's own time is over, without a word in clear."""
    caplog.set_level(logging.INFO)
    async with dialogue(Memory(), tls=TLS, limits=Limits(handshake_timeout=20)) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("STARTTLS")
        began = trio.current_time()

        assert await peer.hear() == ""
        assert trio.current_time() - began == pytest.approx(20)

    assert [record.getMessage() for record in caplog.records] == ["s1: connection lost: no TLS handshake in time"]


@pytest.mark.parametrize("steps", [0, 1, 5])
async def test_a_client_that_goes_in_the_handshake_is_one_log_line(
    steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Design, promise 3: never a traceback, after however many octets."""
    caplog.set_level(logging.INFO)
    async with dialogue(Memory(), tls=TLS) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("STARTTLS")
        if steps:
            await peer.stream.send_all(b"\x16\x03\x01\x02\x00"[:steps])
        await peer.stream.aclose()

    [record] = caplog.records
    assert record.getMessage().startswith("s1: connection lost: ")
    assert record.exc_info is None


async def test_a_client_that_goes_without_a_word_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """The end of the stream without close_notify in the middle of a message: nothing is accepted, one line says so."""
    caplog.set_level(logging.INFO)
    intake = Memory()
    async with dialogue(intake, tls=TLS) as (peer, _):
        await upgrade(peer)
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.stream.send_all(b"half a mess")

    [record] = caplog.records
    assert record.getMessage().startswith("s1: connection lost: ")
    assert record.exc_info is None
    assert (intake.taken, intake.aborted) == ([], 1)


async def test_nothing_said_in_clear_is_known_inside() -> None:
    """RFC 3207 section 4.2: EHLO is forgotten, and so is who the client was."""
    policy = One()
    config = Config("mx.example", auth_without_tls=True)
    async with dialogue(Memory(), policy, tls=TLS, config=config) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await peer.ask("AUTH PLAIN AGFubmEAcmlnaHQ=")).startswith("235 ")
        await upgrade(peer)

        assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("503 ")
        await peer.ask("EHLO client.example")
        assert (await peer.ask("AUTH PLAIN AGFubmEAcmlnaHQ=")).startswith("235 ")


class One:
    """A policy that knows the user anna and her password."""

    async def authenticate(self, client: Client, credentials: Password | External) -> Identity | Reply:
        return Identity("anna") if credentials == Password("anna", "right") else CREDENTIALS_INVALID


async def test_errors_go_on_counting_inside() -> None:
    """Three errors before and two inside are five."""
    async with dialogue(Memory(), tls=TLS, limits=Limits(max_errors=5)) as (peer, _):
        for _ in range(3):
            await peer.ask("NONSENSE")
        await upgrade(peer)
        for _ in range(2):
            assert (await peer.ask("NONSENSE")).startswith("500 ")

        assert await peer.reply() == "421 4.7.0 too many errors"


async def test_failures_go_on_counting_inside(autojump_clock: trio.testing.MockClock) -> None:
    """A password guessed wrong twice in clear and once inside is three times wrong."""
    config = Config("mx.example", auth_without_tls=True)
    async with dialogue(Memory(), One(), Limits(max_auth_failures=3), config=config, tls=TLS) as (peer, _):
        await peer.ask("EHLO client.example")
        for _ in range(2):
            assert (await peer.ask("AUTH PLAIN AGFubmEAd3Jvbmc=")).startswith("535 ")
        await upgrade(peer)
        await peer.ask("EHLO client.example")
        assert (await peer.ask("AUTH PLAIN AGFubmEAd3Jvbmc=")).startswith("535 ")

        assert await peer.reply() == "421 4.7.0 too many authentication failures"


async def test_the_session_ends_at_its_time_inside_too(autojump_clock: trio.testing.MockClock) -> None:
    """STARTTLS gives a session no new time."""
    async with dialogue(Memory(), tls=TLS, limits=Limits(session_timeout=250)) as (peer, _):
        began = trio.current_time()
        await trio.sleep(200)
        await upgrade(peer)

        assert (await peer.reply()).startswith("421 ")
        assert 250 <= trio.current_time() - began <= 253


async def test_a_drain_waits_for_the_handshake() -> None:
    """Who is shaking hands hears 421 as soon as it can be said inside."""
    async with dialogue(Memory(), tls=TLS) as (peer, held):
        await peer.ask("EHLO client.example")
        await peer.ask("STARTTLS")
        held.drain()
        await peer.start_tls(TRUSTING)

        assert await peer.reply() == "421 4.3.2 service shutting down"


async def test_a_cancellation_in_the_handshake_says_nothing_in_clear() -> None:
    """A 421 there would be taken for TLS: the stream is closed without a word."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, tls=TLS).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.ask("EHLO client.example")
        await peer.ask("STARTTLS")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert await theirs.receive_some() == b""


async def test_implicit_tls_begins_before_the_greeting() -> None:
    """RFC 8314 section 3.3: not an octet in clear, STARTTLS is not offered, and the rest is as inside STARTTLS."""
    trace = Trace()
    async with dialogue(DirectIntake(trace), tls=TLS, implicit_tls=TRUSTING) as (peer, _):
        assert peer.greeting == "220 mx.example ESMTP"
        await peer.say("EHLO client.example")
        assert not {"250-STARTTLS", "250 STARTTLS"} & set(await peer.lines())
        assert (await peer.ask("STARTTLS")).startswith("503 ")
        assert (await send(peer)).startswith("250 ")
        assert (await peer.ask("QUIT")).startswith("221 ")
        assert await peer.stream.receive_some() == b""

    [fields] = trace.fields
    assert " with ESMTPS " in fields


@pytest.mark.parametrize("opening", [b"EHLO client.example\r\n", b"GET / HTTP/1.1\r\n\r\n"])
async def test_who_speaks_in_clear_where_tls_begins_is_hung_up_on(
    opening: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no greeting in clear to answer."""
    caplog.set_level(logging.INFO)
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(opening)
    await talk(ours, tls=TLS, implicit_tls=True).run()

    with suppress(trio.ClosedResourceError):
        assert await theirs.receive_some() == b""
    [record] = caplog.records
    assert record.exc_info is None


async def test_tls_may_be_demanded() -> None:
    """RFC 3207 section 4: 530 to whatever sends mail in clear, and nothing is missing inside."""
    intake = Memory()
    config = Config("mx.example", requires_tls=True)
    async with dialogue(intake, tls=TLS, config=config) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("530 5.7.0")
        await upgrade(peer)
        assert (await send(peer)).startswith("250 ")

    assert len(intake.taken) == 1


class Broken:
    """A TlsSource that has nothing."""

    async def context(self) -> ssl.SSLContext:
        raise RuntimeError


@pytest.mark.parametrize("is_implicit", [False, True])
async def test_a_source_that_fails_is_our_fault(is_implicit: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001
    """Its error is in the log, the connection ends without a word in clear, and only this one."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, tls=Broken(), implicit_tls=is_implicit).run)
        if not is_implicit:
            await peer.reply()
            await peer.ask("EHLO client.example")
            assert (await peer.ask("STARTTLS")).startswith("220 ")

        assert await theirs.receive_some() == b""

    [record] = caplog.records
    assert record.exc_info is not None


def test_what_cannot_be_served_is_found_out_at_the_start() -> None:
    """TLS that is demanded without a certificate, a client's context, AUTH that is demanded and never offered."""
    with pytest.raises(ConfigError, match="no certificate"):
        Server(Memory(), config=Config("mx.example", requires_tls=True))
    with pytest.raises(ConfigError, match="context of a client"):
        Server(Memory(), config=CONFIG, tls=TRUSTING)
    needs_auth = Config("mx.example", requires_auth=True)
    with pytest.raises(ConfigError, match="never offered"):
        Server(Memory(), config=needs_auth, tls=TLS)
    with pytest.raises(ConfigError, match="never offered"):
        Server(Memory(), config=needs_auth, policy=One())
    Server(Memory(), config=needs_auth, policy=One(), tls=TLS)


async def test_a_role_that_cannot_be_is_found_out_before_it_is_served() -> None:
    """Implicit TLS needs a certificate, which is the server's."""
    _, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(ConfigError, match="no certificate"):
        await Server(Memory(), config=CONFIG).talk(theirs, Role(implicit_tls=True))


async def test_a_drain_over_the_limit_of_implicit_tls_says_nothing_in_clear() -> None:
    """A connection that is refused before its handshake is closed: a 421 in clear would be no TLS."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = Server(Memory(), config=CONFIG, tls=TLS)
    server.drain()

    await server.talk(ours, Role(implicit_tls=True))

    assert await theirs.receive_some() == b""
