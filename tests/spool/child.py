"""A process that uses a spool until it is killed: `child.py QUEUE ROUNDS`.

It says on standard output what it was promised, and what it is about to undo, one line each:
`accepted ID SIZE`, `refused`, `claimed ID`, `removing ID`, `removed ID`, `end`.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import trio

from smtprecv.errors import SpoolError
from smtprecv.message import Client, SessionId
from smtprecv.protocol import Domain, Envelope, ForwardPath, Mailbox, Recipient, Reply, ReversePath
from smtprecv.spool import Claim, Spool, SpoolOptions, open_spool

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
CLIENT = Client(SessionId("s"), None, None)
ENVELOPE = Envelope(ReversePath(None), recipients=(Recipient(ForwardPath(Mailbox("b", Domain("example.net")))),))
OCTETS = (b"small\r\n", b"x" * 4096, b"large\r\n" * 15_000)


def say(*words: object) -> None:
    """Print a line, now."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def accept(spool: Spool, octets: bytes) -> None:
    """Accept a message, or say that it was refused."""
    draft = await spool.begin(NOON)
    try:
        await draft.write(octets)
        entry = await draft.commit(CLIENT, ENVELOPE, NOON)
    except SpoolError:
        say("refused")
    else:
        say("accepted", entry.queue_id, entry.size)
    finally:
        await draft.abort()


async def remove(spool: Spool, claim: Claim) -> None:
    """Record that a message was delivered, again and again until that is recorded."""
    queue_id = claim.entry.queue_id
    say("removing", queue_id)
    while True:
        try:
            await spool.record(claim.entry.after([Reply(250, "ok")] * len(claim.entry.pending), NOON))
        except SpoolError:
            say("again", queue_id)
        else:
            say("removed", queue_id)
            return


async def claim_one(spool: Spool) -> list[Claim]:
    """Claim the message that is due the longest."""
    try:
        claims = list(await spool.claim(NOON, 1))
    except SpoolError:
        return []
    for claim in claims:
        say("claimed", claim.entry.queue_id)
    return claims


async def main(queue: Path, rounds: int) -> None:
    """Accept three messages at once in each round, remove one, and keep a claim."""
    async with open_spool(queue, options=SpoolOptions(wal_limit=200_000)) as spool:
        for _ in range(rounds):
            async with trio.open_nursery() as nursery:
                for octets in OCTETS:
                    nursery.start_soon(accept, spool, octets)
            for claim in await claim_one(spool):
                await remove(spool, claim)
            await claim_one(spool)
        say("end")
        if sys.stdin.readline() == "die\n":
            return


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
