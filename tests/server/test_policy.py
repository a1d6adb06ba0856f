"""Policies at work in a dialogue: redirected recipients, whole messages judged, several policies as one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from tests.server.harness import CLIENT, Memory, Peer, dialogue

from smtprecv import (
    All,
    Client,
    ConfigError,
    EnhancedStatus,
    Envelope,
    Hello,
    Mail,
    Message,
    Policy,
    Rcpt,
    Redirect,
    Reply,
    on_connect,
    on_data,
    on_hello,
    on_mail,
    on_message,
    on_rcpt,
)
from smtprecv.errors import SpoolError
from smtprecv.protocol import Domain, ForwardPath, Mailbox, parse_forward_path
from smtprecv.server._hooks import Hooks

OK = Reply(250, "ok")
NO = Reply(554, "no thanks", EnhancedStatus(5, 7, 1))
REDIRECTED = {"staff": Redirect.to("anna@mx.example", "ben@elsewhere.example"), "old": Redirect.to("new@mx.example")}


@on_rcpt
async def aliases(client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply | Redirect:
    """Send some recipients elsewhere."""
    return REDIRECTED.get(rcpt.forward_path.mailbox.local_part, OK)


def on_octets(judge: Callable[[bytes], Reply]) -> Policy:
    """Give the policy that judges a message by its octets."""

    @on_message
    async def judged(client: Client, envelope: Envelope, message: Message) -> Reply:
        return judge(await message.bytes())

    return judged


def by_word(octets: bytes) -> Reply:
    """Refuse a message that has the word ERROR."""
    return NO if b"ERROR" in octets else OK


async def send(peer: Peer, *lines: str, to: tuple[str, ...] = ("b",)) -> str:
    """Send a message behind EHLO, and give the reply to its end."""
    await peer.ask("MAIL FROM:<a@client.example>")
    for name in to:
        assert (await peer.ask(f"RCPT TO:<{name}@mx.example>")).startswith("250")
    assert (await peer.ask("DATA")).startswith("354")
    return await peer.ask(*lines, ".")


# Redirect.


async def test_a_redirected_recipient_is_replaced_and_its_name_is_kept() -> None:
    """The envelope has the mailboxes of the Redirect in the recipient's place, each with what RCPT named."""
    intake = Memory()
    async with dialogue(intake, aliases) as (peer, _):
        await peer.ask("EHLO client.example")
        assert await send(peer, "hello", to=("b", "staff", "old", "c")) == "250 2.0.0 queued as 1"

    [(_, envelope, _)] = intake.taken
    assert [(str(recipient), str(recipient.original)) for recipient in envelope.recipients] == [
        ("b@mx.example", "None"),
        ("anna@mx.example", "staff@mx.example"),
        ("ben@elsewhere.example", "staff@mx.example"),
        ("new@mx.example", "old@mx.example"),
        ("c@mx.example", "None"),
    ]


async def test_a_redirect_is_not_told_to_the_client() -> None:
    """The reply to RCPT is the one of any recipient: where mail goes is nobody's business."""
    async with dialogue(Memory(), aliases) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@client.example>")
        assert await peer.ask("RCPT TO:<staff@mx.example>") == "250 2.1.5 recipient ok"


async def test_a_redirect_is_of_one_transaction() -> None:
    """After RSET, and in the next message, nothing of it is left."""
    intake = Memory()
    async with dialogue(intake, aliases) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@client.example>")
        await peer.ask("RCPT TO:<staff@mx.example>")
        await peer.ask("RSET")
        await send(peer, "hello")
        await send(peer, "hello", to=("old",))
        await send(peer, "hello")

    to = [[str(recipient) for recipient in envelope.recipients] for _, envelope, _ in intake.taken]
    assert to == [["b@mx.example"], ["new@mx.example"], ["b@mx.example"]]


