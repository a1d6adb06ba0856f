"""One connection over a memory stream: what is said, when it ends, and what must never happen."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import replace

import pytest
import trio
import trio.testing
from tests.server.harness import CLIENT, CONFIG, Memory, Peer, dialogue, talk

from smtprecv.errors import ConfigError, SpoolError, SpoolFull
from smtprecv.message import Client
from smtprecv.protocol import Config, EnhancedStatus, Envelope, Hello, Mail, Rcpt, Reply
from smtprecv.server import Limits
from smtprecv.server._hooks import Hooks

MESSAGE = ("Subject: hello", "", "one", "..two", ".")


async def test_a_message_goes_from_the_wire_to_the_intake() -> None:
    """What the client sent arrives, with its envelope and what is known of the client.

    RFC 5321 sections 4.1.1.2, 4.1.1.3, 4.1.1.4 and 4.1.1.10.
    """
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        assert (await peer.ask("DATA")).startswith("354 ")

        assert await peer.ask(*MESSAGE) == "250 2.0.0 queued as 1"

        assert (await peer.ask("QUIT")).startswith("221 ")
        assert await peer.hear() == ""
    [(client, envelope, octets)] = intake.taken
    assert octets == b"Subject: hello\r\n\r\none\r\n.two\r\n"
    assert str(envelope.reverse_path) == "a@client.example"
    assert [str(recipient) for recipient in envelope.recipients] == ["b@mx.example"]
    assert client.session.hello == "client.example"
    assert client.session.is_extended


async def test_a_pipelined_group_is_answered_in_one_send() -> None:
    """RFC 2920 section 3.2: replies of a group may be sent together, and here they are."""
    sends: list[bytes] = []
    ours, theirs = trio.testing.memory_stream_pair()
    send_all = ours.send_stream.send_all

    async def count(data: bytes | bytearray | memoryview) -> None:
        sends.append(bytes(data))
        await send_all(data)

    ours.send_stream.send_all = count  # type: ignore[method-assign]  # counted, otherwise unchanged
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, CLIENT, CONFIG, Hooks(None), Memory(), Limits()).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.ask("EHLO client.example")
        sends.clear()
        await peer.say("MAIL FROM:<a@b.example>", *["RCPT TO:<c@mx.example>"] * 50, "DATA")
        replies = [await peer.reply() for _ in range(52)]
        await theirs.aclose()

    assert len(sends) == 1
    assert [reply[:3] for reply in replies] == ["250"] * 51 + ["354"]


async def test_replies_that_grow_go_out_before_the_group_ends() -> None:
    """Replies in memory are bounded, however many commands one read holds."""
    commands = ["EHLO client.example", "MAIL FROM:<a@b.example>", *["RCPT TO:<c@mx.example>"] * 1000]
    async with dialogue(Memory()) as (peer, held), trio.open_nursery() as nursery:
        nursery.start_soon(peer.say, *commands)
        for _ in commands:
            assert (await peer.reply()).startswith("250")
            assert len(held._unsent) < 4096


async def test_commands_that_further_no_mail_are_errors_in_the_end() -> None:
    """A hundred RSETs or NOOPs are free, each one more is an error, and an accepted message clears the count."""
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        for _ in range(2):
            assert {await peer.ask(command) for command in ["NOOP", "RSET"] * 49} == {"250 2.0.0 ok"}
            await peer.open_transaction()
            await peer.ask("DATA")
            assert (await peer.ask("hello", ".")).startswith("250")
        replies = [await peer.ask("NOOP") for _ in range(120)]

        assert set(replies) == {"250 2.0.0 ok"}
        assert await peer.reply() == "421 4.7.0 too many errors"
        assert await peer.hear() == ""


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("NOOP", "250 2.0.0 ok"),
        ("RSET", "250 2.0.0 ok"),
        ("HELP", "214 2.0.0 see RFC 5321"),
        ("VRFY postmaster", "252 2.1.5 not verified, but send some mail"),
        ("EXPN staff", "502 5.5.1 lists are not expanded"),
    ],
)
async def test_the_fixed_answers(command: str, reply: str) -> None:
    """VRFY and EXPN give nothing away (RFC 5321 sections 3.5.3 and 7.3), and the rest is always the same."""
    async with dialogue(Memory()) as (peer, _):
        assert await peer.ask(command) == reply


async def test_help_says_what_it_is_told_to() -> None:
    """The text of HELP is configuration, and may have several lines."""
    ours, theirs = trio.testing.memory_stream_pair()
    config = Config("mx.example", help_text="tickets go to\nhelp@example.com")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, CLIENT, config, Hooks(None), Memory(), Limits()).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.say("HELP")

        assert [await peer.hear() for _ in range(2)] == ["214-2.0.0 tickets go to", "214 2.0.0 help@example.com"]
        await theirs.aclose()


async def test_twenty_errors_end_the_session(autojump_clock: trio.testing.MockClock) -> None:
    """The twentieth 5yz is followed by 421 and the end, though more commands are waiting."""
    async with dialogue(Memory()) as (peer, _):
        await peer.say(*["NONSENSE"] * 30)
        replies = [await peer.reply() for _ in range(22)]

    assert [reply[:3] for reply in replies] == ["500"] * 20 + ["421", ""]


async def test_the_log_names_what_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Each 5yz is one line, in ASCII and bounded, whatever the client wrote."""
    caplog.set_level(logging.INFO)
    async with dialogue(Memory(), Refuser("connect", "hello", "data")) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<anna@client.example>")
        await peer.ask("f\u00fc\x1b[2J" + "x" * 400)
        await peer.ask("EXPN staff")

    refused = [record.getMessage().partition("refused ")[2] for record in caplog.records]
    assert refused[0] == "MAIL <anna@client.example>: 550 5.7.1 no mail"
    assert refused[1] == f"'f\\xc3\\xbc\\x1b[2J{'x' * 93}': 500 5.5.2 A command line is printable text, ended by CR LF"
    assert refused[2] == "EXPN: 502 5.5.1 lists are not expanded"


