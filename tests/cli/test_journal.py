"""``smtprecv queue show``: the journal of a message, for people and for programs."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.cli.test_showqueue import ENTRY, EVIL, fill

from smtprecv.cli import main
from smtprecv.cli._journal import journal_lines, json_journal
from smtprecv.protocol import Reply
from smtprecv.spool import Answered, Tried, open_spool

STARTED = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
JOURNAL = (
    Tried.of(
        STARTED,
        dt.timedelta(milliseconds=120),
        [("bob@example.com", "451 later"), ("c@example.com", "250 ok"), ("dan@example.com", "451 later")],
    ),
    Tried(
        STARTED + dt.timedelta(minutes=5),
        dt.timedelta(minutes=5),
        30,
        (Answered("451 4.3.0 local error in delivery", ("bob@example.com",), 25),),
        "OSError: why not",
    ),
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the local zone be UTC."""
    monkeypatch.setattr("smtprecv.cli._journal.local_time", lambda time: time.strftime("%Y-%m-%d %H:%M:%S"))


def test_lines() -> None:
    """An attempt is a line for each reply, aligned; what was not kept is counted, and an exception has its line."""
    assert list(journal_lines(JOURNAL)) == [
        "journal:",
        "  2026-03-01 12:00:00     0.120 s  bob@example.com, dan@example.com  451 later",
        "                                   c@example.com                     250 ok",
        "  2026-03-01 12:05:00   300.000 s  bob@example.com and 24 more       451 4.3.0 local error in delivery",
        "                                   5 more were answered in other ways",
        "                                   OSError: why not",
    ]


def test_lines_of_long_names() -> None:
    """Names beyond 40 columns push their own reply aside, and no other."""
    long = f"{'x' * 60}@example.com"
    tried = Tried.of(STARTED, dt.timedelta(), [(long, "451 later"), ("c@example.com", "250 ok")])
    _, first, second = journal_lines([tried])
    assert first.endswith(f"{long}  451 later")
    assert second.endswith(f"{'c@example.com':<40}  250 ok")


def test_lines_harm_no_terminal() -> None:
    """Whatever a stranger answered, or is called, is shown escaped."""
    tried = Tried.of(STARTED, dt.timedelta(), [(EVIL, f"451 {EVIL}")], EVIL)
    assert [line for line in journal_lines([tried]) if not line.isprintable()] == []


def test_nothing_tried() -> None:
    """A message that was never tried has an empty journal, which takes no line."""
    assert list(journal_lines([])) == []
    assert json_journal([]) == []


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`queue show` has the journal behind the facts, as lines or in the object."""
    (queue_id,) = fill(tmp_path, ENTRY.envelope)

    async def attempt() -> None:
        async with open_spool(tmp_path) as spool:
            (claim,) = await spool.claim_ids([queue_id])
            after = claim.entry.after([Reply(451, "later")] * len(claim.entry.pending), STARTED)
            await spool.record(replace(after, due=STARTED), JOURNAL[0])

    trio.run(attempt)
    show = ["queue", "show", "--queue", str(tmp_path), queue_id]
    assert main(show) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == list(journal_lines(JOURNAL[:1]))
    assert main([*show, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["id"] == queue_id
    assert shown["journal"] == [
        {
            "started": "2026-03-01T12:00:00+00:00",
            "took": 0.12,
            "recipients": 3,
            "answers": [
                {"reply": "451 later", "recipients": ["bob@example.com", "dan@example.com"], "count": 2},
                {"reply": "250 ok", "recipients": ["c@example.com"], "count": 1},
            ],
            "error": None,
        }
    ]
