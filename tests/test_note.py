"""Notes: a delivery's memory of a message, typed, versioned, and never in the way of mail."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.test_queue import LATER, OK, accept, now, one, spooling

from smtprecv.delivery import Attempt
from smtprecv.note import JsonNote, Notebook
from smtprecv.protocol import Reply
from smtprecv.queue import run_once
from smtprecv.retry import Backoff
from smtprecv.spool import Note

SOON = Backoff(first=dt.timedelta(seconds=1), longest=dt.timedelta(seconds=1), jitter=0)


@dataclass
class Tries:
    """The first form of the tests' note."""

    count: int


@dataclass
class Progress:
    """A later form of it."""

    count: int
    hosts: list[str] = field(default_factory=list)


def upgrade(version: int, fields: Mapping[str, object]) -> Mapping[str, object]:
    """Make the fields of Progress of those of Tries."""
    assert version == 1
    return {**fields, "hosts": ["old"]}


TRIES = JsonNote(Tries)
PROGRESS = JsonNote(Progress, version=2, upgrade=upgrade)


def test_a_note_comes_back_as_it_was() -> None:
    """What was saved is loaded, as the type that it was."""
    notebook = Notebook()
    assert notebook.load(PROGRESS) is None

    notebook.save(PROGRESS, Progress(2, ["a", "b"]))

    assert Notebook(notebook.note).load(PROGRESS) == Progress(2, ["a", "b"])


def test_an_older_note_is_upgraded() -> None:
    """The fields of an older version pass the upgrade; without one they are read as they are."""
    notebook = Notebook()
    notebook.save(TRIES, Tries(7))

    assert notebook.load(PROGRESS) == Progress(7, ["old"])
    assert notebook.load(JsonNote(Progress, version=2)) == Progress(7, [])


@pytest.mark.parametrize("text", ["", "no json", "[1]", "null", '{"count": 1, "unknown": 2}', "{}"])
def test_a_note_that_cannot_be_read_is_none(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """An undecodable note counts as none, and the log says so."""
    assert Notebook(Note(1, text)).load(TRIES) is None
    assert "cannot be read" in caplog.text


class Counting:
    """A delivery that fails twice, counting in its note, and raises where it is told to."""

    def __init__(self, *, raising: bool = False) -> None:
        """Begin."""
        self.seen: list[int] = []
        self.raising = raising

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Count this attempt, and succeed at the third."""
        await trio.lowlevel.checkpoint()
        tries = attempt.load(TRIES) or Tries(0)
        self.seen.append(tries.count)
        attempt.save(TRIES, Tries(tries.count + 1))
        if self.raising:
            msg = "after the note"
            raise ValueError(msg)
        return [OK if tries.count == 2 else LATER for _ in attempt.recipients]


@pytest.mark.parametrize("raising", [False, True])
async def test_a_note_is_stored_with_the_outcome(
    raising: bool,  # noqa: FBT001 - parametrized
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each attempt finds what the last one saved, an attempt that raised included, and so does a new process."""
    delivery = Counting(raising=raising)
    async with spooling(tmp_path) as spool:
        await accept(spool)
    for _ in range(3):
        async with spooling(tmp_path) as spool:
            await trio.sleep(10)
            await run_once(spool, delivery, SOON, now=now)

    assert delivery.seen == [0, 1, 2]
    async with spooling(tmp_path) as spool:
        assert len(await spool.entries()) == int(raising)


async def test_an_undecodable_note_stops_no_mail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """A note of a form that nobody knows any more is none, the log says whose, and the message is delivered."""

    class Foreign:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            attempt.save(JsonNote(Progress, version=9), Progress(0, ["x"]))
            return [LATER]

    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool)
        await run_once(spool, Foreign(), SOON, now=now)
        assert (await one(spool)).note is not None
        await trio.sleep(10)
        counting = Counting()
        await run_once(spool, counting, SOON, now=now)

        assert counting.seen == [0]
        assert f"{queue_id}: a note of version 9 cannot be read" in caplog.text


@pytest.mark.parametrize("version", ["v1", 2**63, -(2**63) - 1])
def test_a_note_that_cannot_be_stored_is_refused_at_once(version: int) -> None:
    """The delivery that saves it hears of it: the store could never record an outcome with it."""
    notebook = Notebook()
    with pytest.raises((TypeError, ValueError)):
        notebook.save(JsonNote(Tries, version=version), Tries(1))
    assert notebook.note is None


def test_a_note_must_be_text() -> None:
    """A codec that gives octets is refused at once too."""

    class Octets:
        version = 1

        def encode(self, note: Tries) -> str:
            return b"octets"  # type: ignore[return-value]  # the point is to return what is wrong

        def decode(self, version: int, text: str) -> Tries:
            raise NotImplementedError

    with pytest.raises(TypeError):
        Notebook().save(Octets(), Tries(1))
