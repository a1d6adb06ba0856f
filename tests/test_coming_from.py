"""Every program and command of docs/coming-from-net-smtp-receive.md, run as printed, does what its row says."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import runpy
import shlex
import smtplib
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Final, TypeVar

import pytest
import trio
import trio.testing
from tests.e2e.served import until
from tests.server.harness import CLIENT, Memory, Peer, dialogue
from tests.server.nameserver import from_zone, nameserver
from tests.server.test_ident import service

from smtprecv import (
    AcceptDomains,
    Attempt,
    Client,
    ClientLookup,
    Config,
    Delivery,
    Entry,
    Envelope,
    Ident,
    Intake,
    JsonNote,
    Policy,
    QueueId,
    Recipient,
    Reply,
    Report,
    ReverseDns,
    Server,
    Session,
    SessionId,
    Spool,
    all_entries,
    listen,
    open_spool,
    own_hostname,
    run_once,
)
from smtprecv.cli._arguments import parse_arguments
from smtprecv.protocol import Body, MailParameters, parse_forward_path, parse_reverse_path
from smtprecv.server._peer import Lookups

T = TypeVar("T")

PAGE: Final = Path(__file__).parents[1] / "docs" / "coming-from-net-smtp-receive.md"
SECTIONS: Final = dict(section.split("\n", 1) for section in PAGE.read_text().split("\n## ")[1:])

TESTED: Final[set[str]] = set()

ANNA: Final = "anna@example.com"
OCTETS: Final = b"Subject: hello\r\n\r\nto somebody@myhost\r\n"
BCC: Final = ("ben@example.com", "carla@example.com")
HELLO, MAIL, RCPT = "EHLO client.example", f"MAIL FROM:<{ANNA}>", "RCPT TO:<ben@example.com>"
SESSION: Final = f"{HELLO}\r\n{MAIL}\r\n{RCPT}\r\nDATA\r\nSubject: hello\r\n\r\n.\r\nQUIT\r\n"


def blocks(title: str, language: str) -> list[str]:
    """Give what a section prints in this language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[title], re.DOTALL | re.MULTILINE)
    return found


