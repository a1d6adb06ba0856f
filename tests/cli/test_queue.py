"""``smtprecv queue``: messages are looked at and steered, and nothing happens to one that was not meant."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.cli.test_showqueue import ENTRY, EVIL, SENDER, fill, recipient
from tests.spool.spoolhouse import ask

from smtprecv.cli import main
from smtprecv.cli._progress import Progress, progress
from smtprecv.cli._queue import detail_lines
from smtprecv.message import QueueId
from smtprecv.protocol import Envelope, Reply, ReversePath
from smtprecv.spool import Entry, Note, Standing, Status, all_entries, open_spool

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000
NOBODY = "0" * 20


def entries(folder: Path) -> list[Entry]:
    """Give what is in a queue."""

    async def look() -> list[Entry]:
        async with open_spool(folder) as spool:
            return [entry async for entry in all_entries(spool)]

    return trio.run(look)


def run(folder: Path, *arguments: str) -> int:
    """Run a verb."""
    verb, *rest = arguments
    return main(["queue", verb, "--queue", str(folder), *rest])


@pytest.fixture
def ids(tmp_path: Path) -> list[QueueId]:
    """Put three messages into a queue: two from alice, for bob and for eve, and one from nobody for both."""
    return fill(
        tmp_path,
        Envelope(SENDER, recipients=(recipient("bob"),)),
        Envelope(SENDER, recipients=(recipient("eve"),)),
        Envelope(ReversePath(None), recipients=(recipient("bob"), recipient("eve"))),
    )


def listed(out: str) -> list[str]:
    """Give the messages in a table."""
    return [line.split()[0] for line in out.splitlines() if not line.startswith((" ", "ID"))]


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        ([], [0, 1, 2]),
        (["--limit", "2"], [0, 1]),
        (["--sender", "Alice@example.net"], [0, 1]),
        (["--sender", "<>"], [2]),
        (["--recipient", "bob@example.com"], [0, 2]),
        (["--recipient", "bob@example.com", "--recipient", "eve@example.com"], [0, 1, 2]),
        (["--sender", "<>", "--recipient", "eve@example.com"], [2]),
        (["--domain", "EXAMPLE.com"], [0, 1, 2]),
        (["--domain", "example.net"], []),
        (["--status", "pending"], [0, 1, 2]),
        (["--status", "failed"], []),
        (["--status", "held"], []),
        (["--older-than", "1s"], [0, 1, 2]),
        (["--older-than", "3650d"], []),
    ],
)
def test_list(
    ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str], filters: list[str], chosen: list[int]
) -> None:
    """What passes every filter is listed, for people and for programs."""
    assert run(tmp_path, "list", *filters) == 0
    assert listed(capsys.readouterr().out) == [ids[n] for n in chosen]
    assert run(tmp_path, "list", "--json", *filters) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [ids[n] for n in chosen]


def test_list_named(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is named and not there is told, and status 1; what is there and filtered out is not missing."""
    assert run(tmp_path, "list", ids[1], NOBODY) == 1
    out, err = capsys.readouterr()
    assert listed(out) == [ids[1]]
    assert err == f"smtprecv queue: {NOBODY} is not in the queue\n"
    assert run(tmp_path, "list", ids[1], "--sender", "<>") == 0


