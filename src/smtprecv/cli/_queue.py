"""``smtprecv queue``: look at messages, and steer them, beside a running ``serve``.

Messages are read, changed and written about in short pages. Its one rule: nothing of a message reaches the terminal
unescaped, but by ``cat`` into which the operator looks knowingly; and what somebody delivers right now is refused.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Final

from smtprecv import control
from smtprecv.cli._arguments import Options
from smtprecv.cli._journal import journal_lines, json_journal
from smtprecv.cli._moving import export_messages, import_messages
from smtprecv.cli._progress import progress, wants_progress
from smtprecv.cli._queue_arguments import ALL
from smtprecv.cli._showqueue import HEADING, Json, json_line, json_object, table_lines, terminal_width
from smtprecv.cli._terminal import cut, printable, say
from smtprecv.control import Order, Result, Selection, Verdict
from smtprecv.errors import ConfigError
from smtprecv.message import QueueId, Redirect, utc_now
from smtprecv.spool import Entry, Spool, Status, open_spool

_NAME: Final = "smtprecv queue"
_HELD: Final = "held"


async def queue(options: Options) -> int:
    """Do what the verb says. Status 1 if a named message is not there, or is being delivered by somebody.

    ConfigError where no messages are chosen for what changes them. SpoolError for a folder without a queue.
    """
    run = _OTHERS.get(options.verb, _steer)
    selection = _selection(options, utc_now())
    if options.verb in _CHOOSING - {"list"} and selection.is_everything and options.ids != [ALL]:
        msg = f"name messages or give a filter; {ALL} stands for every message"
        raise ConfigError(msg)
    async with open_spool(options.queue, create=options.verb == "import" and not options.dry_run) as spool:
        return await run(spool, selection, options)


def _selection(options: Options, now: dt.datetime) -> Selection:
    """Give the selection that the arguments describe."""
    if options.verb not in _CHOOSING:
        return Selection()
    words = set(options.statuses)
    return Selection(
        ids=frozenset(options.ids) - {QueueId(ALL)},
        senders=frozenset(options.senders),
        received_before=None if options.older_than is None else now - options.older_than,
        is_held=True if _HELD in words else None,
        recipients=frozenset(options.recipients),
        domains=frozenset(options.domains),
        statuses=frozenset(Status(word) for word in words - {_HELD}),
    )


async def _list(spool: Spool, selection: Selection, options: Options) -> int:
    width = terminal_width()
    missing = set(selection.ids)
    count = 0
    async with aclosing(control.select(spool, selection, limit=options.limit)) as entries:
        async for entry in entries:
            missing.discard(entry.queue_id)
            heading = HEADING if not count and not options.json else ()
            lines = [json_line(json_object(entry))] if options.json else table_lines(entry)
            for line in (*heading, *lines):
                _write(line if options.json else cut(line, width))
            count += 1
    if count == options.limit:
        return 0
    if not count and selection.is_everything and not options.json:
        _write("queue is empty")
    there = {entry.queue_id for entry in await spool.find(sorted(missing))}
    return _missing(sorted(missing - there))


async def _show(spool: Spool, _: Selection, options: Options) -> int:
    entries = await spool.find(options.ids)
    for entry in entries:
        journal = await spool.journal(entry.queue_id)
        if options.json:
            _write(json_line({**json_object(entry), "journal": json_journal(journal)}))
            continue
        for line in (*detail_lines(entry), *journal_lines(journal)):
            _write(line)
    return 0 if entries else _missing(options.ids)


async def _cat(spool: Spool, _: Selection, options: Options) -> int:
    message = await spool.message_of(options.ids[0])
    if message is None:
        return _missing(options.ids)
    sys.stdout.flush()
    async with message.chunks() as pieces:
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


async def _verify(spool: Spool, _selection: Selection, _options: Options) -> int:
    faults = await spool.verify()
    for fault in faults:
        _write(printable(fault))
    _write(f"{await spool.count()} messages, {len(faults)} faults")
    return 1 if faults else 0


async def _steer(spool: Spool, selection: Selection, options: Options) -> int:
    """Do what was ordered, tell of each message in JSON, and otherwise of those that were named and of the sum."""
    order = _ORDERS[options.verb](options, utc_now())
    total = (len(selection.ids) or await spool.count()) if wants_progress() else 0
    verdicts: Counter[Verdict] = Counter()
    with progress(total) as shown:
        results = control.steer(
            spool, selection, order, limit=options.limit, dry_run=options.dry_run, looked_at=shown.advance
        )
        async with aclosing(results):
            async for result in results:
                verdicts[result.verdict] += 1
                _tell(result, options)
    if not options.json:
        _write(_sum(verdicts, options))
    return 1 if verdicts[Verdict.BUSY] or verdicts[Verdict.MISSING] else 0


def _tell(result: Result, options: Options) -> None:
    if options.json:
        _write(json_line({"id": result.queue_id, "outcome": result.verdict.value}))
    elif result.verdict is Verdict.CHANGED:
        if options.dry_run:
            _write(result.queue_id)
    elif result.verdict is not Verdict.UNCHANGED or result.queue_id in options.ids:
        say(_NAME, f"{result.queue_id} {_TOLD[result.verdict]}")


def _sum(verdicts: Mapping[Verdict, int], options: Options) -> str:
    would = "would be " if options.dry_run else ""
    parts = [f"{verdicts[Verdict.CHANGED]} {would}{_DONE[options.verb]}"]
    parts += [f"{verdicts[each]} {each.value}" for each in Verdict if each is not Verdict.CHANGED and verdicts[each]]
    return ", ".join(parts)


def _missing(queue_ids: list[QueueId]) -> int:
    for queue_id in queue_ids:
        say(_NAME, f"{queue_id} {_TOLD[Verdict.MISSING]}")
    return 1 if queue_ids else 0


def detail_lines(entry: Entry) -> Iterator[str]:
    """Give all that is known of a message, a fact a line, without those that are not known."""
    yield from _lines(json_object(entry), "")


def _lines(value: Json, indent: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    for key, fact in value.items():
        if isinstance(fact, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(fact, f"{indent}  ")
        elif isinstance(fact, list):
            for each in fact:
                yield f"{indent}{key}: {'' if isinstance(each, Mapping) else printable(str(each))}".rstrip()
                yield from _lines(each, f"{indent}  ")
        elif fact is not None:
            yield f"{indent}{key}: {printable(str(fact))}".rstrip()


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


_OTHERS: Final[Mapping[str, Callable[[Spool, Selection, Options], Awaitable[int]]]] = {
    "list": _list,
    "show": _show,
    "cat": _cat,
    "verify": _verify,
    "export": export_messages,
    "import": import_messages,
}
"""What is no order."""
_ORDERS: Final[Mapping[str, Callable[[Options, dt.datetime], Order]]] = {
    "hold": lambda _options, _now: control.hold,
    "release": lambda _options, _now: control.release,
    "retry": lambda _options, now: control.retry(now),
    "redirect": lambda options, now: control.redirect(Redirect.to(*options.to), now),
    "remove": lambda _options, _now: control.remove,
    "flush": lambda _options, now: control.flush(now),
}
_CHOOSING: Final = _ORDERS.keys() | {"list", "export"}
"""What is done to the messages that are chosen."""
_DONE: Final[Mapping[str, str]] = {
    "hold": "held",
    "release": "released",
    "retry": "due now",
    "redirect": "redirected",
    "remove": "removed",
    "flush": "due now",
}
_TOLD: Final[Mapping[Verdict, str]] = {
    Verdict.UNCHANGED: "stays as it is: there is nothing to be done, or it is held",
    Verdict.BUSY: "is being delivered right now: try again later",
    Verdict.MISSING: "is not in the queue",
}
