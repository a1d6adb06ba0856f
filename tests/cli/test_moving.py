"""``smtprecv queue export`` and ``import``: what is moved, what is told, and with which status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from tests.cli.test_queue import NOBODY, entries, run
from tests.cli.test_showqueue import CLIENT, SENDER, fill, recipient

from smtprecv.message import QueueId
from smtprecv.protocol import Envelope, ReversePath
from smtprecv.spool import open_spool


@pytest.fixture
def ids(tmp_path: Path) -> list[QueueId]:
    """Put three messages into a queue: two from alice, for bob and for eve, and one from nobody for both."""
    return fill(
        tmp_path / "old",
        Envelope(SENDER, recipients=(recipient("bob"),)),
        Envelope(SENDER, recipients=(recipient("eve"),)),
        Envelope(ReversePath(None), recipients=(recipient("bob"), recipient("eve"))),
    )


def test_there_and_back(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is exported and removed from one queue and imported into a new one is there as it was."""
    old, new, out = tmp_path / "old", tmp_path / "new", tmp_path / "out"
    before = entries(old)
    assert run(old, "export", "--to", str(out), "--remove", "ALL") == 0
    assert run(old, "list") == 0
    assert run(new, "import", str(out)) == 0
    assert run(new, "import", str(out)) == 0
    assert run(new, "remove", ids[0]) == 0
    assert run(new, "import", "--remove", *[str(out / f"{queue_id}.json") for queue_id in ids]) == 0
    out_, err = capsys.readouterr()
    assert out_.splitlines() == [
        "3 exported",
        "queue is empty",
        "3 imported",
        "0 imported, 3 present",
        "1 removed",
        "1 imported, 2 present",
    ]
    told = [f"smtprecv queue: {out}/{each}.json: {each} is in the queue already: nothing is done" for each in ids]
    assert err.splitlines() == [*told, *told[1:]]
    assert sorted(path.name for path in out.iterdir()) == [
        f"{each}.{kind}" for each in ids[1:] for kind in ("eml", "json")
    ]
    assert entries(new) == before


@pytest.mark.parametrize(
    ("chosen", "moved"),
    [
        (["--sender", "<>"], [2]),
        (["--recipient", "bob@example.com"], [0, 2]),
        (["--limit", "1", "--domain", "example.com"], [0]),
        (["--older-than", "3650d"], []),
    ],
)
def test_filters(ids: list[QueueId], tmp_path: Path, chosen: list[str], moved: list[int]) -> None:
    """Messages are chosen as for the other verbs, and go whole."""
    assert run(tmp_path / "old", "export", "--to", str(tmp_path / "out"), "--remove", *chosen) == 0
    left = [ids[n] for n in range(3) if n not in moved]
    assert [entry.queue_id for entry in entries(tmp_path / "old")] == left
    if moved:
        assert sorted(path.stem for path in (tmp_path / "out").glob("*.json")) == [ids[n] for n in moved]


