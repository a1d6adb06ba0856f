"""Delivery to a next hop: each recipient is told what it said of him, and nobody has a message twice."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from tests.deliveries.nexthop import HANG_UP, MESSAGE, OFFERS, SILENCE, Scripted, attempt, net, ourselves
from tests.server.harness import CONFIG, Memory, MemoryMessage
from tests.test_queue import accept, now, spooling

from smtprecv.deliveries import Relay, RelayTimeouts
from smtprecv.errors import ConfigError, SpoolError
from smtprecv.message import Client
from smtprecv.policies import on_authenticate
from smtprecv.protocol import Body, Config, Dialect, MailParameters, Notify, RcptParameters, Reply, Ret, Severity, Xtext
from smtprecv.queue import run_once
from smtprecv.relay import TlsMode
from smtprecv.sasl import External, Identity, Password, ScramKeys

BEN, CARL, DORA = "ben@example.org", "carl@example.org", "dora@example.org"
LMTP = Config("mx.example", dialect=Dialect.LMTP)
TRACE = re.compile(rb"Received: from unknown by us\.example with [A-Z0-9]+ id 0{20}(?:\r\n\tfor <[^>]+>)?;\s[^\r]+\r\n")


def relay(
    dialect: Dialect = Dialect.SMTP,
    tls: TlsMode | None = TlsMode.NONE,
    timeouts: RelayTimeouts | None = None,
    *,
    connections: int = 10,
    idle: int = 5,
    idle_seconds: float = 30,
) -> Relay:
    """Give a relay to mx.example, in clear if nothing else is said."""
    return Relay(
        "mx.example",
        dialect=dialect,
        tls=tls,
        hostname="us.example",
        connections=connections,
        idle=idle,
        idle_seconds=idle_seconds,
        timeouts=timeouts,
    )


def texts(replies: Sequence[Reply]) -> list[str]:
    """Write replies."""
    return [str(reply) for reply in replies]


async def test_smtp(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """The next hop has the message as it is below one Received field of ours, and its reply is everybody's."""
    memory = Memory()
    async with net(monkeypatch, ourselves(memory)):
        assert texts(await relay().deliver(attempt(BEN, CARL))) == ["250 2.0.0 queued as 1"] * 2
        assert texts(await relay().deliver(attempt(DORA))) == ["250 2.0.0 queued as 2"]
    (_, envelope, first), (_, _, second) = memory.taken
    assert (str(envelope.reverse_path), [str(each) for each in envelope.recipients]) == (
        "anna@example.com",
        [BEN, CARL],
    )
    assert [TRACE.sub(b"", octets, count=1) for octets in (first, second)] == [MESSAGE] * 2
    # RFC 5321 section 7.2: only who is alone is named.
    assert (b" for <" in first, b"\tfor <dora@example.org>" in second) == (False, True)


