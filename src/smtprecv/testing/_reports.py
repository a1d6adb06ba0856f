"""The contract of a spool for reports: one is there with the outcome that it tells of, or neither is.

Its one rule: as the checks beside it, it knows the Protocol and nothing of any store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from smtprecv.spool import Entry, Spool, Status
from smtprecv.testing._sample import ENVELOPE, LARGE, LATE, MINUTE, NOON, PLAIN, SMALL, OpenSpool, accept, ids, same

_NOTHING: Final[Sequence[Entry]] = ()


async def check_report(open_store: OpenSpool) -> None:
    """Check that a report and its outcome are one step, and that who was returned has ended."""
    async with open_store() as spool:
        for octets in (SMALL, LARGE):
            entry = await accept(spool, SMALL)
            (claim,) = await spool.claim_ids([entry.queue_id])
            draft = await spool.begin(LATE, is_reserved=octets is SMALL)
            await draft.write(octets)
            failed = replace(claim.entry.given_up(), warned=NOON + MINUTE)
            report = await draft.commit_report(failed, PLAIN, ENVELOPE, LATE)
            same("what a message reports is known", report and report.report_of, entry.queue_id)
            same("a report is accepted with the outcome", await spool.find(ids([entry])), [failed])
            again = await spool.begin(LATE)
            await again.write(octets)
            told = await again.commit_report(failed, PLAIN, ENVELOPE, LATE)
            same("what is not claimed here is not reported", (told, len(await spool.claim(LATE, 9))), (None, 1))
            await _check_ended(spool, failed)
    async with open_store() as spool:
        claims = await spool.claim(LATE, 9)
        same("reports are durable", sorted([await claim.message.bytes() for claim in claims]), sorted([SMALL, LARGE]))


async def _check_ended(spool: Spool, failed: Entry) -> None:
    (claim,) = await spool.claim_ids([failed.queue_id])
    returned = [replace(each, status=Status.RETURNED) for each in claim.entry.standings]
    await spool.record(replace(claim.entry, standings=(returned[0], *claim.entry.standings[1:])))
    (claim,) = await spool.claim_ids([failed.queue_id])
    states = [standing.status.value for standing in claim.entry.standings]
    same("claim_ids() does not revive who was returned", states, ["returned", "pending", "pending"])
    await spool.record(replace(claim.entry, standings=tuple(returned), due=None))
    same("a message is removed when all are served or returned", await spool.find([failed.queue_id]), _NOTHING)