def test_which_wants_to_be_said(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export is told which messages; a verb without its folder or its files is status 2."""
    assert run(tmp_path / "old", "export", "--to", str(tmp_path / "out")) == 2
    assert "ALL stands for every message" in capsys.readouterr().err
    for arguments in (["export", "ALL"], ["import"]):
        with pytest.raises(SystemExit, match="2"):
            run(tmp_path / "old", *arguments)
    assert len(entries(tmp_path / "old")) == len(ids)


def test_busy_missing_and_occupied(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be exported is told, with status 1, and keeps the others from nothing."""
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{ids[1]}.eml").write_bytes(b"another")

    async def export() -> int:
        async with open_spool(tmp_path / "old") as spool:
            await spool.claim_ids(ids[:1])
            arguments = ("export", "--to", str(out), "--remove", *ids, NOBODY)
            return await trio.to_thread.run_sync(run, tmp_path / "old", *arguments)

    assert trio.run(export) == 1
    said, err = capsys.readouterr()
    assert said == "1 exported, 1 busy, 1 occupied, 1 missing\n"
    assert err.splitlines() == [
        f"smtprecv queue: {ids[0]} is being delivered right now: try again later",
        f"smtprecv queue: {ids[1]} is not written over what is there: {out}/{ids[1]}.eml is there, and is not the same",
        f"smtprecv queue: {NOBODY} is not in the queue",
    ]
    assert [entry.queue_id for entry in entries(tmp_path / "old")] == ids[:2]
    assert sorted(path.name for path in out.iterdir()) == sorted([f"{ids[1]}.eml", f"{ids[2]}.eml", f"{ids[2]}.json"])


def test_refused(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad pair is named with what is wrong, and is status 1; the others go in. Held, if that is asked for."""
    out, new = tmp_path / "out", tmp_path / "new"
    assert run(tmp_path / "old", "export", "--to", str(out), "ALL") == 0
    (out / f"{ids[0]}.eml").write_bytes(b"Subject: y\r\n\r\n")
    (out / "x.json").write_text('{"id": "\x1b"}')
    assert run(new, "import", "--hold", str(out), str(out / "none.json")) == 1
    said, err = capsys.readouterr()
    assert said == "3 exported\n2 imported, 3 refused\n"
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [str(out / n) for n in (f"{ids[0]}.json", "x.json", "none.json")]
    assert lines[0].endswith(
        "it was not imported: the .eml has other octets than were exported: its SHA-256 is another"
    )
    assert all(line.isprintable() for line in lines)
    assert [(entry.queue_id, entry.is_held) for entry in entries(new)] == [(ids[1], True), (ids[2], True)]


def test_for_programs(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json each message is an object."""
    out, new = tmp_path / "out", tmp_path / "new"
    assert run(tmp_path / "old", "export", "--json", "--to", str(out), ids[0], NOBODY) == 1
    (out / "x.json").touch()
    assert run(new, "import", "--json", str(out)) == 1
    first = out / f"{ids[0]}.json"
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"id": ids[0], "outcome": "exported", "reason": None},
        {"id": NOBODY, "outcome": "missing", "reason": None},
        {"file": str(first), "id": ids[0], "outcome": "imported", "reason": None},
        {
            "file": str(out / "x.json"),
            "id": None,
            "outcome": "refused",
            "reason": "Expecting value: line 1 column 1 (char 0)",
        },
    ]


def test_dry_runs(ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run names what would be moved, and touches neither queue nor files."""
    old, out = tmp_path / "old", tmp_path / "out"
    assert run(old, "export", "--dry-run", "--remove", "--to", str(out), "ALL") == 0
    assert not out.exists()
    assert run(old, "export", "--to", str(out), "--limit", "1", "ALL") == 0
    fill(tmp_path / "new")
    assert run(tmp_path / "new", "import", "--dry-run", "--remove", str(out)) == 0
    assert run(tmp_path / "none", "import", "--dry-run", str(out)) == 1
    assert capsys.readouterr().out.splitlines() == [
        *ids, "3 would be exported", "1 exported", ids[0], "1 would be imported",
    ]  # fmt: skip
    assert (len(entries(old)), entries(tmp_path / "new"), len(list(out.iterdir()))) == (3, [], 2)
    assert not (tmp_path / "none").exists()


def test_files_that_cannot_be_removed(
    ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was imported and whose files stay is told, with status 1: it would be imported again."""

    def fail(*_: object) -> None:
        msg = "read-only"
        raise OSError(msg)

    assert run(tmp_path / "old", "export", "--to", str(tmp_path / "out"), ids[0]) == 0
    monkeypatch.setattr("smtprecv.moving._import.remove", fail)
    assert run(tmp_path / "new", "import", "--remove", str(tmp_path / "out")) == 1
    path = tmp_path / "out" / f"{ids[0]}.json"
    assert capsys.readouterr() == (
        "1 exported\n1 imported\n",
        f"smtprecv queue: {path}: it was imported: its files were not removed: read-only\n",
    )


def test_progress(
    ids: list[QueueId], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both show on a terminal how far they are."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("smtprecv.cli._progress._MANY", 1)
    monkeypatch.setattr("smtprecv.cli._progress._PAUSE", 0)
    assert run(tmp_path / "old", "export", "--to", str(tmp_path / "out"), "ALL") == 0
    assert "3 of 3" in capsys.readouterr().err
    assert run(tmp_path / "new", "import", str(tmp_path / "out")) == 0
    assert f"{len(ids)} of 3" in capsys.readouterr().err
    assert {entry.client for entry in entries(tmp_path / "new")} == {CLIENT}
