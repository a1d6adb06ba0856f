"""``smtprecv queue export`` and ``import``: messages leave a queue as pairs of files, and come into one.

Its one rule: what could not be moved keeps nothing else from being moved, and is told, with status 1.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from smtprecv.cli._arguments import Options
from smtprecv.cli._progress import Progress, progress, wants_progress
from smtprecv.cli._showqueue import json_line
from smtprecv.cli._terminal import say
from smtprecv.control import Selection, select
from smtprecv.moving import Arrival, Departure, Exported, Imported, export_message, import_message, pairs_in
from smtprecv.spool import Spool

_NAME: Final = "smtprecv queue"


async def export_messages(spool: Spool, selection: Selection, options: Options) -> int:
    """Write the chosen messages into the folder. Status 1 if one of them could not be, or is not there."""
    counts: Counter[Departure] = Counter()
    total = (len(selection.ids) or await spool.count()) if wants_progress() else 0
    with progress(total) as shown:
        async with aclosing(_exported(spool, selection, options, shown)) as results:
            async for result in results:
                counts[result.outcome] += 1
                _tell_exported(result, options)
    if not options.json:
        _write(_sum("exported", counts[Departure.EXPORTED], counts, options))
    return 0 if counts.keys() <= {Departure.EXPORTED} else 1


async def import_messages(spool: Spool, _: Selection, options: Options) -> int:
    """Take the messages of pairs into the queue. Status 1 if one could not be taken; 0 if it was there already."""
    paths = [pair for path in options.paths for pair in await pairs_in(path)]
    counts: Counter[Arrival] = Counter()
    is_all_done = True
    with progress(len(paths)) as shown:
        for path in paths:
            result = await import_message(
                spool, path, hold=options.hold, remove=options.remove, dry_run=options.dry_run
            )
            counts[result.outcome] += 1
            is_all_done = is_all_done and result.reason is None
            _tell_imported(result, options)
            shown.advance(1)
    if not options.json:
        _write(_sum("imported", counts[Arrival.IMPORTED], counts, options))
    return 0 if is_all_done else 1


async def _exported(
    spool: Spool, selection: Selection, options: Options, shown: Progress
) -> AsyncGenerator[Exported, None]:
    """Export what is chosen, and then tell what was named and is not there."""
    missing = dict.fromkeys(sorted(selection.ids))
    count = 0
    async with aclosing(select(spool, selection)) as entries:
        async for entry in entries:
            missing.pop(entry.queue_id, None)
            if options.dry_run:
                yield Exported(entry.queue_id, Departure.EXPORTED)
            else:
                yield await export_message(spool, entry.queue_id, options.folder, remove=options.remove)
            shown.advance(1)
            count += 1
            if count == options.limit:
                return
    there = {entry.queue_id for entry in await spool.find(list(missing))}
    for queue_id in missing:
        if queue_id not in there:
            yield Exported(queue_id, Departure.MISSING)


def _tell_exported(result: Exported, options: Options) -> None:
    if options.json:
        _write(json_line({"id": result.queue_id, "outcome": result.outcome.value, "reason": result.reason}))
    elif result.outcome is not Departure.EXPORTED:
        say(_NAME, f"{result.queue_id} {_TOLD[result.outcome]}{_because(result.reason)}")
    elif options.dry_run:
        _write(result.queue_id)


def _tell_imported(result: Imported, options: Options) -> None:
    if options.json:
        _write(json_line(_imported_fields(result)))
    elif result.outcome is Arrival.PRESENT:
        say(_NAME, f"{result.path}: {result.queue_id} is in the queue already: nothing is done")
    elif result.reason is not None:
        say(_NAME, f"{result.path}: {_ARRIVED[result.outcome]}{_because(result.reason)}")
    elif options.dry_run:
        _write(f"{result.queue_id}")


def _imported_fields(result: Imported) -> dict[str, str | None]:
    return {
        "file": str(result.path),
        "id": result.queue_id,
        "outcome": result.outcome.value,
        "reason": result.reason,
    }


def _because(reason: str | None) -> str:
    return "" if reason is None else f": {reason}"


def _sum(done: str, number: int, counts: Counter[Departure] | Counter[Arrival], options: Options) -> str:
    would = "would be " if options.dry_run else ""
    rest = [f"{count} {outcome.value}" for outcome, count in counts.items() if outcome.value != done]
    return ", ".join([f"{number} {would}{done}", *rest])


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


_TOLD: Final = {
    Departure.BUSY: "is being delivered right now: try again later",
    Departure.MISSING: "is not in the queue",
    Departure.OCCUPIED: "is not written over what is there",
    Departure.UNREADABLE: "cannot be read",
}
_ARRIVED: Final = {Arrival.IMPORTED: "it was imported", Arrival.REFUSED: "it was not imported"}