def test_list_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty queue says so; a folder without one is status 1 and one line."""
    assert run(tmp_path / "none", "list") == 1
    assert capsys.readouterr().err.count("\n") == 1
    fill(tmp_path)
    assert run(tmp_path, "list") == 0
    assert capsys.readouterr().out == "queue is empty\n"


def test_show(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is known of one message is shown, a fact a line or as an object."""
    assert run(tmp_path, "show", ids[2]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"id: {ids[2]}" in lines
    assert "sender:" in lines
    assert "  address: 192.0.2.1" in lines
    assert "  address: eve@example.com" in lines
    assert run(tmp_path, "show", "--json", ids[2]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == ids[2]
    assert run(tmp_path, "show", NOBODY) == 1
    assert capsys.readouterr() == ("", f"smtprecv queue: {NOBODY} is not in the queue\n")


def test_show_harms_no_terminal() -> None:
    """Whatever a stranger wrote is shown escaped; of a note only its size is told, for it is the delivery's own."""
    spoilt = replace(
        ENTRY,
        client=replace(ENTRY.client, ident=EVIL, host=EVIL),
        standings=(Standing(recipient("bob"), last=Reply(451, EVIL)),),
        error=EVIL,
        note=Note(1, "secret"),
    )
    lines = list(detail_lines(spoilt))
    assert [line for line in lines if not line.isprintable()] == []
    assert "note_size: 6" in lines
    assert "secret" not in "".join(lines)


def test_cat(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The octets of a message are written as they came, small or large, also while it is being delivered."""

    async def accept() -> tuple[QueueId, int]:
        async with open_spool(tmp_path) as spool:
            draft = await spool.begin(ENTRY.received)
            await draft.write(LARGE)
            entry = await draft.commit(ENTRY.client, ENTRY.envelope, ENTRY.received)
            await spool.claim_ids([entry.queue_id])
            status = await trio.to_thread.run_sync(run, tmp_path, "cat", entry.queue_id)
            return entry.queue_id, status

    (small,) = fill(tmp_path, ENTRY.envelope)
    assert run(tmp_path, "cat", small) == 0
    assert capfdbinary.readouterr().out == b"Subject: x\r\n\r\n"
    large, status = trio.run(accept)
    assert (status, capfdbinary.readouterr().out) == (0, LARGE)
    assert run(tmp_path, "cat", NOBODY) == 1
    assert capfdbinary.readouterr() == (b"", f"smtprecv queue: {NOBODY} is not in the queue\n".encode())
    (body,) = (tmp_path / "bodies").iterdir()
    body.unlink()
    assert run(tmp_path, "cat", large) == 1
    assert capfdbinary.readouterr().err == b"smtprecv queue: its body is missing or not whole\n"


@pytest.mark.parametrize("verb", ["hold", "release", "retry", "redirect", "remove", "flush"])
def test_all_wants_to_be_said(
    ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """What changes messages does nothing unless it is told which, and is status 2."""
    before = entries(tmp_path)
    to = ["--to", "new@example.org"] if verb == "redirect" else []
    assert run(tmp_path, verb, *to) == 2
    assert "ALL stands for every message" in capsys.readouterr().err
    assert entries(tmp_path) == before
    assert len(ids) == 3


def test_hold_and_release(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hold outlives the command, is seen, and ends by a release; who named a message hears that nothing was done."""
    assert run(tmp_path, "hold", ids[0]) == 0
    assert run(tmp_path, "hold", "ALL") == 0
    assert run(tmp_path, "release", "--status", "held", "--recipient", "eve@example.com") == 0
    assert capsys.readouterr().out.splitlines() == ["1 held", "2 held, 1 unchanged", "2 released"]
    assert [entry.is_held for entry in entries(tmp_path)] == [True, False, False]
    assert run(tmp_path, "list", "--status", "held") == 0
    assert capsys.readouterr().out.splitlines()[2].endswith("alice@example.net  held")
    assert run(tmp_path, "release", ids[1]) == 0
    assert capsys.readouterr().err.startswith(f"smtprecv queue: {ids[1]} stays as it is")


def test_remove(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is removed is gone; of a message for several only the recipients that were chosen."""
    assert run(tmp_path, "remove", "--dry-run", "--recipient", "bob@example.com") == 0
    assert capsys.readouterr().out.splitlines() == [ids[0], ids[2], "2 would be removed"]
    assert len(entries(tmp_path)) == 3
    assert run(tmp_path, "remove", "--recipient", "bob@example.com") == 0
    assert [[str(each.recipient) for each in entry.standings] for entry in entries(tmp_path)] == [
        ["eve@example.com"],
        ["eve@example.com"],
    ]
    assert run(tmp_path, "remove", "ALL", "--limit", "1") == 0
    assert [entry.queue_id for entry in entries(tmp_path)] == [ids[2]]


def test_retry_and_flush(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both make what waits due now; only retry revives what has failed."""

    async def fail() -> None:
        async with open_spool(tmp_path) as spool:
            for claim in await spool.claim_ids(ids[:2]):
                await spool.record(claim.entry.given_up(Reply(550, "no")))

    trio.run(fail)
    assert run(tmp_path, "flush", "ALL") == 0
    assert [entry.due is None for entry in entries(tmp_path)] == [True, True, False]
    assert run(tmp_path, "retry", "--status", "failed", "--recipient", "bob@example.com") == 0
    assert capsys.readouterr().out.splitlines() == ["1 due now, 2 unchanged", "1 due now"]
    states = [[each.status for each in entry.standings] for entry in entries(tmp_path)]
    assert states == [[Status.PENDING], [Status.FAILED], [Status.PENDING] * 2]
    assert all(entry.due is None or entry.due > ENTRY.received for entry in entries(tmp_path))


def test_redirect(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A message goes elsewhere, and the list says for whom the sender meant it."""
    assert run(tmp_path, "redirect", "--to", "new@example.org", ids[1]) == 0
    assert run(tmp_path, "list", ids[1]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 redirected\n")
    assert "new@example.org (for eve@example.com)" in out
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "redirect", "--to", "nobody", ids[1])


def test_busy_and_missing(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody is delivering is left to him, with a word; so is what is not there. Status 1."""

    async def steer() -> tuple[int, int]:
        async with open_spool(tmp_path) as spool:
            await spool.claim_ids(ids[:1])
            by_word = await trio.to_thread.run_sync(run, tmp_path, "remove", ids[0], NOBODY)
            return by_word, await trio.to_thread.run_sync(run, tmp_path, "hold", "--json", "ALL")

    assert trio.run(steer) == (1, 1)
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"smtprecv queue: {ids[0]} is being delivered right now: try again later",
        f"smtprecv queue: {NOBODY} is not in the queue",
    ]
    said, *lines = out.splitlines()
    assert said == "0 removed, 1 busy, 1 missing"
    assert [json.loads(line) for line in lines] == [
        {"id": ids[0], "outcome": "busy"},
        {"id": ids[1], "outcome": "changed"},
        {"id": ids[2], "outcome": "changed"},
    ]
    assert len(entries(tmp_path)) == 3


def test_verify(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound queue is status 0; each fault in it is a line, and status 1."""

    async def accept() -> QueueId:
        async with open_spool(tmp_path) as spool:
            draft = await spool.begin(ENTRY.received)
            await draft.write(LARGE)
            return (await draft.commit(ENTRY.client, ENTRY.envelope, ENTRY.received)).queue_id

    large = trio.run(accept)
    assert run(tmp_path, "verify") == 0
    assert capsys.readouterr().out == "4 messages, 0 faults\n"
    (body,) = (tmp_path / "bodies").iterdir()
    stray = body.with_name(f"{'0' * 16}.{NOBODY}")
    body.rename(stray)
    ask(tmp_path, "UPDATE smtprecv_message SET parameters = 'x' || char(27) WHERE id = ?", ids[0])
    ask(tmp_path, "UPDATE smtprecv_body SET octets = x'00' WHERE message = 2")
    ask(tmp_path, "INSERT INTO smtprecv_body VALUES (99, x'00')")
    assert run(tmp_path, "verify") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        "the database",
        ids[0],
        ids[1],
        large,
        f"bodies/{stray.name}",
    ]
    assert lines[0].endswith("1 rows of body belong to no message")
    assert lines[-1] == "4 messages, 5 faults"
    assert all(line.isprintable() for line in lines)


def test_verify_tells_what_was_set_aside(
    ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the queue could not read and has set aside is not forgotten."""

    async def claim() -> None:
        async with open_spool(tmp_path) as spool:
            assert len(await spool.claim_ids(ids)) == 2

    ask(tmp_path, "UPDATE smtprecv_message SET client = 'x' WHERE id = ?", ids[0])
    trio.run(claim)
    assert run(tmp_path, "verify") == 1
    line, total = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{ids[0]}: set aside: ")
    assert total == "2 messages, 1 faults"


def test_verify_a_database_that_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What SQLite finds in its own file is told."""
    (queue_id,) = fill(tmp_path, ENTRY.envelope)
    connection = sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'held = 0', 'held = 1') WHERE name = 'smtprecv_due'"
    )
    connection.close()
    assert run(tmp_path, "verify") == 1
    assert "the database: " in capsys.readouterr().out
    assert len(queue_id) == 20


async def test_progress(capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock) -> None:
    """A bar is drawn ten times a second at most, shows how far it is, and leaves an empty line."""
    bar = Progress(1000, is_shown=True)
    bar.advance(250)
    bar.advance(1)
    autojump_clock.jump(1)
    bar.advance(749)
    drawn = capsys.readouterr().err
    assert drawn == f"\r[{'#' * 7}{'-' * 23}]  25% 250 of 1000\r[{'#' * 30}] 100% 1000 of 1000"
    bar.advance(1)
    bar.erase()
    assert re.fullmatch(r"\r +\r", capsys.readouterr().err)
    bar.erase()
    assert capsys.readouterr().err == ""


async def test_no_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No bar is drawn for a few messages, nor where standard error is no terminal."""
    with progress(1000) as shown:
        shown.advance(500)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress(10) as shown:
        shown.advance(5)
    assert capsys.readouterr().err == ""
    with progress(1000) as shown:
        shown.advance(500)
    assert "500 of 1000" in capsys.readouterr().err


def test_progress_of_a_command(
    ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command on a terminal shows its bar there, and nothing of it on standard output."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("smtprecv.cli._progress._MANY", 1)
    assert run(tmp_path, "hold", "ALL") == 0
    out, err = capsys.readouterr()
    assert out == "3 held\n"
    assert f"{len(ids)} of 3" in err
