"""``smtprecv showqueue``: the queue as a table for people, or as one JSON object a line for programs.

Messages are read and written in short pages, so that a queue of any length takes no memory and keeps
no lock: columns are aligned within a message, and have fixed widths beyond it.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from smtprecv.cli._arguments import Options
from smtprecv.cli._terminal import cells, cut, pad, printable, reason, say
from smtprecv.delivery import DeliveryCheck
from smtprecv.message import Client, QueueId
from smtprecv.protocol import Recipient, Reply, Severity
from smtprecv.spool import Entry, Spool, Standing, Status, all_entries, open_spool

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

HEADING: Final = (
    "ID                        SIZE  ARRIVAL              SENDER",
    "  STATUS     ATTEMPTS  NEXT ATTEMPT         RECIPIENT  LAST REPLY",
)
"""What stands above a table."""


async def showqueue(options: Options) -> int:
    """Write what is in the queue. Status 1 if a named message is not in it.

    SpoolError for a folder without a queue, which stays as it is.
    """
    delivery = None if options.deliver is None else options.deliver(hostname=options.hostname)
    width = terminal_width()
    missing = dict.fromkeys(options.ids)
    is_empty = True
    async with open_spool(options.queue, create=False) as spool:
        async for entry in _entries(spool, options.ids):
            missing.pop(entry.queue_id, None)
            entry = await _confirmed(entry, delivery)  # noqa: PLW2901  # nothing else is to be said of it
            heading = HEADING if is_empty and not options.json else ()
            is_empty = False
            for line in [*heading, *([json_line(json_object(entry))] if options.json else table_lines(entry))]:
                sys.stdout.write(f"{line if options.json else cut(line, width)}\n")
    if is_empty and not options.ids and not options.json:
        sys.stdout.write("queue is empty\n")
    for queue_id in missing:
        say("smtprecv showqueue", f"{queue_id} is not in the queue")
    return 1 if missing else 0


def terminal_width() -> int | None:
    """Give how many columns standard output has; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


async def _confirmed(entry: Entry, delivery: object) -> Entry:
    """Give the entry as the delivery knows it: what was delivered and not recorded is delivered."""
    if not isinstance(delivery, DeliveryCheck):
        return entry
    try:
        return entry.confirmed([await delivery.is_delivered(entry, standing.recipient) for standing in entry.pending])
    except OSError as error:
        say("smtprecv showqueue", f"{entry.queue_id}: {reason(error)}")
        return entry


async def _entries(spool: Spool, queue_ids: Sequence[QueueId]) -> AsyncIterator[Entry]:
    if not queue_ids:
        async for entry in all_entries(spool):
            yield entry
    for entry in await spool.find(queue_ids) if queue_ids else ():
        yield entry


def table_lines(entry: Entry) -> Iterator[str]:
    """Give the lines of a message: one for itself, and one for each recipient."""
    sender = printable(f"{entry.envelope.reverse_path}") or "<>"
    wishes = "".join(f"  {wish}" for wish in _wishes(entry))
    yield f"{entry.queue_id}  {_size(entry.size):>8}  {local_time(entry.received):<19}  {sender}{wishes}"
    recipients = [printable(_address(standing.recipient)) for standing in entry.standings]
    width = max(map(cells, recipients), default=0)
    for standing, recipient in zip(entry.standings, recipients, strict=True):
        due = local_time(_next_attempt(entry, standing))
        state = f"{standing.status.value:<9}  {standing.attempts:>8}  {due:<19}"
        yield f"  {state}  {pad(recipient, width)}  {_last(entry, standing)}".rstrip()