async def test_our_own_faults_are_not_the_clients_errors() -> None:
    """4yz replies, such as those of a full disk, never use up the error limit."""
    async with dialogue(Memory(on_begin=SpoolFull("full"))) as (peer, _):
        await peer.open_transaction()

        replies = {(await peer.ask("DATA"))[:9] for _ in range(40)}

    assert replies == {"452 4.3.1"}


async def test_a_silent_client_is_told_421_after_the_idle_limit(autojump_clock: trio.testing.MockClock) -> None:
    """RFC 5321 section 4.5.3.2.7: the server waits at least 5 minutes, and then says why it ends."""
    async with dialogue(Memory()) as (peer, _):
        began = trio.current_time()
        reply = await peer.reply()

        assert 300 <= trio.current_time() - began <= 303
        assert reply == "421 4.4.2 timeout, closing connection"
        assert await peer.hear() == ""


async def test_slow_commands_do_not_hold_a_session_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """The whole session has a deadline, which no command moves."""
    async with dialogue(Memory(), limits=Limits(session_timeout=1000)) as (peer, _):
        began = trio.current_time()
        reply = ""
        while not reply.startswith("421"):
            await trio.sleep(250)
            reply = await peer.ask("NOOP") if trio.current_time() - began < 1000 else await peer.reply()

        assert 1000 <= trio.current_time() - began <= 1003


async def test_mail_data_in_drops_does_not_hold_a_session_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """An octet now and then moves the idle limit, but not the end of the session."""
    intake = Memory()
    async with dialogue(intake, limits=Limits(session_timeout=1000)) as (peer, _):
        await peer.open_transaction()
        await peer.ask("DATA")
        with suppress(trio.BrokenResourceError):
            for _ in range(100):
                await trio.sleep(200)
                await peer.stream.send_all(b"x")

        assert trio.current_time() < 1500

    assert intake.taken == []
    assert intake.aborted == 1


async def test_a_client_that_never_reads_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """Replies that nobody takes hold a connection no longer than silence does."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    began = trio.current_time()
    await talk(ours, CLIENT, CONFIG, Hooks(None), Memory(), Limits()).run()

    assert trio.current_time() - began <= 310
    await theirs.aclose()


async def test_a_client_that_resets_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Design, promise 3: a client's reset is one log line, never a traceback."""
    caplog.set_level(logging.INFO)
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()

    await talk(ours, CLIENT, CONFIG, Hooks(None), Memory(), Limits()).run()

    [record] = caplog.records
    assert record.exc_info is None
    assert record.getMessage().startswith("s1: connection lost: ")