@dataclass(frozen=True)
class Printed:
    """What a section prints, run in a folder of its own."""

    title: str
    folder: Path

    @property
    def program(self) -> str:
        """The path of the section's program."""
        (text,) = blocks(self.title, "python")
        path = self.folder / "program.py"
        path.write_text(text)
        return str(path)

    def commands(self, **changes: str) -> list[str]:
        """Run the commands of the section, with these words in the place of printed ones; give what they wrote."""
        (self.folder / "dialogue.txt").write_text(SESSION)
        return [self._output(line, changes) for (text,) in [blocks(self.title, "sh")] for line in text.splitlines()]

    def _output(self, line: str, changes: Mapping[str, str]) -> str:
        smtprecv, *words = [changes.get(word, word) for word in shlex.split(line)]
        assert smtprecv == "smtprecv"
        source = words[words.index("<") + 1] if "<" in words else "/dev/null"
        if "<" in words:
            words = words[: words.index("<")]
        with (self.folder / source).open() as given:
            ended = subprocess.run(
                [sys.executable, "-m", smtprecv, *words],
                cwd=self.folder, stdin=given, capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture
def printed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Give what the section prints that the test is marked with."""
    monkeypatch.chdir(tmp_path)
    return Printed(request.param, tmp_path)


def section(title: str) -> pytest.MarkDecorator:
    """Mark a test as that of a section."""
    TESTED.add(title)
    return pytest.mark.parametrize("printed", [title], indirect=True, ids=[""])


async def put(spool: Spool, *recipients: str, octets: bytes = OCTETS, client: Client = CLIENT) -> QueueId:
    """Put a message into a spool."""
    envelope = Envelope(
        parse_reverse_path(ANNA),
        MailParameters(body=Body.EIGHT_BIT_MIME),
        tuple(Recipient(parse_forward_path(recipient)) for recipient in recipients or ("ben@example.com",)),
    )
    draft = await spool.begin(dt.datetime.now(dt.UTC))
    await draft.write(octets)
    return (await draft.commit(client, envelope, dt.datetime.now(dt.UTC))).queue_id


async def left(spool: Spool) -> list[Entry]:
    """Give what is in a spool."""
    return [entry async for entry in all_entries(spool)]


def talk(listener: socket.socket) -> dict[str, tuple[int, bytes]]:
    """Send a message to whoever accepts connections here."""
    with smtplib.SMTP("127.0.0.1", listener.getsockname()[1], timeout=30) as client:
        return client.sendmail(ANNA, ["ben@example.com", "carla@example.org"], "Subject: hello\r\n\r\n")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Give a listening socket on loopback, for a program to inherit."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def test_the_page_is_whole() -> None:
    """Every section has a test, every row of the table leads to a section, and every section has a row."""
    assert sorted(SECTIONS) == sorted(TESTED)
    table = PAGE.read_text().partition("\n## ")[0]
    anchors = [title.lower().replace(" ", "-") for title in SECTIONS]
    assert re.findall(r"\(#([a-z_-]+)\)", table) == anchors


@section("deliver")
async def test_deliver(printed: Printed) -> None:
    """An exception is a 451 for every recipient, and its text stays with the message; a reply is what it says."""
    delivery: Delivery = runpy.run_path(printed.program)["Printer"]()
    async with open_spool("queue") as spool:
        await put(spool, "ben@example.com", "carla@example.com", octets=bytes(2000))
        await put(spool)
        assert await run_once(spool, delivery) == Report(delivered=1, deferred=2)
        [entry] = await left(spool)
    assert entry.error == "OSError: the printer is out of paper"
    assert [standing.last.code for standing in entry.standings if standing.last is not None] == [451, 451]


@section("is_delivered")
async def test_is_delivered(printed: Printed) -> None:
    """What a crashed attempt had delivered is asked for, and not delivered again."""
    delivery: Delivery = runpy.run_path(printed.program)["Archive"]()
    archive = printed.folder / "archive"
    async with open_spool("queue") as spool:
        first, second = await put(spool), await put(spool)
        assert (await run_once(spool, delivery)).deferred == 2  # there is no folder yet
        archive.mkdir()
        (archive / first).write_bytes(b"delivered before the crash")
        assert (await run_once(spool, delivery, ids=[first, second])).delivered == 2
    assert [(archive / name).read_bytes() for name in (first, second)] == [b"delivered before the crash", OCTETS]


@dataclass
class VersionOne:
    """The note of a program before its upgrade."""

    attempts: int


class Before:
    """That program."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        attempt.save(JsonNote(VersionOne), VersionOne(1))
        return [Reply(451, "not yet")]


@section("Fields of your own")
async def test_fields(printed: Printed) -> None:
    """The note counts on from attempt to attempt, and from the program's older version to this one."""
    delivery: Delivery = runpy.run_path(printed.program)["Stubborn"]()
    async with open_spool("queue") as spool:
        queue_id = await put(spool)
        await run_once(spool, Before())
        await run_once(spool, delivery, ids=[queue_id])
        assert [entry.error for entry in await left(spool)] == ["ConnectionError: no luck at try 2"]
        assert (await run_once(spool, delivery, ids=[queue_id])).delivered == 1


def watched(deliver: Callable[[Attempt], Awaitable[T]], asked: list[list[str]]) -> Callable[[Attempt], Awaitable[T]]:
    """Remember whom a delivery is asked to serve, and behind a slash whom RCPT named for that one."""

    async def watch(attempt: Attempt) -> T:
        asked.append([f"{recipient}/{recipient.original or ''}" for recipient in attempt.recipients])
        return await deliver(attempt)

    return watch


@section("TO changed by deliver")
async def test_redirect(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replacements are tried in the place of the recipient, which they know, and nobody else is tried again."""
    delivery: Delivery = runpy.run_path(printed.program)["Forwarding"]()
    asked: list[list[str]] = []
    monkeypatch.setattr(delivery, "deliver", watched(delivery.deliver, asked))
    async with open_spool("queue") as spool:
        await put(spool, "ben@example.com", "carla@example.com")
        await run_once(spool, delivery)
        assert await left(spool) == []
    assert asked == [
        ["ben@example.com/", "carla@example.com/"],
        ["anna@example.com/ben@example.com", "ben@example.org/ben@example.com"],
    ]


@dataclass
class Describing:
    """A delivery that keeps what a function says of an attempt, and fails."""

    describe: Callable[[Attempt], Awaitable[dict[str, object]]]
    said: list[dict[str, object]] = field(default_factory=list)

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        self.said.append(await self.describe(attempt))
        raise TimeoutError


@section("Member data")
async def test_member_data(printed: Printed) -> None:
    """Every field has the value that it had there, at the first attempt and, with ERROR and LASTRUN, at the next."""
    delivery = Describing(runpy.run_path(printed.program)["describe"])
    session = Session(hello="client.example")
    client = Client(SessionId("s"), ip_address("192.0.2.1"), 40000, session, host="mail.example", ident="anna")
    before = dt.datetime.now(dt.UTC)
    async with open_spool("queue") as spool:
        queue_id = await put(spool, "ben@example.com", "carla@example.com", client=client)
        await run_once(spool, delivery)
        await run_once(spool, delivery, ids=[queue_id])
    first, second = delivery.said
    known = {
        "PEERHOST": "mail.example",
        "PEERADDR": ip_address("192.0.2.1"),
        "IDENT": "anna",
        "HELO": "client.example",
        "MIMETYPE": "8BITMIME",
        "FROM": ANNA,
        "TO": ["ben@example.com", "carla@example.com"],
        "ID": queue_id,
        "TEXTFILE": len(OCTETS),
    }
    assert known.items() <= first.items()
    assert (first["ERROR"], first["LASTRUN"]) == (None, None)
    assert second["ERROR"] == "TimeoutError"
    assert second["TIME"] == first["TIME"]
    for time in (second["TIME"], second["LASTRUN"]):
        assert isinstance(time, dt.datetime)
        assert before <= time <= dt.datetime.now(dt.UTC)


@section("Member data")
async def test_recipients(printed: Printed) -> None:
    """Of two recipients of whom one is served, `recipients` has the other, and the envelope has both."""
    assert "`attempt.envelope.recipients` are all" in SECTIONS[printed.title]
    attempts: list[Attempt] = []

    class First:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            attempts.append(attempt)
            return [Reply(250, "kept"), Reply(451, "not yet")][-len(attempt.recipients) :]

    async with open_spool("queue") as spool:
        queue_id = await put(spool, *BCC)
        await run_once(spool, First())
        await run_once(spool, First(), ids=[queue_id])
    assert [[str(recipient) for recipient in attempt.recipients] for attempt in attempts] == [[*BCC], [BCC[1]]]
    assert [str(recipient) for attempt in attempts for recipient in attempt.envelope.recipients] == [*BCC, *BCC]


@section("PEERHOST and IDENT")
async def test_lookups(printed: Printed, listener: socket.socket) -> None:
    """A server of that kind knows the name and the user of a client when mail comes."""
    make: Callable[[Intake, ClientLookup, ClientLookup], Server] = runpy.run_path(printed.program)["server"]
    intake = Memory()
    zone = {("1.0.0.127.in-addr.arpa.", "PTR"): ["mail.example."], ("mail.example.", "A"): ["127.0.0.1"]}

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(held.asked[-1][1].strip() + b":USERID:UNIX:anna\r\n")

    async with nameserver(from_zone(zone)) as names, service(answer) as held, trio.open_nursery() as nursery:
        server = make(intake, ReverseDns(nameservers=["127.0.0.1"], port=names.port), Ident(port=held.port))
        await nursery.start(server.serve, await listen(f"fd:{listener.fileno()}"))
        await trio.to_thread.run_sync(talk, listener)
        nursery.cancel_scope.cancel()
    assert [(client.host, client.ident) for client, _, _ in intake.taken] == [("mail.example", "anna")]


@section("PEERHOST and IDENT")
async def test_lookups_are_bounded(
    printed: Printed, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Where nobody answers, both together cost 5 seconds, as the page says."""
    assert "5 seconds at most, together" in SECTIONS[printed.title]

    async def silence(*_arguments: object, **_options: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("smtprecv.resolver.Resolver.records", silence)
    monkeypatch.setattr(trio, "open_tcp_stream", silence)
    here = ip_address("127.0.0.1")
    client = Client(SessionId("s"), here, 40000, local_address=here, local_port=25)
    began = trio.current_time()
    assert await Lookups(ReverseDns(nameservers=["127.0.0.1"]), Ident()).complete(client) == client
    assert trio.current_time() - began == pytest.approx(5)


async def refused(policy: Policy | None, *lines: tuple[str, str]) -> Memory:
    """Let a client say these lines and hear these replies, and give what was taken."""
    intake = Memory()
    async with dialogue(intake, policy) as (peer, _):
        for line, reply in lines:
            assert (await peer.ask(line)).startswith(reply)
    return intake


@section("check_rcptto")
async def test_rcpt(printed: Printed) -> None:
    """Relaying is denied, an address is replaced by two, and another stands as it is."""
    policy: Policy = runpy.run_path(printed.program)["policy"]
    intake = await refused(
        policy,
        *[(HELLO, "250"), (MAIL, "250"), ("RCPT TO:<ben@example.org>", "550 5.0.0 relaying denied, so go away!")],
        *[("RCPT TO:<staff@example.com>", "250"), ("RCPT TO:<carla@example.com>", "250")],
        *[("DATA", "354"), (".", "250")],
    )
    [(_, envelope, _)] = intake.taken
    named = "staff@example.com"
    assert [(str(recipient), str(recipient.original or "")) for recipient in envelope.recipients] == [
        ("anna@example.com", named),
        ("ben@example.com", named),
        ("carla@example.com", ""),
    ]


@section("check_mailfrom")
async def test_mail(printed: Printed) -> None:
    """One sender is refused, another is not."""
    policy: Policy = runpy.run_path(printed.program)["policy"]
    await refused(policy, (HELLO, "250"), ("MAIL FROM:<spam@example.org>", "553 5.0.0 not you"), (MAIL, "250"))


@section("checkaccess")
async def test_connect(printed: Printed) -> None:
    """A client from the network is sent away before the banner, others are greeted."""
    policy: Policy = runpy.run_path(printed.program)["policy"]
    greetings: list[str] = []
    for address in (ip_address("192.0.2.1"), ip_address("::1"), None):
        async with dialogue(Memory(), policy, client=Client(SessionId("s"), address, None)) as (peer, _):
            greetings.append(peer.greeting)
            with trio.fail_after(5):
                assert peer.greeting.startswith("220") or not await peer.hear()
    assert greetings == ["421 not today", "220 mx.example ESMTP", "220 mx.example ESMTP"]


@section("predeliver")
async def test_message(printed: Printed) -> None:
    """A message is refused with a code of the program's choice and not taken; the next one is."""
    policy: Policy = runpy.run_path(printed.program)["policy"]
    begin = [(MAIL, "250"), (RCPT, "250"), ("DATA", "354")]
    intake = await refused(
        policy, (HELLO, "250"), *begin, ("hello\r\n.", "500 5.0.0 relaying denied"), *begin, ("@myhost\r\n.", "250")
    )
    assert [octets for _, _, octets in intake.taken] == [b"@myhost\r\n"]


@section("prestart")
async def test_prestart(printed: Printed, listener: socket.socket) -> None:
    """What was read before the start decides over the first client's recipients."""
    main: Callable[[str], Awaitable[None]] = runpy.run_path(printed.program)["main"]
    (printed.folder / "domains").write_text("example.com\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(main, f"fd:{listener.fileno()}")
        denied = await trio.to_thread.run_sync(talk, listener)
        assert denied == {"carla@example.org": (550, b"5.7.1 relaying denied")}
        await delivered(printed.folder / "mail", 1)
        nursery.cancel_scope.cancel()


@section("server")
async def test_server(printed: Printed, listener: socket.socket) -> None:
    """A client that says nothing delays nobody: the next one's mail is delivered."""
    main: Callable[[str], Awaitable[None]] = runpy.run_path(printed.program)["main"]
    async with trio.open_nursery() as nursery:
        with socket.create_connection(listener.getsockname()):
            nursery.start_soon(main, f"fd:{listener.fileno()}")
            assert await trio.to_thread.run_sync(talk, listener) == {}
            await delivered(printed.folder / "mail", 2)
        nursery.cancel_scope.cancel()


async def delivered(maildir: Path, count: int) -> None:
    """Return when so many files are in a Maildir."""

    def is_there() -> bool:
        return len(list(maildir.glob("new/*"))) == count

    await trio.to_thread.run_sync(until, is_there, "the mail")


@pytest.mark.slow
@section("Settings")
async def test_settings(printed: Printed) -> None:
    """The server goes by the settings that the program names; HELP and faults are answered as the table says."""
    make: Callable[[Spool], Server] = runpy.run_path(printed.program)["server"]
    async with open_spool("queue") as spool, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(make(spool).talk, ours)
        peer = Peer(theirs)
        assert await peer.reply() == "220 mx.example.com ESMTP"
        await peer.say(HELLO)
        offers = await lines_of_reply(peer)
        assert "250-SIZE 20000000" in offers
        assert f"`{await peer.ask('HELP')}`" in SECTIONS["Settings"]
        assert await peer.ask(MAIL) == "250 2.1.0 sender ok"
        replies = [await peer.ask(f"RCPT TO:<{number}@example.com>") for number in (0, *range(10_000))]
        assert [reply[:3] for reply in replies] == ["250"] * 10_000 + ["452"]
        await theirs.aclose()

        await put(spool)
        await run_once(spool, Describing(describe_badly))
        [entry] = await left(spool)
        assert f"`{entry.standings[0].last}`" in SECTIONS["Settings"]


async def lines_of_reply(peer: Peer) -> list[str]:
    """Give the lines of the next reply."""
    lines = [await peer.hear()]
    while lines[-1][3:4] == "-":
        lines.append(await peer.hear())
    return lines


async def describe_badly(attempt: Attempt) -> dict[str, object]:
    """Raise."""
    raise TypeError


def test_defaults() -> None:
    """The defaults are those that the table names, and the arguments exist."""
    rows = [line.strip("| ").split(" | ") for line in SECTIONS["Settings"].splitlines() if line.startswith("|")]
    named = {row[0].strip("`"): row[-1] for row in rows}
    config = Config(own_hostname())
    options = parse_arguments(["serve", "--listen", "127.0.0.1:0", "--queue", "queue"])
    defaults = {
        "max_datalength": (config.max_message_size, options.max_message_size),
        "max_recipients": (config.max_recipients, options.max_recipients),
        "progname": (options.log_name,),
        "logfacility": (options.log_facility,),
    }
    assert {name: set(map(str, values)) for name, values in defaults.items()} == {
        name: {named[name]} for name in defaults
    }
    assert options.hostname == own_hostname()


@pytest.mark.e2e
@pytest.mark.slow
@section("Settings")
async def test_settings_of_the_command(printed: Printed) -> None:
    """The command goes by its arguments."""
    [output] = printed.commands()
    async with open_spool("queue", create=False) as spool:
        assert len(await left(spool)) == 1
    assert output.startswith("220 mx.example.com ESMTP\n250-mx.example.com\n")
    assert "\n250-SIZE 20000000\n" in output


def copies(folder: Path) -> list[str]:
    """Give the X-Envelope-To fields of the copies below a folder."""
    texts = [path.read_text() for path in folder.glob("*/new/*")]
    return sorted(field for text in texts for field in re.findall(r"^X-Envelope-To: (.*)$", text, re.MULTILINE))


@section("add_envelope")
async def test_envelope_to(printed: Printed) -> None:
    """Each copy names its own recipient, and no other."""
    delivery: Delivery = runpy.run_path(printed.program)["delivery"]
    async with open_spool("queue") as spool:
        await put(spool, *BCC)
        await run_once(spool, delivery)
    assert copies(printed.folder / "mail") == [*BCC]


@pytest.mark.e2e
@pytest.mark.slow
@section("add_envelope")
async def test_envelope_to_of_the_command(printed: Printed) -> None:
    """So does the command."""
    async with open_spool("queue") as spool:
        await put(spool, *BCC)
    assert printed.commands() == ["2 delivered, 0 deferred, 0 failed\n"]
    assert copies(printed.folder / "mail") == [*BCC]


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[socket.socket]:
    """Give the socket of a log daemon, at `log` in the test's folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        daemon.settimeout(10)
        yield daemon


@section("do_syslog and log")
async def test_log(printed: Printed, syslog: socket.socket) -> None:
    """A refusal is a line that names the program and the session."""
    log_to: Callable[[str], SysLogHandler] = runpy.run_path(printed.program)["log_to"]
    logger = logging.getLogger("smtprecv")
    level, handler = logger.level, log_to(str(printed.folder / "log"))
    try:
        await refused(AcceptDomains(["example.com"], "mx.example"), (HELLO, "250"), ("MAIL FROM:<a b>", "501"))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
    assert syslog.recv(1000).startswith(b"<22>mx: s1: ")


@pytest.mark.e2e
@pytest.mark.slow
@section("do_syslog and log")
def test_log_of_the_command(printed: Printed, syslog: socket.socket) -> None:
    """The command logs what it took to syslog, under the name that it was given."""
    [output] = printed.commands(syslog=f"syslog:{printed.folder / 'log'}")
    [queue_id] = re.findall(r"queued as (\S+)", output)
    assert re.fullmatch(rf"<22>mx\[\d+\]: \w+: from=<{ANNA}> .* {queue_id}", syslog.recv(1000).decode())


@section("process_only_one_message")
async def test_one_message(printed: Printed, listener: socket.socket) -> None:
    """The server ends by itself once it has a message."""
    receive_one: Callable[[str], Awaitable[None]] = runpy.run_path(printed.program)["receive_one"]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_one, f"fd:{listener.fileno()}")
            await trio.to_thread.run_sync(talk, listener)
    async with open_spool("queue") as spool:
        assert len(await left(spool)) == 1


@pytest.mark.e2e
@pytest.mark.slow
@section("process_only_one_message")
def test_one_message_of_the_command(printed: Printed) -> None:
    """The session of standard input has an end, and so has the command; its message is delivered by then."""
    [output] = printed.commands()
    assert "queued as" in output
    assert len(list((printed.folder / "mail" / "new").iterdir())) == 1


@section("runqueue")
async def test_runqueue(printed: Printed) -> None:
    """Named messages are tried, due or not; with no names, those that are due."""
    runqueue: Callable[[Sequence[QueueId] | None], Awaitable[Report]] = runpy.run_path(printed.program)["runqueue"]
    async with open_spool("queue") as spool:
        queue_id = await put(spool)
        await run_once(spool, Before())
    assert await runqueue(None) == Report()
    assert await runqueue([queue_id]) == Report(delivered=1)


@pytest.mark.e2e
@pytest.mark.slow
@section("runqueue")
async def test_runqueue_of_the_command(printed: Printed) -> None:
    """The command tries what is due."""
    async with open_spool("queue") as spool:
        await put(spool)
    assert printed.commands() == ["1 delivered, 0 deferred, 0 failed\n"]


@section("showqueue")
async def test_showqueue(printed: Printed) -> None:
    """The report has a line for each recipient, with the last error."""
    showqueue: Callable[[], Awaitable[list[str]]] = runpy.run_path(printed.program)["showqueue"]
    async with open_spool("queue") as spool:
        queue_id = await put(spool, *BCC)
        await run_once(spool, Describing(describe_badly))
    assert await showqueue() == [f"{queue_id} {address} pending TypeError" for address in BCC]


@pytest.mark.e2e
@pytest.mark.slow
@section("showqueue")
async def test_showqueue_of_the_command(printed: Printed) -> None:
    """Both reports of the command have the message."""
    async with open_spool("queue") as spool:
        queue_id = await put(spool)
    table, line = printed.commands()
    assert queue_id in table
    assert json.loads(line)["id"] == queue_id


@pytest.mark.slow
@section("What stayed behind")
def test_faults(printed: Printed) -> None:
    """The dialogue goes as it is printed."""
    runpy.run_path(printed.program)


@section("What stayed behind")
async def test_faults_of_a_server(printed: Printed) -> None:
    """Nor are they those of a server: it answers as printed, and knows the client's HELO at every message."""
    assert printed.title in SECTIONS
    sender = 'MAIL FROM:<"anna b"@example.com>'
    begin = [(sender, "250"), (RCPT, "250"), ("DATA", "354")]
    big = "\r\n".join(["x" * 900] * 120)
    intake = await refused(
        None,
        ("HELO client.example", "250 mx.example"),
        *[*begin, ("..one dot\r\n.", "250")],
        *[*begin, (f"{big}\r\n.", "552 5.3.4")],
        *[*begin, (".", "250")],
    )
    said = [(client.session.hello, str(envelope.reverse_path), octets) for client, envelope, octets in intake.taken]
    assert said == [("client.example", '"anna b"@example.com', octets) for octets in (b".one dot\r\n", b"")]