def json_object(entry: Entry) -> Mapping[str, Json]:
    """Give all that is known of a message; times are ISO 8601 with an offset, sizes octets."""
    parameters = entry.envelope.parameters
    return {
        "id": entry.queue_id,
        "size": entry.size,
        "arrival": entry.received.isoformat(),
        "sender": str(entry.envelope.reverse_path),
        "body": parameters.body.value,
        "smtputf8": parameters.smtputf8,
        "ret": None if parameters.ret is None else parameters.ret.value,
        "envid": None if parameters.envid is None else parameters.envid.encoded,
        "deliver_by": None if parameters.deliver_by is None else str(parameters.deliver_by),
        "priority": parameters.priority,
        "require_tls": parameters.require_tls,
        "auth": parameters.auth,
        "client": _json_client(entry.client),
        "last_attempt": iso_time(entry.attempted),
        "next_attempt": iso_time(entry.due),
        "held": entry.is_held,
        "warned": iso_time(entry.warned),
        "report_of": entry.report_of,
        "error": entry.error,
        "note_size": None if entry.note is None else len(entry.note.text.encode()),
        "recipients": [_json_standing(standing, _next_attempt(entry, standing)) for standing in entry.standings],
    }


def _json_client(client: Client) -> Json:
    session, tls = client.session, client.session.tls
    return {
        "address": None if client.address is None else str(client.address),
        "port": client.port,
        "host": client.host,
        "ident": client.ident,
        "dialect": session.dialect.value,
        "hello": session.hello,
        "tls": None
        if tls is None
        else {"version": tls.version, "cipher": tls.cipher, "bits": tls.bits, "client_name": tls.client_name},
        "identity": session.identity,
    }


def _json_standing(standing: Standing, next_attempt: dt.datetime | None) -> Json:
    recipient, parameters = standing.recipient, standing.recipient.parameters
    return {
        "address": str(recipient),
        "original": None if recipient.original is None else str(recipient.original),
        "notify": None if parameters.notify is None else sorted(word.value for word in parameters.notify),
        "orcpt": None if parameters.orcpt is None else str(parameters.orcpt),
        "status": standing.status.value,
        "attempts": standing.attempts,
        "last_reply": _json_reply(standing.last),
        "next_attempt": iso_time(next_attempt),
    }


def json_line(value: Json) -> str:
    """Write a value in one line that harms no terminal."""
    # Pure ASCII, so that no terminal and no locale is in the way; DEL is the one control character that JSON lets pass.
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def _json_reply(reply: Reply | None) -> Json:
    if reply is None:
        return None
    return {"code": reply.code, "status": None if reply.status is None else str(reply.status), "text": reply.text}


def _wishes(entry: Entry) -> Iterator[str]:
    """Give what the sender asked for that changes when or how the message is delivered, and the operator."""
    parameters = entry.envelope.parameters
    if parameters.priority:
        yield f"priority {parameters.priority}"
    if parameters.deliver_by is not None:
        yield f"by {parameters.deliver_by}"
    if parameters.require_tls:
        yield "requiretls"
    if entry.is_held:
        yield "held"


def _address(recipient: Recipient) -> str:
    return str(recipient) if recipient.original is None else f"{recipient} (for {recipient.original})"


def _last(entry: Entry, standing: Standing) -> str:
    reply = "" if standing.last is None else str(standing.last)
    # What was answered 5yz was answered so by an earlier attempt than the one that raised.
    was_tried_last = standing.last is not None and standing.last.severity is Severity.TRANSIENT
    error = (entry.error or "") if was_tried_last else ""
    return ": ".join(printable(text) for text in (reply, error) if text)


def _next_attempt(entry: Entry, standing: Standing) -> dt.datetime | None:
    return entry.due if standing.status is Status.PENDING else None


def _size(octets: int) -> str:
    """Give a size as people read it: ``512``, ``4.0K``, ``30.0M``."""
    if octets < 1024:
        return str(octets)
    return f"{octets / 1024:.1f}K" if octets < 1024**2 else f"{octets / 1024**2:.1f}M"


def local_time(time: dt.datetime | None) -> str:
    """Give a time as people read it, in their zone; a hyphen for none."""
    return "-" if time is None else time.astimezone().replace(tzinfo=None).isoformat(" ", "seconds")


def iso_time(time: dt.datetime | None) -> str | None:
    """Give a time as programs read it, with its offset."""
    return None if time is None else time.isoformat()