async def test_a_client_that_goes_in_the_middle_of_its_message_leaves_nothing() -> None:
    """Without the end of data nothing is accepted, and the intake is told to forget it."""
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.stream.send_all(b"half a mess")

    assert intake.taken == []
    assert intake.aborted == 1


class OneWay(trio.abc.Stream):
    """A stream that cannot close one direction alone, as TLS cannot."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_a_stream_that_closes_only_whole_is_closed_after_the_farewell() -> None:
    """A drain over such a stream says its 421 all the same."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        held = talk(OneWay(ours), CLIENT, CONFIG, Hooks(None), Memory(), Limits())
        nursery.start_soon(held.run)
        peer = Peer(theirs)
        await peer.reply()
        await trio.testing.wait_all_tasks_blocked()
        held.drain()

        assert (await peer.reply()).startswith("421 ")
        assert await peer.hear() == ""


async def test_more_is_read_at_once_from_who_sends_much() -> None:
    """Who sends commands is not given the room for it."""
    sizes: list[int | None] = []

    class Watched(OneWay):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            sizes.append(max_bytes)
            return await super().receive_some(max_bytes)

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        config = replace(CONFIG, max_message_size=1_000_000)
        nursery.start_soon(talk(Watched(ours), CLIENT, config, Hooks(None), Memory(), Limits()).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.open_transaction()
        await peer.ask("DATA")
        small = sizes[-1]
        assert set(sizes) == {small}
        await theirs.send_all(b"x\r\n" * 60_000)
        await trio.testing.wait_all_tasks_blocked()
        assert max(size or 0 for size in sizes) == 4 * (small or 0)
        assert (await peer.ask(".")).startswith("250 ")
        await peer.ask("NOOP")
        assert sizes[-1] == small
        await peer.ask("QUIT")


# What goes wrong on our side is 4yz.


@pytest.mark.parametrize(
    ("error", "code"), [(SpoolError("the disk's words"), "451 4.3.0"), (SpoolFull("the disk's words"), "452 4.3.1")]
)
@pytest.mark.parametrize("step", ["on_begin", "on_write", "on_commit"])
async def test_a_spool_in_trouble_is_4yz_and_the_session_goes_on(
    step: str, error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Design, promise 3: a full disk or a locked database is never a permanent refusal, at whatever step it shows."""
    intake = Memory()
    setattr(intake, step, error)
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        reply = await peer.ask("DATA")
        if step != "on_begin":
            reply = await peer.ask(*MESSAGE)
        setattr(intake, step, None)
        await peer.ask("RSET")
        await peer.open_transaction()
        await peer.ask("DATA")

        assert (await peer.ask(*MESSAGE)).startswith("250 ")

    reference = reply.rpartition("reference ")[2].rstrip(")")
    assert reply.startswith(code)
    assert "words" not in reply
    assert any(reference in record.message and "words" in record.message for record in caplog.records)
    assert len(intake.taken) == 1
    assert intake.aborted == (0 if step == "on_begin" else 1)


async def test_the_rest_of_a_message_that_could_not_be_taken_is_still_read_as_mail() -> None:
    """After a failed write the same strict reader goes on: no line of the message runs as a command."""
    intake = Memory(on_write=SpoolFull("full"))
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.stream.send_all(b"x" * 1000 + b"\r\nMAIL FROM:<evil@b.example>\r\n")
        await trio.testing.wait_all_tasks_blocked()

        assert (await peer.ask("more", ".")).startswith("452 4.3.1")

    assert intake.aborted == 1


async def test_a_commit_that_hangs_is_451_in_time(autojump_clock: trio.testing.MockClock) -> None:
    """A client waits 10 minutes for the reply to its data (RFC 5321 section 4.5.3.2.6): it gets one before."""
    intake = Memory(may_commit=trio.Event())
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await peer.ask("DATA")
        began = trio.current_time()

        assert (await peer.ask(*MESSAGE)).startswith("451 4.3.0")

        assert trio.current_time() - began < 600
    assert intake.aborted == 1


async def test_a_defect_is_refused_with_its_own_reply_and_nothing_is_kept() -> None:
    """A bare LF in the data: refused at its true end, and the intake forgets it."""
    intake = Memory()
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.stream.send_all(b"a\nb\r\n.\r\n")

        assert (await peer.reply()).startswith("554 ")

    assert intake.taken == []
    assert intake.aborted == 1


@pytest.mark.parametrize("step", ["on_begin", "on_write", "on_commit"])
async def test_a_bug_in_an_intake_is_451_and_the_session_goes_on(step: str, caplog: pytest.LogCaptureFixture) -> None:
    """Design, promise 3: an exception is 4yz with a reference id; its text stands in the log alone."""
    intake = Memory()
    setattr(intake, step, RuntimeError("secret"))
    async with dialogue(intake) as (peer, _):
        await peer.open_transaction()
        reply = await peer.ask("DATA")
        if step != "on_begin":
            reply = await peer.ask(*MESSAGE)

        assert (await peer.ask("NOOP")).startswith("250")

    reference = reply.rpartition("reference ")[2].rstrip(")")
    assert reply.startswith("451 4.3.0 local error")
    assert any(reference in record.message and record.exc_info for record in caplog.records)
    assert intake.aborted == (0 if step == "on_begin" else 1)


@pytest.mark.parametrize("replies", [[], [Reply(250, "a"), Reply(250, "b")], [Reply(354, "go")], [Reply(221, "bye")]])
async def test_an_intake_that_answers_amiss_is_451(replies: list[Reply]) -> None:
    """One final reply is due to the end of a message: anything else is a fault of ours, and the client hears of one."""
    async with dialogue(Memory(replies=replies)) as (peer, _):
        await peer.open_transaction()
        await peer.ask("DATA")

        assert (await peer.ask(*MESSAGE)).startswith("451 4.3.0 local error")
        assert (await peer.ask("NOOP")).startswith("250")


async def test_a_bug_in_a_dialogue_ends_it_with_421(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw is logged with its traceback, and the client may try again."""

    class Broken(OneWay):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            await super().receive_some(max_bytes)
            msg = "secret"
            raise RuntimeError(msg)

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(Broken(ours), CLIENT, CONFIG, Hooks(None), Memory(), Limits()).run)
        peer = Peer(theirs)
        await peer.reply()

        assert await peer.ask("NOOP") == "421 4.3.0 local error, closing connection"
        assert await peer.hear() == ""

    [record] = [record for record in caplog.records if record.exc_info]
    assert "dialogue failed" in record.message


async def test_a_client_that_does_not_take_its_250_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """When nobody knows how much of a reply went out, nothing more is said: a missing reply would shift all others."""

    class Stalling(OneWay):
        sent = b""

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if b"queued as" in bytes(data):
                await trio.sleep_forever()
            self.sent += bytes(data)
            await super().send_all(data)

    ours, theirs = trio.testing.memory_stream_pair()
    stream = Stalling(ours)
    intake = Memory()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(stream, CLIENT, CONFIG, Hooks(None), intake, Limits()).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.say(*MESSAGE, "NOOP", "QUIT")
        assert await peer.hear() == ""

    assert len(intake.taken) == 1
    assert stream.sent.endswith(b"354 end data with <CR><LF>.<CR><LF>\r\n")


# Policies.


class Refuser:
    """A policy that refuses at every hook but those in `passes`, or raises there."""

    def __init__(self, *passes: str, fault: Exception | None = None) -> None:
        self.passes = passes
        self.fault = fault

    def _answer(self, hook: str) -> Reply:
        if self.fault is not None and hook not in self.passes:
            raise self.fault
        return Reply(250, "ok") if hook in self.passes else Reply(550, f"no {hook}", EnhancedStatus(5, 7, 1))

    async def connect(self, client: Client) -> Reply:
        return self._answer("connect")

    async def hello(self, client: Client, hello: Hello) -> Reply:
        return self._answer("hello")

    async def mail(self, client: Client, mail: Mail) -> Reply:
        return self._answer("mail")

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        return self._answer("rcpt")

    async def data(self, client: Client, envelope: Envelope) -> Reply:
        return self._answer("data")


HOOKS = ["connect", "hello", "mail", "rcpt", "data"]
LINES = ["", "EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<b@mx.example>", "DATA"]


@pytest.mark.parametrize("count", range(5))
async def test_each_hook_refuses_its_own_command(count: int) -> None:
    """A hook's 5yz is the reply to its command, and the commands before it went through."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        refuser = Refuser(*HOOKS[:count])
        nursery.start_soon(talk(ours, CLIENT, CONFIG, Hooks(refuser), Memory(), Limits()).run)
        peer = Peer(theirs)
        replies = [await peer.reply(), *[await peer.ask(line) for line in LINES[1 : count + 1]]]
        await theirs.aclose()

    assert all(reply[0] == "2" for reply in replies[:-1])
    assert replies[-1] == f"550 5.7.1 no {HOOKS[count]}"


@pytest.mark.parametrize("count", range(5))
async def test_each_hook_that_raises_is_451_and_the_session_goes_on(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever it is: the log line has the session's id and the reference, and the client may say the same again."""
    refuser = Refuser(*HOOKS[:count], fault=ValueError("secret"))
    async with dialogue(Memory(), refuser) as (peer, _):
        reply = [peer.greeting, *[await peer.ask(line) for line in LINES[1 : count + 1]]][-1]
        refuser.passes = tuple(HOOKS)
        again = await peer.ask(LINES[count] or "QUIT")  # whoever was not greeted may only leave

    told = re.fullmatch(r"451 4\.3\.0 local error, try again later \(reference ([0-9a-f]{8})\)", reply)
    assert told is not None
    assert [record.getMessage() for record in caplog.records] == [f"s1: local error, reference {told[1]}"]
    assert again[0] in "23"


class OnlyRcpt:
    """A policy of one hook, which raises what it is told to."""

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome  # type: ignore[return-value]  # the point is to return what is wrong


@pytest.mark.parametrize("outcome", [ValueError("secret"), None, "250 ok", Reply(354, "go"), Reply(221, "bye")])
async def test_a_hook_that_fails_is_451_with_a_reference_and_the_session_goes_on(
    outcome: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Design, promise 3: no exception text on the wire, a reference id in reply and log, no permanent refusal."""
    policy = OnlyRcpt(outcome)
    async with dialogue(Memory(), policy) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@b.example>")
        reply = await peer.ask("RCPT TO:<b@mx.example>")
        policy.outcome = Reply(250, "ok")

        assert (await peer.ask("RCPT TO:<b@mx.example>")).startswith("250")

    assert reply.startswith("451 4.3.0 local error")
    assert "secret" not in reply
    reference = reply.rpartition("reference ")[2].rstrip(")")
    assert any(reference in record.message for record in caplog.records)


async def test_a_hook_that_hangs_ends_with_the_idle_limit(autojump_clock: trio.testing.MockClock) -> None:
    """A policy that never answers holds the connection no longer than a silent client would."""

    class Hanging:
        async def mail(self, client: Client, mail: Mail) -> Reply:
            await trio.sleep_forever()
            raise AssertionError

    async with dialogue(Memory(), Hanging()) as (peer, _):
        await peer.ask("EHLO client.example")
        await trio.sleep(299)
        began = trio.current_time()

        assert (await peer.ask("MAIL FROM:<a@b.example>")).startswith("421 4.4.2")

        assert 300 <= trio.current_time() - began <= 303


async def test_a_slow_policy_is_not_the_clients_idleness(autojump_clock: trio.testing.MockClock) -> None:
    """However long a pipelined group takes, the client is not blamed, and hears of it as it goes."""

    class Slow:
        async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
            await trio.sleep(4)
            return Reply(250, "ok")

    async with dialogue(Memory(), Slow()) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.say("MAIL FROM:<a@b.example>", *["RCPT TO:<b@mx.example>"] * 100)
        began = trio.current_time()
        first = await peer.reply()
        waited = trio.current_time() - began
        replies = [first, *[await peer.reply() for _ in range(100)]]

    assert waited < 15
    assert {reply[:3] for reply in replies} == {"250"}


async def test_a_hook_that_fails_while_it_is_cancelled_harms_nobody(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A policy's own nursery may raise a group at a cancellation: the client hears 421, and the error only the log."""

    class Grouping:
        async def mail(self, client: Client, mail: Mail) -> Reply:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail_at_the_end)
                await trio.sleep_forever()
            raise AssertionError

        async def fail_at_the_end(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                msg = "in the cleanup"
                raise ValueError(msg)

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, CLIENT, CONFIG, Hooks(Grouping()), Memory(), Limits()).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.ask("EHLO client.example")
        await peer.say("MAIL FROM:<a@b.example>")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await peer.reply() == "421 4.3.2 service shutting down"
            await theirs.aclose()

    assert any("local error" in record.message and record.exc_info for record in caplog.records)


def test_a_policy_without_a_hook_is_refused() -> None:
    """A hook whose name is misspelled must not open a relay in silence."""

    class Misspelled:
        async def rctp(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
            return Reply(550, "no")

    with pytest.raises(ConfigError, match="no hook"):
        Hooks(Misspelled())  # type: ignore[arg-type]  # the type checkers refuse it too


async def test_a_421_from_a_hook_hangs_up() -> None:
    """Design, promise 6: 421 always hangs up."""
    async with dialogue(Memory(), OnlyRcpt(Reply(421, "go away"))) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@b.example>")

        assert await peer.ask("RCPT TO:<b@mx.example>") == "421 4.0.0 go away"
        assert await peer.hear() == ""


# The end.


async def test_an_idle_client_hears_of_a_drain_at_once() -> None:
    """Design, promise 6: idle sessions get 421 at once."""
    async with dialogue(Memory()) as (peer, held):
        await peer.ask("EHLO client.example")
        await trio.testing.wait_all_tasks_blocked()

        held.drain()

        assert await peer.reply() == "421 4.3.2 service shutting down"
        assert await peer.hear() == ""


async def test_an_open_transaction_outlives_a_drain() -> None:
    """Design, promise 6: an open transaction may finish, and then the session ends."""
    intake = Memory()
    async with dialogue(intake) as (peer, held):
        await peer.open_transaction()
        await trio.testing.wait_all_tasks_blocked()
        held.drain()

        assert (await peer.ask("DATA")).startswith("354")
        assert (await peer.ask(*MESSAGE)).startswith("250")
        assert await peer.reply() == "421 4.3.2 service shutting down"

    assert len(intake.taken) == 1


async def test_no_transaction_begins_in_a_drain() -> None:
    """Design, promise 6: what is open may finish; what is pipelined behind it is not begun."""
    intake = Memory(may_commit=trio.Event())
    transaction = ("MAIL FROM:<a@b.example>", "RCPT TO:<b@mx.example>", "DATA", "hello", ".")
    async with dialogue(intake) as (peer, held):
        await peer.ask("EHLO client.example")
        await peer.say(*transaction, *transaction)
        await intake.committing.wait()
        held.drain()
        assert intake.may_commit is not None
        intake.may_commit.set()

        replies = [(await peer.reply())[:3] for _ in range(6)]

    assert replies == ["250", "250", "354", "250", "421", ""]
    assert len(intake.taken) == 1


async def test_cancellation_waits_for_the_commit_under_way_and_tells_of_it() -> None:
    """Design, promise 6: plain cancellation finishes the commit, and the client hears its 250 and a 421."""
    intake = Memory(may_commit=trio.Event())
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, CLIENT, CONFIG, Hooks(None), intake, Limits()).run)
        peer = Peer(theirs)
        await peer.reply()
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.say(*MESSAGE)
        await intake.committing.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert intake.may_commit is not None
            intake.may_commit.set()
            assert (await peer.reply()).startswith("250 ")
            assert (await peer.reply()).startswith("421 ")
            await theirs.aclose()

    assert len(intake.taken) == 1


async def test_cancellation_spends_a_second_at_most_on_a_farewell(autojump_clock: trio.testing.MockClock) -> None:
    """Design, promise 6: a client that doesn't listen holds up a cancellation for one second."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk(ours, CLIENT, CONFIG, Hooks(None), Memory(), Limits()).run)
        await Peer(theirs).reply()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert trio.current_time() - began == pytest.approx(1)
