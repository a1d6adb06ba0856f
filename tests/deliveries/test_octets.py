"""The octets of a message, through spool and queue into a Maildir: which are kept, and which line ends change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest

from smtprecv.deliveries import Maildir
from smtprecv.delivery import Attempt
from smtprecv.message import Client, SessionId
from smtprecv.protocol import (
    Body,
    Envelope,
    MailParameters,
    Recipient,
    Reply,
    Session,
    parse_forward_path,
    parse_reverse_path,
)
from smtprecv.queue import Report, run_once
from smtprecv.spool import SpoolOptions, open_spool
from smtprecv.trace import trace_fields

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
CLIENT = Client(SessionId("s"), None, None, Session("mail.example.net", is_extended=True))
BEN = Recipient(parse_forward_path("ben@example.com"))
HEADER = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n\r\n"
EVERY_OCTET = bytes(range(256)) + bytes(reversed(range(256)))
LONE = b"\r\ra\n\nb\r\n\r\r\nc\n\r\n.\r\n..\n.\r"
MEGABYTES = (EVERY_OCTET + LONE) * 5_000


class Later:
    """A delivery that has been out of order, so that the message is read from the disk again."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        return [Reply(451, "later")] * len(attempt.recipients)


async def stored(path: Path, octets: bytes, body: Body, *, memory_size: int = 65536) -> tuple[bytes, bytes]:
    """Give the trace fields and the file of a message that was spooled, deferred, and delivered by another process."""
    envelope = Envelope(parse_reverse_path("anna@example.com"), MailParameters(body=body), (BEN,))
    options = SpoolOptions(memory_size=memory_size)
    async with open_spool(path / "queue", options=options) as spool:
        draft = await spool.begin(NOON)
        for start in range(0, len(octets), 65535):
            await draft.write(octets[start : start + 65535])
        entry = await draft.commit(CLIENT, envelope, NOON)
        assert await run_once(spool, Later(), now=lambda: NOON) == Report(deferred=1)
    async with open_spool(path / "queue", options=options) as spool:
        maildir = Maildir(path / "{local_part}", hostname="mx.example.com")
        assert await run_once(spool, maildir, now=lambda: NOON + dt.timedelta(hours=1)) == Report(delivered=1)
    [file] = (path / "ben" / "new").iterdir()
    return trace_fields(entry, BEN, "mx.example.com"), file.read_bytes()


@pytest.mark.parametrize("octets", [HEADER + EVERY_OCTET, HEADER + LONE, LONE, EVERY_OCTET, HEADER + b"no end", b""])
@pytest.mark.parametrize("memory_size", [0, 65536])
async def test_binary(octets: bytes, memory_size: int, tmp_path: Path) -> None:
    """BODY=BINARYMIME (RFC 3030): not an octet changes, from the row or the file; the fields on top end in CRLF too."""
    trace, file = await stored(tmp_path, octets, Body.BINARY_MIME, memory_size=memory_size)
    assert file == trace + octets


@pytest.mark.parametrize("body", Body)
async def test_large(body: Body, tmp_path: Path) -> None:
    """A large message, of which every piece ends somewhere within something, is stored by the same rule."""
    trace, file = await stored(tmp_path, HEADER + MEGABYTES, body)
    whole = trace + HEADER + MEGABYTES
    assert file == (whole if body is Body.BINARY_MIME else whole.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize("body", [Body.SEVEN_BIT, Body.EIGHT_BIT_MIME])
@pytest.mark.parametrize("end", [b"last\r\n", b"last", b"last\r", b"last\n", b"\r\n", b""])
async def test_the_last_line(body: Body, end: bytes, tmp_path: Path) -> None:
    """Of other messages CRLF becomes LF; a last line without CRLF, as after BDAT, gets none, and no octet is lost."""
    trace, file = await stored(tmp_path, b"A: b\r\n\r\n" + end, body)
    assert file == trace.replace(b"\r\n", b"\n") + b"A: b\n\n" + end.replace(b"\r\n", b"\n")


async def test_white_space_first(tmp_path: Path) -> None:
    """What would continue the last trace field begins behind an empty line, and is otherwise as it was."""
    trace, file = await stored(tmp_path, b" \0\r", Body.BINARY_MIME)
    assert file == trace + b"\r\n \0\r"
