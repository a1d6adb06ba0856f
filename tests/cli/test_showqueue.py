"""``smtprecv showqueue``: people and programs see all of the queue, and nothing in it harms their terminal."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio

from smtprecv.cli import main
from smtprecv.cli._showqueue import json_line, json_object, table_lines
from smtprecv.deliveries import Maildir
from smtprecv.delivery import Attempt
from smtprecv.message import Client, QueueId, SessionId
from smtprecv.protocol import (
    ByMode,
    DeliverBy,
    Dialect,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Mailbox,
    MailParameters,
    Notify,
    OriginalRecipient,
    RcptParameters,
    Recipient,
    Reply,
    Ret,
    ReversePath,
    Session,
    Tls,
    Xtext,
)
from smtprecv.spool import Entry, Standing, Status, open_spool

NOW = dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
SENDER = ReversePath(Mailbox("alice", Domain("example.net")))
CLIENT = Client(
    SessionId("s"),
    IPv4Address("192.0.2.1"),
    40000,
    Session("mail.example.net", is_extended=True),
    "mail.example.net",
    "alice",
)


def recipient(local_part: str) -> Recipient:
    """Give a recipient at example.com."""
    return Recipient(ForwardPath(Mailbox(local_part, Domain("example.com"))))


ENTRY = Entry(
    queue_id=QueueId("0123456789abcdefghij"),
    received=NOW,
    client=CLIENT,
    envelope=Envelope(SENDER, recipients=(recipient("bob"), recipient("eve"), recipient("\u90f5\u4ef6"))),
    size=4096,
    standings=(
        Standing(recipient("bob"), Status.DELIVERED, 1, Reply(250, "ok", EnhancedStatus(2, 0, 0))),
        Standing(recipient("eve"), Status.PENDING, 2, Reply(451, "disk\x1b[2J")),
        Standing(recipient("\u90f5\u4ef6")),
    ),
    due=NOW + dt.timedelta(minutes=5),
    attempted=NOW,
    error="Boom\nforged",
)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the local time to UTC."""
    monkeypatch.setenv("TZ", "UTC")


def fill(folder: Path, *envelopes: Envelope) -> list[QueueId]:
    """Put messages into a queue, and give their names."""

    async def accept() -> list[QueueId]:
        queue_ids: list[QueueId] = []
        async with open_spool(folder) as spool:
            for envelope in envelopes:
                draft = await spool.begin(NOW)
                await draft.write(b"Subject: x\r\n\r\n")
                queue_ids.append((await draft.commit(CLIENT, envelope, NOW)).queue_id)
        return queue_ids

    return trio.run(accept)


@pytest.mark.usefixtures("utc")
def test_table() -> None:
    """A message is a line, and each recipient one below it: status, attempts, next attempt, address, last reply."""
    assert list(table_lines(ENTRY)) == [
        "0123456789abcdefghij      4.0K  2026-02-03 04:05:06  alice@example.net",
        "  delivered         1  -                    bob@example.com   250 2.0.0 ok",
        "  pending           2  2026-02-03 04:10:06  eve@example.com   451 disk?[2J: Boom\\nforged",
        "  pending           0  2026-02-03 04:10:06  \u90f5\u4ef6@example.com",
    ]


@pytest.mark.usefixtures("utc")
def test_the_error_of_a_message_that_was_given_up_stays_visible() -> None:
    """A recipient given up after an exception shows it; one that was refused before, or served, does not."""
    refused = Standing(recipient("amy"), Status.FAILED, 1, Reply(550, "no", EnhancedStatus(5, 1, 1)))
    given_up = replace(ENTRY, standings=(*ENTRY.standings[:2], refused)).given_up()

    assert list(table_lines(given_up))[1:] == [
        "  delivered         1  -                    bob@example.com  250 2.0.0 ok",
        "  failed            2  -                    eve@example.com  451 disk?[2J: Boom\\nforged",
        "  failed            1  -                    amy@example.com  550 5.1.1 no",
    ]