async def test_later_hooks_see_where_the_message_goes() -> None:
    """The hooks behind RCPT are given the envelope as it will be delivered."""
    seen: list[tuple[str, list[str]]] = []

    @dataclass
    class Watch:
        async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply | Redirect:
            seen.append(("rcpt", [str(recipient) for recipient in envelope.recipients]))
            return REDIRECTED.get(rcpt.forward_path.mailbox.local_part, OK)

        async def data(self, client: Client, envelope: Envelope) -> Reply:
            seen.append(("data", [str(recipient) for recipient in envelope.recipients]))
            return OK

        async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
            seen.append(("message", [str(recipient) for recipient in envelope.recipients]))
            return OK

    async with dialogue(Memory(), Watch()) as (peer, _):
        await peer.ask("EHLO client.example")
        await send(peer, "hello", to=("old", "b"))

    both = ["new@mx.example", "b@mx.example"]
    assert seen == [("rcpt", []), ("rcpt", ["new@mx.example"]), ("data", both), ("message", both)]


def test_a_redirect_to_nobody_is_no_redirect() -> None:
    """A message that was accepted goes somewhere; what is no address is found out where it is written."""
    with pytest.raises(ValueError, match="needs a mailbox"):
        Redirect(())
    with pytest.raises(ValueError, match="malformed"):
        Redirect.to("anna")
    with pytest.raises(ValueError, match="malformed"):
        Redirect("anna@example.com")  # type: ignore[arg-type]  # the type checkers refuse it too
    with pytest.raises(ValueError, match="malformed"):
        Redirect((ForwardPath(Mailbox("anna", Domain("no domain"))),))
    with pytest.raises(ValueError, match="written and read again"):
        Redirect((ForwardPath(Mailbox("anna", Domain("EXAMPLE.com"))),))
    path = parse_forward_path("anna@example.com")
    assert Redirect.to("anna@example.com") == Redirect((path,))


# The whole message.


async def test_a_message_that_is_refused_is_not_queued_and_the_session_goes_on() -> None:
    """The hook's reply is the one to the end of data, whatever its code; the next message is taken.

    RFC 5321 section 4.2.5.
    """
    intake = Memory()
    async with dialogue(intake, on_octets(by_word)) as (peer, _):
        await peer.ask("EHLO client.example")
        assert await send(peer, "Subject: s", "", "an ERROR") == "554 5.7.1 no thanks"
        assert (intake.taken, intake.aborted) == ([], 1)

        assert await send(peer, "Subject: s", "", "fine") == "250 2.0.0 queued as 1"

    assert [octets for _, _, octets in intake.taken] == [b"Subject: s\r\n\r\nfine\r\n"]
    assert intake.aborted == 1


async def test_the_hook_sees_just_the_octets_that_are_queued() -> None:
    """Whole, unstuffed, and the same in pieces, at once and in a file; the envelope and the client stand beside."""
    seen: list[object] = []

    @on_message
    async def look(client: Client, envelope: Envelope, message: Message) -> Reply:
        async with message.chunks() as chunks, message.as_file() as path:
            pieces = b"".join([chunk async for chunk in chunks])
            seen.extend([pieces, await message.bytes(), await trio.Path(path).read_bytes(), message.size])
        seen.extend([client.session.hello, str(envelope.reverse_path)])
        return Reply(250, "not these words")

    intake = Memory()
    async with dialogue(intake, look) as (peer, _):
        await peer.ask("EHLO client.example")
        assert await send(peer, "x" * 3000, "..dot") == "250 2.0.0 queued as 1"

    [(_, _, octets)] = intake.taken
    assert octets == b"x" * 3000 + b"\r\n.dot\r\n"
    assert seen == [octets, octets, octets, len(octets), "client.example", "a@client.example"]


async def test_without_the_hook_nobody_asks_for_the_message() -> None:
    """What nobody looks at costs nothing: the intake is not asked to make the message readable."""
    intake = Memory()
    async with dialogue(intake, aliases) as (peer, _):
        await peer.ask("EHLO client.example")
        await send(peer, "hello")

    assert (len(intake.taken), intake.messages) == (1, 0)


async def test_an_unsound_message_is_not_shown() -> None:
    """A message with a defect is refused for that, and nobody looks at it."""
    intake = Memory()
    async with dialogue(intake, on_octets(by_word)) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await send(peer, "an ERROR with a bare\nLF")).startswith("5")

    assert (intake.taken, intake.messages) == ([], 0)