async def test_parameters(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """What the sender asked for arrives as it came (RFC 3461 section 5.2.1)."""
    memory = Memory()
    given = MailParameters(body=Body.EIGHT_BIT_MIME, smtputf8=True, ret=Ret.FULL, envid=Xtext("a+2Bb"))
    wanted = RcptParameters(frozenset({Notify.SUCCESS, Notify.FAILURE}))
    async with net(monkeypatch, ourselves(memory)):
        replies = await relay().deliver(attempt("jörg@example.org", given=given, wanted=wanted))
    ((_, envelope, octets),) = memory.taken
    assert envelope.parameters == MailParameters(len(octets), given.body, True, given.ret, given.envid)  # noqa: FBT003
    assert (envelope.recipients[0].parameters, texts(replies)) == (wanted, ["250 2.0.0 queued as 1"])


async def test_lmtp(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """By LMTP each recipient is told his own reply (RFC 2033 section 4.2)."""
    memory = Memory(replies=[Reply(250, "ben"), Reply(452, "carl"), Reply(550, "dora")])
    async with net(monkeypatch, ourselves(memory, config=LMTP)):
        replies = await Relay(Path("/lmtp"), dialect=Dialect.LMTP).deliver(attempt(BEN, CARL, DORA))
    assert [(each.code, each.text) for each in replies] == [(250, "ben"), (452, "carl"), (550, "dora")]


async def test_binary(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A binary message of many pieces goes in chunks, its octets as they are (RFC 3030 section 3)."""
    memory, octets = Memory(), bytes(range(256)) * 20
    async with net(monkeypatch, ourselves(memory)):
        (reply,) = await relay().deliver(attempt(BEN, octets=octets, given=MailParameters(body=Body.BINARY_MIME)))
    assert (str(reply), TRACE.sub(b"", memory.taken[0][2], count=1)) == ("250 2.0.0 queued as 1", octets)


async def test_chunk_refused(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Behind a chunk that is refused there comes no other, and its reply is everybody's."""
    server = Scripted({"EHLO": "250-mx.example|250-CHUNKING|250 BINARYMIME", "BDAT": "552 5.2.2 full"})
    async with net(monkeypatch, server):
        (reply,) = await relay().deliver(attempt(BEN, given=MailParameters(body=Body.BINARY_MIME)))
    assert str(reply) == "552 5.2.2 full"


async def test_white_space_first(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A message that begins with white space does not go on with our field; an empty one is our field."""
    memory = Memory()
    async with net(monkeypatch, ourselves(memory)):
        await relay().deliver(attempt(BEN, octets=b" x\r\n"))
        await relay().deliver(attempt(BEN, octets=b""))
    assert [TRACE.sub(b"", octets) for _, _, octets in memory.taken] == [b"\r\n x\r\n", b""]


QUICK = RelayTimeouts(total=3000.0)


@pytest.mark.parametrize("fault", [HANG_UP, SILENCE, "421 bye", "\x16\x03", "250-ok|550 what"])
@pytest.mark.parametrize("phase", ["greeting", "EHLO", "MAIL", "RCPT TO:<b", "RCPT TO:<c", "DATA", "message", "."])
async def test_dies(
    phase: str, fault: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A server that dies in any phase, and in any way, has been given nothing, or has not said so: try again later."""
    server = Scripted({phase: fault})
    async with net(monkeypatch, server) as there:
        replies = await relay(timeouts=QUICK).deliver(attempt(BEN, CARL))
    assert [each.severity for each in replies] == [Severity.TRANSIENT] * 2
    goes_on = phase == "message" and fault not in {HANG_UP, SILENCE, "421 bye"}
    assert len(server.messages) == (phase == "." or goes_on)
    assert there.connections == 1


@pytest.mark.parametrize("is_silent", [False, True])
@pytest.mark.parametrize("sending", range(1, 6))
async def test_not_sent(
    sending: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, *, is_silent: bool
) -> None:
    """What can't be sent, or not in time, is tried again: EHLO, the envelope, DATA, the message, its end."""
    server, sent = Scripted(), 0

    async def hook() -> None:
        nonlocal sent
        sent += 1
        if sent == sending and is_silent:
            await trio.sleep_forever()
        elif sent == sending:
            raise trio.BrokenResourceError

    async with net(monkeypatch, server) as there:
        there.hook = hook
        (reply,) = await relay().deliver(attempt(BEN))
    assert (reply.code, str(reply.status)) == (451, "4.4.2")
    assert len(server.messages) <= (sending == 5)  # whether the end arrives nobody knows


@pytest.mark.parametrize(
    ("answers", "outcomes"),
    [
        # It may say why it hangs up in the middle of a message.
        ({"message": "552 5.3.4 too big", ".": HANG_UP}, ["552 5.3.4 too big"] * 2),
        # A reply too many: nobody knows any more whose is whose.
        ({"MAIL": "250 ok|250 ok"}, ["451 4.5.0 the next hop answers what was not asked"] * 2),
        ({"RCPT TO:<b": "250 ok|550 no"}, ["451 4.5.0 the next hop answers what was not asked"] * 2),
        ({"RCPT TO:<c": "250 ok|421 bye"}, ["421 bye"] * 2),
        ({"RCPT TO:<b": "550 no", ".": "250 taken"}, ["550 no", "250 taken"]),
    ],
)
async def test_answers(
    answers: Mapping[str, str],
    outcomes: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What can be told apart is told, and what can't is tried again."""
    async with net(monkeypatch, Scripted(answers)):
        assert texts(await relay().deliver(attempt(BEN, CARL))) == outcomes


async def test_lmtp_too_few(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Who has a reply keeps it when the server dies before the others'; one too many ends the session."""
    answers = {"LHLO": OFFERS, ".": ["250 ben|421 bye", "250 ben|250 carl|250 dora"]}
    server = Scripted(answers)
    async with net(monkeypatch, server) as there:
        lmtp = relay(Dialect.LMTP)
        async with lmtp.running():
            assert texts(await lmtp.deliver(attempt(BEN, CARL))) == ["250 ben", "421 bye"]
            assert texts(await lmtp.deliver(attempt(BEN, CARL))) == ["250 ben", "250 carl"]
            await lmtp.deliver(attempt(BEN, CARL))
    assert there.connections == 3


async def test_reused(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """While a queue runs a connection is used again; it ends with QUIT, in time or with the run."""
    server = Scripted()
    async with net(monkeypatch, server) as there:
        smtp = relay(idle_seconds=10)
        async with smtp.running(), smtp.running():
            await smtp.deliver(attempt(BEN))
            await smtp.deliver(attempt(BEN))
            assert (there.connections, server.said.count("QUIT")) == (1, 0)
            await trio.sleep(11)
            assert server.said.count("QUIT") == 1
            await smtp.deliver(attempt(BEN))
        assert (there.connections, server.said.count("QUIT"), len(server.messages)) == (2, 2, 3)
        await smtp.deliver(attempt(BEN))
        await smtp.deliver(attempt(BEN))
        assert (there.connections, server.said.count("QUIT")) == (4, 4)


async def test_idle_is_bounded(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """No more connections are kept than may be, and no more are opened."""
    server = Scripted()
    async with net(monkeypatch, server) as there:
        smtp = relay(connections=4, idle=2)
        async with smtp.running():
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(smtp.deliver, attempt(BEN))
            assert len(server.messages) == 20
            assert there.connections - server.said.count("QUIT") <= 2
        assert there.connections == server.said.count("QUIT")


@pytest.mark.parametrize("mail", [HANG_UP, "421 4.3.2 idle for too long"])
async def test_stale(mail: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A connection that turns out to be closed when it is used again is replaced once, and nobody hears of it."""
    server = Scripted({"MAIL": ["250 ok", mail, "250 ok"]})
    async with net(monkeypatch, server) as there:
        smtp = relay()
        async with smtp.running():
            for _ in range(2):
                assert texts(await smtp.deliver(attempt(BEN))) == ["250 ok"]
    assert (there.connections, len(server.messages)) == (2, 2)


async def test_stale_once(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """One that is closed at once again is a failure."""
    server = Scripted({"MAIL": ["250 ok", HANG_UP]})
    async with net(monkeypatch, server) as there:
        smtp = relay()
        async with smtp.running():
            await smtp.deliver(attempt(BEN))
            assert texts(await smtp.deliver(attempt(BEN))) == [
                "451 4.4.2 the connection was lost before the reply to MAIL"
            ]
    assert there.connections == 2


async def test_watched(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Whatever comes on a connection that waits makes it useless, a reply that nobody asked for above all."""
    streams: list[trio.abc.Stream] = []
    server = Scripted()

    async def serve(stream: trio.abc.Stream) -> None:
        streams.append(stream)
        await server(stream)

    async with net(monkeypatch, serve) as there:
        smtp = relay()
        async with smtp.running():
            await smtp.deliver(attempt(BEN))
            await streams[0].send_all(b"250 ok\r\n")
            await trio.testing.wait_all_tasks_blocked()
            assert texts(await smtp.deliver(attempt(BEN))) == ["250 ok"]
    assert (there.connections, len(server.messages)) == (2, 2)


async def test_limits(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """More recipients than a transaction may have, and more transactions than a session may, are divided."""
    server = Scripted({"EHLO": "250-mx.example|250 LIMITS RCPTMAX=2 MAILMAX=2"})
    people = [f"{number}@example.org" for number in range(9)]
    async with net(monkeypatch, server) as there:
        assert texts(await relay().deliver(attempt(*people))) == ["250 ok"] * 9
    assert (there.connections, len(server.messages)) == (3, 5)


async def test_served_before_the_fault(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Those who were served in an earlier transaction stay served when a later one fails."""
    server = Scripted({"EHLO": "250-mx.example|250 LIMITS RCPTMAX=1 MAILMAX=1", "greeting": ["220 mx", "554 no"]})
    async with net(monkeypatch, server):
        assert texts(await relay().deliver(attempt(BEN, CARL))) == ["250 ok", "451 the greeting was 554 no"]


@pytest.mark.parametrize("phase", ["greeting", "MAIL", "RCPT", "DATA"])
async def test_cancelled(phase: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """An attempt that is cancelled before the end of the message has handed nothing over."""
    server = Scripted({phase: SILENCE})
    async with net(monkeypatch, server):
        with trio.move_on_after(10) as scope:
            await relay().deliver(attempt(BEN))
        assert scope.cancelled_caught
    assert server.messages == []


async def test_cancelled_behind_the_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """One that is cancelled behind it hears what became of the message, so that it is not repeated."""
    memory = Memory(may_commit=trio.Event())
    async with net(monkeypatch, ourselves(memory)) as there:
        with trio.CancelScope() as scope:
            there.nursery.start_soon(_cancel_in_commit, memory, scope)
            assert texts(await relay().deliver(attempt(BEN))) == ["250 2.0.0 queued as 1"]
        assert scope.cancel_called


async def _cancel_in_commit(memory: Memory, scope: trio.CancelScope) -> None:
    await memory.committing.wait()
    await trio.sleep(1)
    scope.cancel()
    await trio.sleep(1)
    assert memory.may_commit is not None
    memory.may_commit.set()


async def test_cancelled_and_silent(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """It does not wait for long; by LMTP who was told of is told of, and the others are tried again."""
    async with net(monkeypatch, Scripted({".": SILENCE})):
        with trio.move_on_after(10) as scope:
            await relay().deliver(attempt(BEN))
        assert (scope.cancelled_caught, trio.current_time() < 20) == (True, True)
    server = Scripted({"LHLO": OFFERS, ".": "250 ben"})
    async with net(monkeypatch, server):
        with trio.move_on_after(10):
            replies = await relay(Dialect.LMTP).deliver(attempt(BEN, CARL))
            assert [each.code for each in replies] == [250, 451]


async def test_cancelled_between(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Cancelled in a later transaction, an attempt still tells of those whom an earlier one served."""
    server = Scripted({"EHLO": "250-mx.example|250 LIMITS RCPTMAX=1", "MAIL": ["250 ok", SILENCE]})
    async with net(monkeypatch, server):
        with trio.move_on_after(10):
            replies = await relay().deliver(attempt(BEN, CARL))
            assert texts(replies) == ["250 ok", "451 4.3.2 the attempt was broken off"]


def test_times() -> None:
    """Each part of a session has the time that it must have at least (RFC 5321 section 4.5.3.2)."""
    times = RelayTimeouts()
    assert (times.command, times.data, times.block, times.end) == (300, 120, 180, 600)


async def test_in_all(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """An attempt as a whole has a limit, whatever its parts may take."""
    async with net(monkeypatch, Scripted({"MAIL": SILENCE})):
        (reply,) = await relay(timeouts=RelayTimeouts(total=100)).deliver(attempt(BEN))
        assert (str(reply), trio.current_time()) == ("451 4.4.2 no time was left for the reply to MAIL", 100)


class Broken(MemoryMessage):
    """A message that can be read for a while only."""

    @asynccontextmanager
    async def chunks(self) -> AsyncGenerator[AsyncIterator[bytes], None]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"Subject: x\r\n"
            msg = "the disk is gone"
            raise SpoolError(msg)

        yield pieces()


async def test_unreadable(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A message that can't be read to its end is never ended: the next hop has nothing, and a refusal stays one."""
    server = Scripted({"RCPT TO:<b": "550 no"})
    async with net(monkeypatch, server):
        replies = await relay().deliver(attempt(BEN, CARL, message=Broken(b"")))
        assert texts(replies) == ["550 no", "451 4.3.0 the disk is gone"]
        given = MailParameters(body=Body.EIGHT_BIT_MIME)
        replies = await relay().deliver(attempt(BEN, given=given, message=Broken(b"")))
        assert texts(replies) == ["451 4.3.0 the disk is gone"]
    assert server.messages == []


async def test_bare_line_end(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A message with a bare LF is not sent behind DATA, and not to its end: no next hop reads two out of it."""
    server = Scripted()
    async with net(monkeypatch, server):
        (reply,) = await relay().deliver(attempt(BEN, octets=b"a\r\n\n.\nMAIL FROM:<x@example.com>\r\n"))
    assert (str(reply), server.messages) == ("554 5.6.0 a line of the message does not end in CR LF", [])


@pytest.mark.parametrize(("octets", "code"), [(b"a\r\n", 250), ("ä\r\n".encode(), 554)])
async def test_declared_more(
    octets: bytes, code: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Where 8BITMIME is not offered, a message that was declared so goes if it is ASCII (RFC 6152 section 3)."""
    async with net(monkeypatch, Scripted()):
        given = MailParameters(body=Body.EIGHT_BIT_MIME)
        assert [each.code for each in await relay().deliver(attempt(BEN, octets=octets, given=given))] == [code]


async def test_nobody_there() -> None:
    """A next hop that does not accept connections is tried again later."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    (reply,) = await Relay("127.0.0.1", port).deliver(attempt(BEN))
    assert (reply.code, str(reply.status), f"127.0.0.1:{port}" in reply.text) == (451, "4.4.1", True)
    (reply,) = await Relay(Path("/nobody/here"), dialect=Dialect.LMTP).deliver(attempt(BEN))
    assert str(reply) == "451 4.4.1 /nobody/here: No such file or directory"


async def test_no_connection_in_time(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A connection that does not come about is given up in time."""

    async def never(_host: str, _port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    (reply,) = await relay().deliver(attempt(BEN))
    assert str(reply) == "451 4.4.1 mx.example:25: no connection in time"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give an authority that nobody trusts who is not told to."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """Give a server's context, for mx.example."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("mx.example").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Give the context of a client that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("is_implicit", [False, True])
@pytest.mark.parametrize(
    ("mode", "host", "is_trusted", "code"),
    [
        (TlsMode.OPPORTUNISTIC, "other.example", False, 250),
        (TlsMode.REQUIRED, "other.example", False, 250),
        (TlsMode.VERIFIED, "mx.example", True, 250),
        (TlsMode.VERIFIED, "mx.example.", True, 250),
        (TlsMode.VERIFIED, "mx.example", False, 451),
        (TlsMode.VERIFIED, "other.example", True, 451),
    ],
)
async def test_tls(
    mode: TlsMode,
    host: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    server_tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
    *,
    is_trusted: bool,
    is_implicit: bool,
) -> None:
    """TLS is used where it is to be had; verified only with who is trusted, under the name that was asked for.

    The dot at the end of an absolute name is no part of that (RFC 6066 section 3).
    """
    memory = Memory()
    context = trusting if is_trusted else None
    smtp = Relay(host, tls=mode, tls_context=context, is_implicit=is_implicit, hostname="us.example")
    async with net(monkeypatch, ourselves(memory, tls=server_tls, implicit_tls=is_implicit)), smtp.running():
        for _ in range(2):
            (reply,) = await smtp.deliver(attempt(BEN))
            assert (reply.code, str(reply.status)) == (code, "2.0.0" if code == 250 else "4.7.5")
    assert [client.session.is_secure for client, _, _ in memory.taken] == [True] * 2 * (code == 250)


async def test_injected(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Octets that came in clear behind the reply to STARTTLS are never read inside TLS (RFC 3207 section 4.2)."""
    server = Scripted({"EHLO": "250-mx.example|250 STARTTLS", "STARTTLS": "220 go|250-mx.example|250 DSN"})
    async with net(monkeypatch, server):
        (reply,) = await relay(tls=TlsMode.REQUIRED).deliver(attempt(BEN))
    assert str(reply) == "451 4.5.0 the next hop answers what was not asked"


async def test_too_early(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A reply that stands behind 354 before anything was sent is not taken for one to the message."""
    server = Scripted({"DATA": "354 go|250 queued"})
    async with net(monkeypatch, server):
        (reply,) = await relay().deliver(attempt(BEN))
    assert (str(reply), server.messages) == ("451 4.5.0 the next hop answers what was not asked", [])


@pytest.mark.parametrize("answer", [SILENCE, HANG_UP])
async def test_no_handshake(
    answer: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A handshake that does not come about is not waited for."""
    server = Scripted({"greeting": answer})
    async with net(monkeypatch, server):
        (reply,) = await Relay("mx.example", is_implicit=True, hostname="us.example").deliver(attempt(BEN))
    assert (reply.code, str(reply.status)) == (451, "4.7.5")


REQUIRED = MailParameters(require_tls=True)


async def test_requiretls(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    server_tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    """What requires TLS goes through verified TLS to who has the keyword (RFC 8689 section 4.2)."""
    memory = Memory()
    smtp = Relay("mx.example", tls_context=trusting, hostname="us.example")
    async with net(monkeypatch, ourselves(memory, tls=server_tls)) as there, smtp.running():
        await smtp.deliver(attempt(BEN))
        assert texts(await smtp.deliver(attempt(BEN, given=REQUIRED))) == ["250 2.0.0 queued as 2"]
    assert [envelope.parameters.require_tls for _, envelope, _ in memory.taken] == [False, True]
    assert there.connections == 2


async def test_requiretls_refused(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    server_tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    """Without verified TLS, or without the keyword, it goes nowhere and its sender is told (RFC 8689 section 4.2)."""
    async with net(monkeypatch, ourselves(Memory(), tls=server_tls)):
        (reply,) = await relay().deliver(attempt(BEN, given=REQUIRED))
        assert (reply.code, str(reply.status)) == (550, "5.7.30")
        (reply,) = await relay(tls=None).deliver(attempt(BEN, given=REQUIRED))
        assert (reply.code, str(reply.status)) == (550, "5.7.10")
    async with net(monkeypatch, Scripted()):
        (reply,) = await relay(tls=None).deliver(attempt(BEN, given=REQUIRED))
        assert (reply.code, str(reply.status)) == (550, "5.7.10")


async def test_auth(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    server_tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    """User and password are shown inside verified TLS; a wrong one is nobody's bounce."""

    async def knows(_client: Client, credentials: Password | External) -> Identity | Reply:
        is_right = isinstance(credentials, Password) and credentials.password == "secret"  # noqa: S105
        return Identity("anna") if is_right else Reply(535, "no")

    memory = Memory()
    async with net(monkeypatch, ourselves(memory, on_authenticate(knows), CONFIG, server_tls)):
        for password, code in (("secret", 250), ("wrong", 451)):
            smtp = Relay("mx.example", tls_context=trusting, credentials=Password("anna", password))
            assert [each.code for each in await smtp.deliver(attempt(BEN))] == [code]
    assert [client.session.identity for client, _, _ in memory.taken] == ["anna"]


@dataclass
class Keys:
    """A policy that has the keys of passwords, and takes no password."""

    asked: list[str] = field(default_factory=list)

    async def authenticate(self, _client: Client, _credentials: Password | External) -> Identity | Reply:
        return Reply(535, "no")

    async def scram_keys(self, _client: Client, user: str) -> ScramKeys:
        self.asked.append(user)
        return ScramKeys.derive("secret", salt=b"salt", iterations=4096)


@pytest.mark.parametrize(("password", "code"), [("secret", 250), ("wrong", 451)])
async def test_scram(
    password: str, code: int, monkeypatch: pytest.MonkeyPatch, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """Where SCRAM-SHA-256 is offered no password is sent, and a wrong one is nobody's bounce (RFC 7677)."""
    memory, keys = Memory(), Keys()
    async with net(monkeypatch, ourselves(memory, keys, CONFIG, server_tls)):
        smtp = Relay("mx.example", tls_context=trusting, credentials=Password("anna", password))
        assert [each.code for each in await smtp.deliver(attempt(BEN))] == [code]
    assert keys.asked == ["anna"]
    assert [client.session.identity for client, _, _ in memory.taken] == ["anna"] * len(memory.taken)


def test_settings() -> None:
    """What does not go together is found when the delivery is made."""
    user = Password("a", "b")
    with pytest.raises(ConfigError, match=r"the next hop mx\.example: a password"):
        Relay("mx.example", tls=TlsMode.OPPORTUNISTIC, credentials=user)
    with pytest.raises(ConfigError, match=r"the next hop mx\.example: TLS"):
        Relay("mx.example", tls=TlsMode.NONE, is_implicit=True)
    with pytest.raises(ConfigError, match=r"the next hop mx\.example: there must be a connection"):
        Relay("mx.example", connections=0)
    with pytest.raises(ConfigError, match="the next hop /x: a Unix socket has no TLS"):
        Relay(Path("/x"), tls=TlsMode.REQUIRED)


async def test_a_run_keeps_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A pass over the queue hands all its messages on over few connections, and ends each with QUIT."""
    server = Scripted()
    async with net(monkeypatch, server) as there, spooling(tmp_path) as spool:
        for number in range(20):
            await accept(spool, f"{number}@example.org")
        report = await run_once(spool, relay(connections=2), now=now)
    assert (report.delivered, len(server.messages), there.connections) == (20, 20, 2)
    assert server.said.count("QUIT") == 2


async def test_what_ends_a_run_comes_through(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """An exception and a cancellation go through `running` as they are, and the connections end with QUIT."""
    server = Scripted()
    async with net(monkeypatch, server):
        smtp = relay()
        with pytest.raises(SpoolError, match="gone"):
            async with smtp.running():
                await smtp.deliver(attempt(BEN))
                msg = "gone"
                raise SpoolError(msg)
        assert server.said.count("QUIT") == 1
        with trio.move_on_after(1) as scope:
            async with smtp.running():
                await smtp.deliver(attempt(BEN))
                await trio.sleep_forever()
        assert (scope.cancelled_caught, server.said.count("QUIT")) == (True, 2)


async def test_cancelled_while_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """An attempt that is cancelled when it takes a connection closes it, and the next one has another."""
    server = Scripted()
    async with net(monkeypatch, server) as there:
        smtp = relay()
        async with smtp.running():
            await smtp.deliver(attempt(BEN))
            with trio.CancelScope() as scope:
                there.nursery.start_soon(_cancel, scope)
                await smtp.deliver(attempt(BEN))
            assert texts(await smtp.deliver(attempt(BEN))) == ["250 ok"]
    assert (scope.cancelled_caught, there.connections) == (True, 2)


async def _cancel(scope: trio.CancelScope) -> None:
    scope.cancel()