@pytest.mark.parametrize(("size", "expected"), [(0, "0"), (1023, "1023"), (1024, "1.0K"), (31_457_280, "30.0M")])
def test_size(size: int, expected: str) -> None:
    """Sizes are short."""
    [line] = table_lines(replace(ENTRY, size=size, standings=()))
    assert line.split()[1] == expected


def test_null_reverse_path() -> None:
    """The null reverse-path can be seen."""
    [line] = table_lines(replace(ENTRY, envelope=Envelope(ReversePath(None)), standings=()))
    assert line.endswith("  <>")


def test_json() -> None:
    """A program gets all of it: times with an offset, replies in their parts."""
    assert json.loads(json.dumps(json_object(ENTRY))) == {
        "id": "0123456789abcdefghij",
        "size": 4096,
        "arrival": "2026-02-03T04:05:06+00:00",
        "sender": "alice@example.net",
        "body": "7BIT",
        "smtputf8": False,
        "ret": None,
        "envid": None,
        "deliver_by": None,
        "priority": 0,
        "require_tls": False,
        "auth": None,
        "client": {
            "address": "192.0.2.1",
            "port": 40000,
            "host": "mail.example.net",
            "ident": "alice",
            "dialect": "SMTP",
            "hello": "mail.example.net",
            "tls": None,
            "identity": None,
        },
        "last_attempt": "2026-02-03T04:05:06+00:00",
        "next_attempt": "2026-02-03T04:10:06+00:00",
        "held": False,
        "warned": None,
        "report_of": None,
        "error": "Boom\nforged",
        "note_size": None,
        "recipients": [
            {
                "address": "bob@example.com",
                "original": None,
                "notify": None,
                "orcpt": None,
                "status": "delivered",
                "attempts": 1,
                "last_reply": {"code": 250, "status": "2.0.0", "text": "ok"},
                "next_attempt": None,
            },
            {
                "address": "eve@example.com",
                "original": None,
                "notify": None,
                "orcpt": None,
                "status": "pending",
                "attempts": 2,
                "last_reply": {"code": 451, "status": None, "text": "disk\x1b[2J"},
                "next_attempt": "2026-02-03T04:10:06+00:00",
            },
            {
                "address": "\u90f5\u4ef6@example.com",
                "original": None,
                "notify": None,
                "orcpt": None,
                "status": "pending",
                "attempts": 0,
                "last_reply": None,
                "next_attempt": "2026-02-03T04:10:06+00:00",
            },
        ],
    }


@pytest.mark.usefixtures("utc")
def test_a_redirected_recipient_is_shown_with_its_original() -> None:
    """The operator sees where mail goes, and for whom the sender meant it."""
    redirected = Standing(replace(recipient("bob"), original=ForwardPath(Mailbox("list", Domain("example.com")))))
    entry = replace(ENTRY, standings=(redirected,))

    assert list(table_lines(entry))[1].endswith("bob@example.com (for list@example.com)")
    assert '"original": "list@example.com"' in json.dumps(json_object(entry))


EVERYTHING = MailParameters(
    ret=Ret.HDRS,
    envid=Xtext("qP7+2Bz"),
    deliver_by=DeliverBy(120, ByMode.RETURN, is_traced=True),
    priority=-3,
    require_tls=True,
    auth="",
)


def test_parameters_in_the_table() -> None:
    """What the sender asked for stands behind it where it changes when or how the message goes, and only there."""
    entry = replace(ENTRY, envelope=replace(ENTRY.envelope, parameters=EVERYTHING), standings=())
    [line] = table_lines(entry)
    assert line.endswith("alice@example.net  priority -3  by 120;RT  requiretls")
    [line] = table_lines(replace(entry, envelope=replace(entry.envelope, parameters=MailParameters(envid=Xtext("x")))))
    assert line.endswith("alice@example.net")


