"""A program whose delivery fails twice and counts its tries in a note, for tests/crash/test_note.py to kill.

It tries once what is in the queue, due or not, says so, and waits for its death. ``--version 2`` is the same
program after an upgrade: its notes have another form. With ``--hang`` no try ever ends.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from smtprecv import Attempt, Delivery, JsonNote, Reply, all_entries, open_spool, run_once


@dataclass
class First:
    """The first form of the note."""

    tries: int = 0


@dataclass
class Second:
    """The second form, in which the count has another name and a companion."""

    attempts: int = 0
    was_upgraded: bool = False


def upgrade(version: int, fields: Mapping[str, object]) -> Mapping[str, object]:
    """Read the first form."""
    assert version == 1
    return {"attempts": fields["tries"], "was_upgraded": True}


FIRST: Final = JsonNote(First)
SECOND: Final = JsonNote(Second, version=2, upgrade=upgrade)


@dataclass
class Counting:
    """The delivery of the first version."""

    hangs: bool

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        note = attempt.load(FIRST) or First()
        note.tries += 1
        attempt.save(FIRST, note)
        return await answer(note.tries, note, hangs=self.hangs)


@dataclass
class CountingAgain:
    """The delivery of the second version."""

    hangs: bool

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        note = attempt.load(SECOND) or Second()
        note.attempts += 1
        attempt.save(SECOND, note)
        return await answer(note.attempts, note, hangs=self.hangs)


async def answer(tries: int, note: First | Second, *, hangs: bool) -> Sequence[Reply]:
    """Fail at the first two tries."""
    print(note, flush=True)
    if hangs:
        await trio.sleep_forever()
    if tries < 3:
        msg = f"failed, {note}"
        raise ConnectionError(msg)
    return [Reply(250, "at last")]


async def main(queue: str, delivery: Delivery) -> None:
    """Try everything once."""
    async with open_spool(queue) as spool:
        await run_once(spool, delivery, ids=[entry.queue_id async for entry in all_entries(spool)])
        print("tried", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("--version", type=int, choices=(1, 2), required=True)
    parser.add_argument("--hang", action="store_true")
    arguments = parser.parse_args()
    kind = Counting if arguments.version == 1 else CountingAgain
    trio.run(main, arguments.queue, kind(arguments.hang))