async def test_a_message_hook_that_fails_is_451_and_nothing_is_queued(caplog: pytest.LogCaptureFixture) -> None:
    """Design, promise 3: its text stands in the log alone, under the reference that the client is told."""

    def fail(octets: bytes) -> Reply:
        raise RuntimeError(octets)

    intake = Memory()
    async with dialogue(intake, on_octets(fail)) as (peer, _):
        await peer.ask("EHLO client.example")
        reply = await send(peer, "secret")
        assert (await peer.ask("NOOP")).startswith("250")

    assert reply.startswith("451 4.3.0 local error, try again later (reference ")
    reference = reply.rpartition("reference ")[2].rstrip(")")
    assert any(reference in record.message for record in caplog.records)
    assert (intake.taken, intake.aborted) == ([], 1)


async def test_a_message_that_cannot_be_read_is_451(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk under the message that a policy wants to see is our fault: 4yz, and the hook is not asked."""
    asked: list[bytes] = []

    def ask(octets: bytes) -> Reply:
        asked.append(octets)
        return OK

    caplog.set_level(logging.CRITICAL)
    intake = Memory(on_message=SpoolError("no disk"))
    async with dialogue(intake, on_octets(ask)) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await send(peer, "hello")).startswith("451 4.3.0 cannot store mail")

    assert (asked, intake.taken, intake.aborted) == ([], [], 1)


async def test_a_message_hook_that_hangs_ends_with_the_idle_limit(autojump_clock: trio.testing.MockClock) -> None:
    """The hook stands outside of the commit's shield: it can be cut off, and then nothing is queued."""

    @on_message
    async def hang(client: Client, envelope: Envelope, message: Message) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    intake = Memory()
    async with dialogue(intake, hang) as (peer, _):
        await peer.ask("EHLO client.example")
        began = trio.current_time()
        assert (await send(peer, "hello")).startswith("421 4.4.2")
        assert 300 <= trio.current_time() - began <= 303

    assert (intake.taken, intake.aborted) == ([], 1)


# Functions.


@pytest.mark.parametrize("hook", ["connect", "hello", "mail", "rcpt", "data", "message"])
async def test_a_function_is_a_policy_of_its_one_hook(hook: str) -> None:
    """Each wrapper's function is asked for its own command, and refuses it; those before it get the default answer."""

    async def connect(client: Client) -> Reply:
        return NO

    async def hello(client: Client, greeting: Hello) -> Reply:
        return NO

    async def mail(client: Client, sender: Mail) -> Reply:
        return NO

    async def rcpt(client: Client, envelope: Envelope, recipient: Rcpt) -> Reply:
        return NO

    async def data(client: Client, envelope: Envelope) -> Reply:
        return NO

    async def message(client: Client, envelope: Envelope, octets: Message) -> Reply:
        return NO

    policies: dict[str, Policy] = {
        "connect": on_connect(connect),
        "hello": on_hello(hello),
        "mail": on_mail(mail),
        "rcpt": on_rcpt(rcpt),
        "data": on_data(data),
        "message": on_message(message),
    }
    lines = {
        "hello": "EHLO client.example",
        "mail": "MAIL FROM:<a@client.example>",
        "rcpt": "RCPT TO:<b@mx.example>",
        "data": "DATA",
        "message": ".",
    }
    async with dialogue(Memory(), policies[hook]) as (peer, _):
        replies = {"connect": peer.greeting}
        for command, line in lines.items():
            replies[command] = await peer.ask(line)

    commands = list(replies)
    before = commands[: commands.index(hook)]
    assert [command for command in before if replies[command][0] not in "23"] == []
    assert replies[hook] == "554 5.7.1 no thanks"


# All.


@dataclass
class Member:
    """A policy that writes down when it is asked, and answers what it was told to."""

    name: str
    asked: list[str]
    answers: dict[str, Reply] = field(default_factory=dict)

    def _answer(self, hook: str) -> Reply:
        self.asked.append(f"{self.name}.{hook}")
        return self.answers.get(hook, Reply(250, f"{self.name} says yes"))

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

    async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
        return self._answer("message")


async def test_all_asks_each_policy_that_has_the_hook_in_order() -> None:
    """Those that lack a hook are passed over, one All may be inside another, and the last yes is what is said."""
    asked: list[str] = []
    intake = Memory()
    policy = All(Member("p", asked), All(aliases, Member("q", asked)))
    async with dialogue(intake, policy) as (peer, _):
        await peer.ask("EHLO client.example")
        assert await peer.ask("MAIL FROM:<a@client.example>") == "250 2.0.0 q says yes"
        assert await peer.ask("RCPT TO:<b@mx.example>") == "250 2.0.0 q says yes"
        await peer.ask("DATA")
        assert await peer.ask("hello", ".") == "250 2.0.0 queued as 1"

    hooks = ["connect", "hello", "mail", "rcpt", "data", "message"]
    assert asked == [f"{name}.{hook}" for hook in hooks for name in "pq"]


@pytest.mark.parametrize("hook", ["hello", "mail", "rcpt", "data", "message"])
async def test_all_ends_with_the_first_refusal(hook: str) -> None:
    """Whoever stands behind a refusal is not asked; the refusal is the reply."""
    asked: list[str] = []
    policy = All(Member("p", asked), Member("q", asked, {hook: NO}), Member("r", asked, {hook: OK}))
    commands = ["EHLO client.example", "MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>", "DATA", "."]
    reply = ""
    async with dialogue(Memory(), policy) as (peer, _):
        for command in commands:
            reply = await peer.ask(command)
            if reply[0] == "5":
                break

    assert reply == "554 5.7.1 no thanks"
    assert [each for each in asked if each.endswith(hook)] == [f"p.{hook}", f"q.{hook}"]


async def test_all_takes_the_last_redirect() -> None:
    """Everybody is asked about what RCPT named; a plain yes behind a Redirect leaves it, another one replaces it."""
    seen: list[str] = []

    def redirecting(answer: Reply | Redirect) -> Policy:
        @on_rcpt
        async def policy(client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply | Redirect:
            seen.append(str(rcpt.forward_path))
            return answer

        return policy

    intake = Memory()
    one, two = Redirect.to("one@mx.example"), Redirect.to("two@mx.example")
    policy = All(redirecting(one), redirecting(two), redirecting(OK))
    async with dialogue(intake, policy) as (peer, _):
        await peer.ask("EHLO client.example")
        await send(peer, "hello")

    assert seen == ["b@mx.example"] * 3
    [(_, envelope, _)] = intake.taken
    assert [str(recipient) for recipient in envelope.recipients] == ["two@mx.example"]


async def test_all_refuses_behind_a_redirect() -> None:
    """A Redirect of one policy does not open the door that another one keeps shut."""

    @on_rcpt
    async def closed(client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        return NO

    async with dialogue(Memory(), All(aliases, closed)) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@client.example>")
        assert await peer.ask("RCPT TO:<old@mx.example>") == "554 5.7.1 no thanks"
        assert (await peer.ask("DATA")).startswith("503")


async def test_a_fault_in_one_of_all_is_451() -> None:
    """What one policy raises is not passed over in favor of the next."""

    class Broken:
        async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
            raise ValueError

    async with dialogue(Memory(), All(Broken(), aliases)) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("MAIL FROM:<a@client.example>")
        assert (await peer.ask("RCPT TO:<b@mx.example>")).startswith("451 4.3.0 local error")


@pytest.mark.parametrize("policy", [All(), All(aliases, All()), All(aliases, CLIENT)])  # type: ignore[arg-type]
def test_all_of_nothing_is_refused(policy: Policy) -> None:
    """A list that came out empty, or a member without a hook, must not open a relay in silence."""
    with pytest.raises(ConfigError, match="no hook"):
        Hooks(policy)


@dataclass
class Folder:
    """A policy with a field that happens to have the name of a hook."""

    data: str = "folder"

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        return Reply(250, "ok")


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Folder(), "^data of Folder.* is not a function"),
        (Folder, "is a class"),
        (All(aliases, Folder), "is a class"),  # type: ignore[arg-type]  # the point is to give what is wrong
    ],
)
def test_what_only_looks_like_a_policy_is_refused(policy: Policy, told: str) -> None:
    """A class in the place of its object, or a field in the place of a hook, is found out at the start."""
    with pytest.raises(ConfigError, match=told):
        Hooks(policy)
