"""XCLIENT and XFORWARD in a session: for whom a trusted client speaks, and who hears of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from tests.server.harness import Memory, dialogue
from tests.server.test_tls import Trace

from smtprecv.message import Client, SessionId
from smtprecv.protocol import EnhancedStatus, Envelope, Hello, Mail, Rcpt, Reply
from smtprecv.server import DirectIntake, Limits, Networks, Rate

PROXY = Client(SessionId("s1"), ip_address("192.0.2.1"), 40000, host="proxy.example", ident="proxy")
TRUSTED = Networks.of("192.0.2.1")
NO = Reply(554, "not you", EnhancedStatus(5, 7, 1))


@dataclass
class Watch:
    """A policy that remembers the client at each hook, and has no welcome for one name."""

    seen: dict[str, list[Client]] = field(default_factory=dict)

    def _see(self, hook: str, client: Client) -> Reply:
        self.seen.setdefault(hook, []).append(client)
        return NO if client.host == "evil.example" else Reply(250, "ok")

    async def connect(self, client: Client) -> Reply:
        return self._see("connect", client)

    async def hello(self, client: Client, hello: Hello) -> Reply:
        return self._see("hello", client)

    async def mail(self, client: Client, mail: Mail) -> Reply:
        return self._see("mail", client)

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        return self._see("rcpt", client)


async def test_the_client_becomes_another(caplog: pytest.LogCaptureFixture) -> None:
    """As if it had just connected: policies are asked anew, log and trace know it by its own name and address."""
    caplog.set_level(logging.INFO)
    watch, trace = Watch(), Trace()
    async with dialogue(DirectIntake(trace), watch, client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.say("EHLO proxy.example")
        assert "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT" in await peer.lines()
        reply = await peer.ask("XCLIENT ADDR=IPV6:2001:db8::7 NAME=real.example PORT=5555 LOGIN=anna")
        assert reply.startswith("220 ")
        assert (await peer.ask("MAIL FROM:<a@real.example>")).startswith("503 ")
        await peer.open_transaction()
        await peer.ask("DATA")
        assert (await peer.ask("hello", ".")).startswith("250 ")
        await peer.ask("EXPN staff")

    assert watch.seen["connect"][0] == PROXY
    real = watch.seen["connect"][1]
    assert (real.address, real.port, real.host, real.ident) == (
        ip_address("2001:db8::7"),
        5555,
        "real.example",
        None,
    )
    assert [(each.address, each.session.identity) for each in watch.seen["mail"]] == [(real.address, "anna")]
    [fields] = trace.fields
    assert "from client.example (real.example [IPv6:2001:db8::7]) by mx.example with ESMTPA" in fields
    told = [record.getMessage() for record in caplog.records]
    assert "s1: 192.0.2.1 is now 2001:db8::7" in told
    assert told[-1].startswith("s1: 2001:db8::7: refused EXPN")


async def test_who_is_not_trusted_is_told_nothing() -> None:
    """Neither command is offered nor known to anybody else."""
    watch = Watch()
    other = Networks.of("192.0.2.2")
    async with dialogue(Memory(), watch, client=PROXY, xclient_from=other) as (peer, _):
        await peer.say("EHLO proxy.example")
        assert not any("XCLIENT" in line or "XFORWARD" in line for line in await peer.lines())
        assert (await peer.ask("XCLIENT ADDR=198.51.100.7"))[0] == "5"
        assert (await peer.ask("XFORWARD ADDR=198.51.100.7"))[0] == "5"
        await peer.ask("MAIL FROM:<a@client.example>")

    assert watch.seen["mail"][0].address == PROXY.address


async def test_a_client_without_a_welcome_is_refused_for_what_it_is() -> None:
    """The policy decides over the real client, and then there is nobody: who spoke for it may not go on as itself."""
    watch = Watch()
    async with dialogue(Memory(), watch, client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.ask("EHLO proxy.example")
        assert await peer.ask("XCLIENT NAME=evil.example ADDR=198.51.100.7") == str(NO)
        assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("503 ")
        assert (await peer.ask("EHLO proxy.example")).startswith("503 ")

    assert "mail" not in watch.seen


async def test_rates_hold_the_real_client() -> None:
    """A proxy may speak for many, and each has what it may itself."""
    limits = Limits(transaction_rate=Rate(1, 3600))
    async with dialogue(Memory(), None, limits, client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.ask("EHLO proxy.example")
        await peer.ask("XCLIENT ADDR=198.51.100.7")
        await peer.ask("EHLO client.example")
        assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("250 ")
        await peer.ask("RSET")
        assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("451 4.7.1")


async def test_xforward_is_for_the_record_of_one_message() -> None:
    """The entry names the forwarded client, the policy decides over the real one, and the next message is its own."""
    watch, intake = Watch(), Memory()
    async with dialogue(intake, watch, client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.ask("EHLO proxy.example")
        assert (await peer.ask("XFORWARD NAME=real.example ADDR=198.51.100.7")).startswith("250 ")
        assert (await peer.ask("XFORWARD HELO=real.example PROTO=ESMTP NAME=other.example")).startswith("250 ")
        for _ in range(2):
            await peer.ask("MAIL FROM:<a@client.example>")
            await peer.ask("RCPT TO:<b@mx.example>")
            await peer.ask("DATA")
            await peer.ask("hello", ".")

    [(first, _, _), (second, _, _)] = intake.taken
    assert (str(first.address), first.host, first.session.hello) == ("198.51.100.7", "other.example", "real.example")
    assert (second.address, second.host, second.session.hello) == (PROXY.address, PROXY.host, "proxy.example")
    assert {client.address for hook in watch.seen.values() for client in hook} == {PROXY.address}


@pytest.mark.parametrize("ending", ["RSET", "EHLO proxy.example", "refused", "defect", "trouble", "chunk"])
async def test_xforward_ends_with_its_transaction(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    """However the message ended, the next one is not from where it came."""
    caplog.set_level(logging.CRITICAL)
    intake = Memory()

    class No:
        async def message(self, client: Client, envelope: Envelope, message: object) -> Reply:
            return NO if ending == "refused" and not intake.aborted else Reply(250, "ok")

    intake.on_commit = RuntimeError() if ending == "trouble" else None
    async with dialogue(intake, No(), client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.ask("EHLO proxy.example")
        await peer.ask("XFORWARD ADDR=198.51.100.7")
        await peer.ask("MAIL FROM:<a@client.example>")
        await peer.ask("RCPT TO:<b@mx.example>")
        match ending:
            case "chunk":
                assert (await peer.ask("BDAT 9", "bare\nLF")).startswith("554 ")
            case "refused" | "defect" | "trouble":
                await peer.ask("DATA")
                assert (await peer.ask("bare\nLF" if ending == "defect" else "hello", "."))[0] in "45"
            case _:
                await peer.ask(ending)
        intake.on_commit = None
        await peer.open_transaction()
        await peer.ask("DATA")
        assert (await peer.ask("hello", ".")).startswith("250 ")

    [(client, _, _)] = intake.taken
    assert client.address == PROXY.address


async def test_xforward_outlives_a_refused_sender() -> None:
    """It is said before MAIL: one that is not accepted has begun no transaction."""
    intake = Memory()
    async with dialogue(intake, client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.ask("EHLO proxy.example")
        await peer.ask("XFORWARD ADDR=198.51.100.7")
        assert (await peer.ask("MAIL FROM:<a..b@client.example>"))[0] == "5"
        await peer.ask("MAIL FROM:<a@client.example>")
        await peer.ask("RCPT TO:<b@mx.example>")
        await peer.ask("DATA")
        await peer.ask("hello", ".")

    [(client, _, _)] = intake.taken
    assert str(client.address) == "198.51.100.7"


async def test_xclient_takes_back_what_xforward_said() -> None:
    """What was forwarded before was about another client."""
    intake = Memory()
    async with dialogue(intake, client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.ask("EHLO proxy.example")
        await peer.ask("XFORWARD NAME=other.example")
        await peer.ask("XCLIENT ADDR=198.51.100.7 NAME=real.example")
        await peer.open_transaction()
        await peer.ask("DATA")
        await peer.ask("hello", ".")

    [(client, _, _)] = intake.taken
    assert client.host == "real.example"


@pytest.mark.parametrize("command", ["XCLIENT", "XFORWARD"])
@pytest.mark.parametrize(
    "attribute",
    [
        "NAME=a+0D+0ABcc:+20x",
        "NAME=evil+29+20by+20x",
        "NAME=<evil>",
        "HELO=a+0D+0AReceived:+20x",
        "HELO=a+20b",
        "ADDR=198.51.100.7+0A",
        "ADDR=fe80::1%25evil",
        "ADDR=IPV6:198.51.100.7",
        "PORT=70000",
        "PORT=+31+0D",
        "PROTO=ESMTP+0D+0A",
        "LOGIN=a+0D+0AX:+20y",
        "LOGIN=a+1B[2J",
        "LOGIN=a+E2+80+AEb",
        "IDENT=a+0Ab",
        "SOURCE=x+0D+0A",
        "NONSENSE=1",
        "NAME",
    ],
)
async def test_nothing_is_injected(command: str, attribute: str, caplog: pytest.LogCaptureFixture) -> None:
    """A value that could end a line or leave its clause is refused, is in no log as it stands, and changes nothing.

    Where it can be read and not believed, there is nobody behind XCLIENT who could go on.
    """
    caplog.set_level(logging.DEBUG)
    trace = Trace()
    async with dialogue(DirectIntake(trace), client=PROXY, xclient_from=TRUSTED) as (peer, _):
        await peer.ask("EHLO proxy.example")
        reply = await peer.ask(f"{command} {attribute}")
        assert reply[0] == "5"
        if (await peer.ask("EHLO client.example")).startswith("250"):
            await peer.open_transaction()
            await peer.ask("DATA")
            assert (await peer.ask("hello", ".")).startswith("250 ")
        else:
            assert command == "XCLIENT"

    assert all("from client.example (proxy.example [192.0.2.1])" in fields for fields in trace.fields)
    assert trace.fields or command == "XCLIENT"
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert reply.isprintable()