def test_parameters_in_json() -> None:
    """A program gets every parameter: an ENVID and an ORCPT as they came, an empty NOTIFY for NEVER."""
    orcpt = OriginalRecipient("RFC822", Xtext("Bob+2Bx@example.com"))
    standings = tuple(
        Standing(replace(recipient("bob"), parameters=parameters))
        for parameters in (
            RcptParameters(frozenset(), orcpt),
            RcptParameters(frozenset({Notify.FAILURE, Notify.DELAY})),
        )
    )
    shown = json_object(replace(ENTRY, envelope=replace(ENTRY.envelope, parameters=EVERYTHING), standings=standings))
    read = json.loads(json.dumps(shown))
    assert {key: read[key] for key in ("ret", "envid", "deliver_by", "priority", "require_tls", "auth")} == {
        "ret": "HDRS",
        "envid": "qP7+2Bz",
        "deliver_by": "120;RT",
        "priority": -3,
        "require_tls": True,
        "auth": "",
    }
    assert [(each["notify"], each["orcpt"]) for each in read["recipients"]] == [
        ([], "RFC822;Bob+2Bx@example.com"),
        (["DELAY", "FAILURE"], None),
    ]


def test_a_client_in_json() -> None:
    """A program gets what is known of the client, its TLS with the name in its certificate."""
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "mail.example.net")
    session = Session("mail.example.net", is_extended=True, identity="bob", tls=tls, dialect=Dialect.LMTP)
    shown = json_object(replace(ENTRY, client=replace(CLIENT, session=session, ident="root")))
    assert json.loads(json.dumps(shown))["client"] == {
        "address": "192.0.2.1",
        "port": 40000,
        "host": "mail.example.net",
        "ident": "root",
        "dialect": "LMTP",
        "hello": "mail.example.net",
        "tls": {
            "version": "TLSv1.3",
            "cipher": "TLS_AES_256_GCM_SHA384",
            "bits": 256,
            "client_name": "mail.example.net",
        },
        "identity": "bob",
    }


EVIL = "\x1b]0;x\x07\x7f\x9b2J\u202e\r\n"


SPOILT = Envelope(
    SENDER,
    MailParameters(envid=Xtext(EVIL), auth=EVIL, priority=1),
    (
        Recipient(
            ForwardPath(Mailbox(EVIL, Domain("example.com"))),
            ForwardPath(Mailbox(EVIL, Domain("example.com"))),
            RcptParameters(None, OriginalRecipient(EVIL, Xtext(EVIL))),
        ),
    ),
)


