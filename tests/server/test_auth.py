"""AUTH in a session: how an exchange goes over the wire, what it costs to fail, and whom it makes known."""

from __future__ import annotations

import hashlib
import hmac
import logging
import ssl
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.server.certificates import AUTHORITY, client_context, server_context
from tests.server.harness import Memory, Peer, dialogue
from tests.server.test_tls import Trace, upgrade

from smtprecv.message import Client
from smtprecv.policies import PasswordFile, with_keys
from smtprecv.policy import All, Policy
from smtprecv.protocol import Config, EnhancedStatus, Mail, Reply
from smtprecv.sasl import CREDENTIALS_INVALID, External, Identity, Password, ScramKeys
from smtprecv.server import DirectIntake, Limits
from smtprecv.server._hooks import Hooks

CONFIG = Config("mx.example", auth_without_tls=True)
KEYS = ScramKeys.derive("pencil", salt=b"salt", iterations=4096)
UNAVAILABLE = Reply(454, "the directory is down", EnhancedStatus(4, 7, 0))
OTHER = Reply(535, "not here", EnhancedStatus(5, 7, 8))


@dataclass
class Users:
    """A policy that knows one user, and writes down whom MAIL comes from."""

    name: str = "anna"
    refusal: Reply = CREDENTIALS_INVALID
    asked: list[Password | External] = field(default_factory=list)
    senders: list[str | None] = field(default_factory=list)

    async def authenticate(self, client: Client, credentials: Password | External) -> Identity | Reply:
        self.asked.append(credentials)
        match credentials:
            case Password(user, "pencil", "") if user == self.name:
                return Identity(user)
            case External("relay.example", ""):
                return Identity("relay")
            case _:
                return self.refusal

    async def scram_keys(self, client: Client, user: str) -> ScramKeys | None:
        return KEYS if user == self.name else None

    async def mail(self, client: Client, mail: Mail) -> Reply:
        self.senders.append(client.session.identity)
        return Reply(250, "ok")


def encoded(octets: bytes | str) -> str:
    """Give octets as they go over the wire."""
    return b64encode(octets.encode() if isinstance(octets, str) else octets).decode()


def plain(user: str, password: str) -> str:
    """Give the response of PLAIN."""
    return encoded(f"\0{user}\0{password}")


async def scram(peer: Peer, user: str, password: str, *, is_initial: bool = True) -> tuple[str, str]:
    """Lead SCRAM-SHA-256 as a client (RFC 5802 section 3): give the server's first message, and the last reply.

    Fails if the server does not show that it knows the user.
    """
    bare = f"n={user},r=client-nonce"
    if is_initial:
        reply = await peer.ask(f"AUTH SCRAM-SHA-256 {encoded('n,,' + bare)}")
    else:
        assert await peer.ask("AUTH SCRAM-SHA-256") == "334 "
        reply = await peer.ask(encoded("n,," + bare))
    server_first = b64decode(reply.removeprefix("334 ")).decode()
    attributes = dict(part.split("=", 1) for part in server_first.split(","))
    salt, iterations = b64decode(attributes["s"]), int(attributes["i"])
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    without_proof = f"c=biws,r={attributes['r']}"
    message = f"{bare},{server_first},{without_proof}".encode()
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    reply = await peer.ask(encoded(f"{without_proof},p={encoded(proof)}"))
    if reply.startswith("334 "):
        server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        assert b64decode(reply.removeprefix("334 ")).decode() == f"v={encoded(server_signature)}"
        reply = await peer.ask("")
    return server_first, reply


async def test_auth_is_offered_where_it_may_be_used() -> None:
    """RFC 4954 section 4: only inside TLS, unless the configuration allows passwords in clear."""
    async with dialogue(Memory(), Users(), tls=server_context()) as (peer, _):
        await peer.say("EHLO client.example")
        assert not any("AUTH" in line for line in await peer.lines())
        assert (await peer.ask(f"AUTH PLAIN {plain('anna', 'pencil')}")).startswith("538 5.7.11")
        await upgrade(peer, client_context())
        await peer.say("EHLO client.example")
        assert "250-AUTH SCRAM-SHA-256 PLAIN LOGIN" in await peer.lines()

        assert await peer.ask(f"AUTH PLAIN {plain('anna', 'pencil')}") == "235 2.7.0 authentication successful"

        await peer.say("EHLO client.example")
        assert not any("AUTH" in line for line in await peer.lines())
        assert (await peer.ask(f"AUTH PLAIN {plain('anna', 'pencil')}")).startswith("503 ")


@pytest.mark.parametrize(
    ("lines", "replies"),
    [
        ([f"AUTH PLAIN {plain('anna', 'pencil')}"], ["235"]),
        (["AUTH PLAIN", plain("anna", "pencil")], ["334 ", "235"]),
        (["AUTH LOGIN", encoded("anna"), encoded("pencil")], ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235"]),
        ([f"AUTH LOGIN {encoded('anna')}", encoded("pencil")], ["334 UGFzc3dvcmQ6", "235"]),
        (["AUTH PLAIN ="], ["501 5.5.2"]),  # RFC 4954 section 4: an initial response of nothing
        (["AUTH PLAIN", "*"], ["334 ", "501 5.7.0"]),
        (["AUTH PLAIN", "not base64"], ["334 ", "501 5.5.2"]),
        (["AUTH PLAIN", encoded("x" * 20_000)], ["334 ", "500 5.5.6"]),
        ([f"AUTH PLAIN {plain('anna', 'x' * 1025)}"], ["501 5.5.2"]),
        ([f"AUTH PLAIN {plain('anna', 'wrong')}"], ["535 5.7.8"]),
        ([f"AUTH PLAIN {plain('nobody', 'pencil')}"], ["535 5.7.8"]),
        ([f"AUTH PLAIN {encoded(chr(0).join(['bert', 'anna', 'pencil']))}"], ["535 5.7.8"]),
        (["AUTH CRAM-MD5"], ["504 5.5.4"]),
        (["AUTH EXTERNAL ="], ["538 5.7.11"]),  # there is no certificate outside of TLS
        (["AUTH LOGIN", encoded("anna"), "*"], ["334 ", "334 ", "501 5.7.0"]),
    ],
)
async def test_an_exchange(lines: list[str], replies: list[str], autojump_clock: trio.testing.MockClock) -> None:
    """RFC 4954 section 4, line by line; whatever came of it, the session goes on."""
    async with dialogue(Memory(), Users(), config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        for line, reply in zip(lines, replies, strict=True):
            assert (await peer.ask(line)).startswith(reply)

        assert await peer.ask("NOOP") == "250 2.0.0 ok"


@pytest.mark.parametrize("is_initial", [True, False])
async def test_scram(is_initial: bool) -> None:  # noqa: FBT001
    """RFC 5802 section 3: the password does not go over the wire, and both sides show that they know it."""
    users = Users()
    async with dialogue(Memory(), users, config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        _, reply = await scram(peer, "anna", "pencil", is_initial=is_initial)
        await peer.open_transaction()

    assert reply == "235 2.7.0 authentication successful"
    assert (users.senders, users.asked) == (["anna"], [])


async def test_scram_does_not_tell_who_is_there(autojump_clock: trio.testing.MockClock) -> None:
    """A user who is not there has a salt too, the same in every session and at every listener, and one of his own."""
    shown: list[tuple[str, str]] = []
    for policy in (Users(), Users("bert"), Users()):
        async with dialogue(Memory(), policy, config=CONFIG) as (peer, _):
            await peer.ask("EHLO client.example")
            for user in ("nobody", "nobody", "none"):
                first, reply = await scram(peer, user, "pencil")
                assert reply.startswith("535 5.7.8")
                shown.append((user, first.partition(",s=")[2]))

    assert len(set(shown)) == 2
    assert len({keys for _, keys in shown}) == 2


async def test_external_is_for_who_has_a_certificate() -> None:
    """RFC 4422 appendix A: its name goes to the policy, and the client says nothing, or whom it wants to act as."""
    context = server_context()
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    users = Users()
    async with dialogue(Memory(), users, tls=context) as (peer, _):
        await upgrade(peer, client_context(AUTHORITY.issue_cert("relay.example")))
        await peer.say("EHLO client.example")
        assert "250-AUTH EXTERNAL SCRAM-SHA-256 PLAIN LOGIN" in await peer.lines()
        assert (await peer.ask(f"AUTH EXTERNAL {encoded('bert')}")).startswith("535 ")

        assert (await peer.ask("AUTH EXTERNAL =")).startswith("235 ")

        await peer.open_transaction()
    assert users.asked == [External("relay.example", "bert"), External("relay.example")]
    assert users.senders == ["relay"]


async def test_who_a_client_is_stands_in_entry_and_trace() -> None:
    """RFC 3848: ESMTPA, and the entry knows the name; RFC 4954 section 6: AUTH may be demanded for MAIL."""
    trace = Trace()
    config = Config("mx.example", auth_without_tls=True, requires_auth=True)
    users = Users()
    async with dialogue(DirectIntake(trace), users, config=config) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await peer.ask("MAIL FROM:<a@client.example>")).startswith("530 5.7.0")
        assert (await peer.ask(f"AUTH PLAIN {plain('anna', 'pencil')}")).startswith("235 ")
        await peer.open_transaction()
        await peer.ask("DATA")
        assert (await peer.ask("hello", ".")).startswith("250 ")

    [fields] = trace.fields
    assert " with ESMTPA " in fields
    assert users.senders == ["anna"]


async def test_failures_wait_and_end_the_session(autojump_clock: trio.testing.MockClock) -> None:
    """Each failure costs a second, and the fifth the connection (RFC 4954 section 4 lets a server count)."""
    async with dialogue(Memory(), Users(), config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        began = trio.current_time()
        for number in range(1, 6):
            assert (await peer.ask(f"AUTH PLAIN {plain('anna', 'wrong')}")).startswith("535 ")
            assert trio.current_time() - began == pytest.approx(number)

        assert await peer.reply() == "421 4.7.0 too many authentication failures"
        assert await peer.hear() == ""


async def test_malformed_and_cancelled_exchanges_are_failures(autojump_clock: trio.testing.MockClock) -> None:
    """A client that breaks off learns as much as one that fails, and pays as much."""
    async with dialogue(Memory(), Users(), Limits(max_auth_failures=3), config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        await peer.ask("AUTH PLAIN =")
        await peer.ask("AUTH SCRAM-SHA-256")
        await peer.ask("*")
        await scram(peer, "nobody", "pencil")

        assert await peer.reply() == "421 4.7.0 too many authentication failures"


@dataclass
class Failing:
    """A policy whose hooks raise, or answer what they are told to."""

    answer: Reply | None = None

    async def authenticate(self, client: Client, credentials: Password | External) -> Identity | Reply:
        if self.answer is not None:
            return self.answer
        raise RuntimeError(credentials)

    async def scram_keys(self, client: Client, user: str) -> ScramKeys | None:
        raise RuntimeError(user)


@pytest.mark.parametrize(
    "line",
    [f"AUTH PLAIN {plain('anna', 'pencil')}", f"AUTH SCRAM-SHA-256 {encoded('n,,n=anna,r=nonce')}"],
)
async def test_a_hook_that_raises_is_our_fault(line: str, caplog: pytest.LogCaptureFixture) -> None:
    """4yz with a reference, which counts as no failure, however often; the session goes on."""
    caplog.set_level(logging.CRITICAL)
    async with dialogue(Memory(), Failing(), config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        for _ in range(20):
            assert (await peer.ask(line)).startswith("451 4.3.0 local error")

        await peer.open_transaction()


@pytest.mark.parametrize("answer", [Reply(235, "yes"), Reply(250, "ok"), Reply(334, "go on")])
async def test_a_yes_without_an_identity_is_our_fault(answer: Reply, caplog: pytest.LogCaptureFixture) -> None:
    """Who the client is must be said by an Identity: a Reply that says yes is no answer."""
    caplog.set_level(logging.CRITICAL)
    async with dialogue(Memory(), Failing(answer), config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await peer.ask(f"AUTH PLAIN {plain('anna', 'pencil')}")).startswith("451 ")


async def test_no_password_is_in_the_log(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """Neither as it is nor as it went over the wire, whatever became of it; nor does a name forge a line."""
    caplog.set_level(logging.DEBUG)
    secrets = [plain("anna", "pencil"), plain("anna", "s3cret"), encoded("s3cret"), "!s3cret"]
    async with dialogue(Memory(), Users(), Limits(max_auth_failures=100), config=CONFIG) as (peer, _):
        replies = [await peer.ask("EHLO client.example")]
        for lines in (
            [f"AUTH PLAIN {secrets[1]}"],
            [f"auth nonsense {secrets[1]}"],
            [f"AUTH PLAIN {secrets[1]} {secrets[1]}"],
            ["AUTH LOGIN", encoded("anna"), secrets[2]],
            ["AUTH LOGIN", encoded("anna"), secrets[3]],
            [f"AUTH LOGIN {encoded(f'anna{chr(10)}forged')}"],
            [f"AUTH PLAIN {secrets[0]}"],
        ):
            replies = [await peer.ask(line) for line in lines]

        assert replies[0].startswith("235 ")

    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "authenticated as 'anna'" in told
    assert "forged" not in told
    assert [secret for secret in (*secrets, "s3cret", "pencil") if secret in told] == []


@pytest.mark.parametrize("refused", ["AUTH LOGIN", "AUTH NONE", "AUTH"])
async def test_what_follows_a_refused_auth_is_not_in_the_log(refused: str, caplog: pytest.LogCaptureFixture) -> None:
    """A client that does not read the refusal sends its password as a command, which is refused, and not shown."""
    caplog.set_level(logging.DEBUG)
    async with dialogue(Memory(), Users(), tls=server_context()) as (peer, _):
        replies = [
            await peer.ask(line) for line in ("EHLO c.example", "JUNK", refused, encoded("anna"), encoded("pencil"))
        ]
        assert [reply[:3] for reply in replies[-2:]] == ["500", "500"]
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "JUNK" in told
    assert encoded("pencil") not in told


@pytest.mark.parametrize(
    ("policies", "code"),
    [
        ([Users("bert"), Users("anna")], "235"),
        ([Users("anna"), Users("bert", UNAVAILABLE)], "235"),
        ([Users("bert", OTHER), Users("bert", UNAVAILABLE), Users("bert")], "454"),
        ([Users("bert", OTHER), Users("bert")], "535 5.7.8 not here"),
    ],
)
async def test_all_asks_who_knows_the_client(
    policies: list[Policy], code: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The first that knows it decides; where nobody does, one that could not look makes the refusal transient."""
    async with dialogue(Memory(), All(*policies), config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await peer.ask(f"AUTH PLAIN {plain('anna', 'pencil')}")).startswith(code)


async def test_all_asks_who_has_keys() -> None:
    """The keys are those of the first policy that has some."""
    async with dialogue(Memory(), All(Users("bert"), Users("anna")), config=CONFIG) as (peer, _):
        await peer.ask("EHLO client.example")
        assert (await scram(peer, "anna", "pencil"))[1].startswith("235 ")


def test_what_is_offered_follows_from_the_hooks() -> None:
    """SCRAM for who has keys, passwords for who judges them, nothing for who does neither."""

    class Keys:
        async def scram_keys(self, client: Client, user: str) -> ScramKeys | None:
            return None

    class Judge:
        async def authenticate(self, client: Client, credentials: Password | External) -> Identity | Reply:
            return CREDENTIALS_INVALID

    assert Hooks(None).mechanisms == ()
    assert Hooks(Keys()).mechanisms == ("SCRAM-SHA-256",)
    assert Hooks(Judge()).mechanisms == ("EXTERNAL", "PLAIN", "LOGIN")
    assert Hooks(All(Judge(), Keys())).mechanisms == ("EXTERNAL", "SCRAM-SHA-256", "PLAIN", "LOGIN")


async def test_a_password_file_serves_every_mechanism(tmp_path: Path) -> None:
    """One line of a file with SCRAM keys is enough for PLAIN, LOGIN and SCRAM; behind other policies it is the last."""
    (tmp_path / "users").write_bytes(with_keys(b"", "ben", KEYS))
    policy = All(Users("anna"), PasswordFile(tmp_path / "users"))
    for user in ("anna", "ben"):
        for lines in (
            [f"AUTH PLAIN {plain(user, 'pencil')}"],
            ["AUTH LOGIN", encoded(user), encoded("pencil")],
            ["SCRAM"],
        ):
            async with dialogue(Memory(), policy, config=CONFIG) as (peer, _):
                await peer.ask("EHLO client.example")
                replies = (
                    [(await scram(peer, user, "pencil"))[1]]
                    if lines == ["SCRAM"]
                    else [await peer.ask(line) for line in lines]
                )
                assert replies[-1] == "235 2.7.0 authentication successful"