def test_nothing_unescaped_reaches_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands in a parameter or is known of a client, neither form moves the cursor or forges a line."""
    client = Client(
        SessionId("s"), None, None, Session(EVIL, identity=EVIL, tls=Tls(EVIL, EVIL, 1, EVIL)), host=EVIL, ident=EVIL
    )
    spoilt = replace(
        ENTRY,
        client=client,
        envelope=replace(SPOILT, reverse_path=ReversePath(Mailbox(EVIL, Domain("example.com")))),
        standings=tuple(Standing(each, last=Reply(451, EVIL)) for each in SPOILT.recipients),
        error=EVIL,
    )
    for line in (*table_lines(spoilt), json_line(json_object(spoilt))):
        assert line.isprintable()
    assert json.loads(json_line(json_object(spoilt)))["client"]["ident"] == EVIL

    fill(tmp_path, replace(ENTRY.envelope, parameters=EVERYTHING))
    for form in ([], ["--json"]):
        assert main(["showqueue", "--queue", str(tmp_path), *form]) == 0
        assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_the_delivery_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a killed process had delivered without a record is shown as delivered, and what can't be asked as it was."""
    (queue_id,) = fill(tmp_path / "q", Envelope(SENDER, recipients=(recipient("bob"), recipient("eve"))))
    maildir = f"maildir:{tmp_path}/m/{{local_part}}"
    (tmp_path / "m").mkdir()
    trio.run(deliver_without_a_record, tmp_path / "q", f"{tmp_path}/m/{{local_part}}", recipient("bob"))

    assert main(["showqueue", "--queue", str(tmp_path / "q"), "--deliver", maildir, "--json", queue_id]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["status"] for each in shown["recipients"]] == ["delivered", "pending"]

    (tmp_path / "m" / "eve").write_text("")
    assert main(["showqueue", "--queue", str(tmp_path / "q"), "--deliver", maildir, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["recipients"][0]["status"] == "pending"
    assert "Not a directory" in err


async def deliver_without_a_record(folder: Path, template: str, to: Recipient) -> None:
    """Deliver to one recipient as a process does that dies right then."""
    async with open_spool(folder) as spool:
        (claim,) = await spool.claim(NOW, 1)
        only = replace(claim.entry, standings=(Standing(to),))
        await Maildir(template).deliver(Attempt(only, claim.message))


def test_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """The help tells the keys of an object, and those of its client and its recipients."""
    with pytest.raises(SystemExit):
        main(["showqueue", "--help"])
    shown = json.loads(json.dumps(json_object(ENTRY)))
    words = set(re.findall(r"\w+", capsys.readouterr().out.partition("The keys")[2]))
    assert {*shown, *shown["client"], *shown["recipients"][0]} <= words


def test_json_without_an_address() -> None:
    """A client that has no address and a message that waits for nothing have null in these places."""
    shown = json_object(replace(ENTRY, client=Client(SessionId("s"), None, None), due=None, attempted=None))
    assert isinstance(shown, dict)
    assert (shown["last_attempt"], shown["next_attempt"]) == (None, None)
    assert '"address": null' in json.dumps(shown)


def test_no_queue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a queue is status 1 and one line; nothing is made there."""
    for folder in (tmp_path, tmp_path / "q"):
        assert main(["showqueue", "--queue", str(folder)]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert str(folder) in err
    assert list(tmp_path.iterdir()) == []


def test_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty queue says so to people, and nothing to programs."""
    fill(tmp_path / "q")
    assert main(["showqueue", "--queue", str(tmp_path / "q")]) == 0
    assert main(["showqueue", "--json", "--queue", str(tmp_path / "q")]) == 0
    assert capsys.readouterr() == ("queue is empty\n", "")


def shown_ids(out: str) -> list[str]:
    """Give the messages in a table."""
    return [line.split()[0] for line in out.splitlines() if not line.startswith((" ", "ID"))]


def test_all_and_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All messages are shown, or those named; a name that is not there is status 1 and a line."""
    ids = fill(tmp_path, *[Envelope(SENDER, recipients=(recipient("bob"),))] * 3)
    command: Sequence[str] = ["showqueue", "--queue", str(tmp_path)]
    assert main(command) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("ID ")
    assert shown_ids(out) == ids
    assert main([*command, ids[1], "0" * 20]) == 1
    out, err = capsys.readouterr()
    assert shown_ids(out) == [ids[1]]
    assert err == f"smtprecv showqueue: {'0' * 20} is not in the queue\n"


def testjson_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json each line is an object, in ASCII."""
    ids = fill(tmp_path, *[Envelope(SENDER, recipients=(recipient("\u90f5"),))] * 2)
    assert main(["showqueue", "--queue", str(tmp_path), "--json"]) == 0
    out, _ = capsys.readouterr()
    assert out.isascii()
    assert [json.loads(line)["id"] for line in out.splitlines()] == ids


def test_terminal_width(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal no line is wrapped."""
    fill(tmp_path, Envelope(SENDER, recipients=(recipient("b" * 64),)))
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["showqueue", "--queue", str(tmp_path)])
    out, _ = capsys.readouterr()
    assert max(map(len, out.splitlines())) == 60


def test_any_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes to whatever a program has put in the place of standard output."""
    fill(tmp_path)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["showqueue", "--queue", str(tmp_path)]) == 0
    assert stream.getvalue() == "queue is empty\n"


@pytest.mark.slow
@pytest.mark.e2e
def test_nobody_reads(tmp_path: Path) -> None:
    """When the reader goes away, the command ends as others do: quietly."""
    fill(tmp_path, Envelope(SENDER, recipients=(recipient("bob"),)))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "smtprecv", "showqueue", "--queue", str(tmp_path)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
