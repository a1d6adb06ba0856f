"""The whole notification: a multipart/report (RFC 6522 section 3) around the original, and its envelope.

Pure: date and token are arguments. Its one rule: a report is made of two pieces that are small, and the original
goes between them untouched, so that it never need be in memory.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Final, final

from smtprecv.dsn._explanation import explanation, subject
from smtprecv.dsn._original import Original, is_lines
from smtprecv.dsn._rules import Outcome
from smtprecv.dsn._status import delivery_status
from smtprecv.protocol import Body, Envelope, ForwardPath, Mailbox, MailParameters, Recipient, ReversePath
from smtprecv.spool import Entry
from smtprecv.trace import line_safe, word

_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9]{16,60}")


@final
@dataclass(frozen=True, slots=True)
class Notification:
    """A report as it goes into the queue: ``top``, the original's octets if ``has_original``, ``bottom``.

    ``envelope``: from the null reverse-path to the original's, with what a next hop must be able to do.
    """

    envelope: Envelope
    top: bytes
    has_original: bool
    bottom: bytes


@final
@dataclass(frozen=True, slots=True)
class _Part:
    """A body part; ``octets`` are encoded as ``encoding`` says, and end with CRLF unless they are the last part."""

    content_type: str
    encoding: str
    octets: bytes

    def __bytes__(self) -> bytes:
        head = f"Content-Type: {self.content_type}\r\nContent-Transfer-Encoding: {self.encoding}\r\n\r\n"
        return head.encode() + self.octets


def notification(
    entry: Entry,
    outcomes: Sequence[Outcome],
    original: Original,
    *,
    hostname: str,
    date: dt.datetime,
    token: str,
    is_all: bool,
) -> Notification:
    """Report ``outcomes`` of ``entry`` to its sender.

    ``outcomes``: what ``settled`` or ``delayed`` gave. ``is_all``: what ``returns_all`` said; the header comes back in
    the place of a message that MIME could not hold unencoded. ``token``: 16 to 60 letters and digits, unique, which
    nobody could know when the message was written: it names the report and divides its parts. ValueError for another
    token, for no outcome, and for an entry with the null reverse-path.
    """
    sender = entry.envelope.reverse_path.mailbox
    if sender is None or not outcomes or not _WELL_FORMED.fullmatch(token):
        msg = "a report needs somebody to tell, something to tell him, and a token of 16 to 60 letters and digits"
        raise ValueError(msg)
    has_original = is_all and original.is_lines
    parts = (
        _text(explanation(entry, outcomes, hostname, is_all=has_original)),
        _status(delivery_status(entry, outcomes, hostname)),
        _returned(original, is_smtputf8=entry.envelope.parameters.smtputf8, is_all=has_original),
    )
    is_8bit = any(part.encoding == "8bit" for part in parts)
    head = _head(sender, subject(outcomes), hostname, date, token)
    # RFC 2045 section 6.4: a multipart has the encoding that the least of its parts has.
    head += f"Content-Transfer-Encoding: {'8bit' if is_8bit else '7bit'}\r\n"
    divider = f"\r\n--{_boundary(token)}".encode()
    top = head.encode() + b"".join(divider + b"\r\n" + bytes(part) for part in parts)
    # RFC 6531 section 3.4: the parameter is due where any header field, of a part too, is in UTF-8.
    is_utf8 = not head.isascii() or any("/global" in part.content_type for part in parts)
    envelope = _envelope(sender, entry.envelope.parameters, is_8bit=is_8bit or is_utf8, is_utf8=is_utf8)
    return Notification(envelope, top, has_original, divider + b"--\r\n")


def _head(sender: Mailbox, title: str, hostname: str, date: dt.datetime, token: str) -> str:
    host = word(hostname)
    fields = (
        f"Date: {format_datetime(date)}",
        # RFC 3464 section 2: from a human, to the reverse-path.
        f"From: Mail Delivery System <postmaster@{host}>",
        f"To: <{line_safe(str(sender), is_utf8=True)}>",
        f"Subject: {title}",
        f"Message-ID: <{token}@{host}>",
        # RFC 3834: no autoresponder answers this.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{_boundary(token)}"',
    )
    return "".join(f"{field}\r\n" for field in fields)


def _boundary(token: str) -> str:
    # No line of base64 has a hyphen.
    return f"report-{token}"


def _text(octets: bytes) -> _Part:
    if octets.isascii():
        return _Part("text/plain; charset=us-ascii", "7bit", octets)
    return _Part("text/plain; charset=utf-8", "8bit", octets)


def _status(octets: bytes) -> _Part:
    if octets.isascii():
        return _Part("message/delivery-status", "7bit", octets)
    # RFC 6533 sections 4.1 and 4.4
    return _Part("message/global-delivery-status", "8bit", octets)


def _returned(original: Original, *, is_smtputf8: bool, is_all: bool) -> _Part:
    """Give the third part: the head of one that the original follows, or one that has the original's header."""
    is_global = is_smtputf8 and _is_utf8(original.header)
    if is_all:
        # RFC 2046 section 5.2.1: message/rfc822 is never encoded.
        if original.is_ascii:
            return _Part("message/rfc822", "7bit", b"")
        return _Part("message/global" if is_global else "message/rfc822", "8bit", b"")
    if is_lines(original.header) and original.header.isascii():
        return _Part("text/rfc822-headers", "7bit", original.header)
    if is_lines(original.header) and is_global:
        # RFC 6533 section 4.3
        return _Part("message/global-headers", "8bit", original.header)
    # RFC 6522 section 4: a header that is no 7-bit text is encoded.
    return _Part("text/rfc822-headers", "base64", base64.encodebytes(original.header).replace(b"\n", b"\r\n"))


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _envelope(sender: Mailbox, parameters: MailParameters, *, is_8bit: bool, is_utf8: bool) -> Envelope:
    return Envelope(
        # RFC 3461 section 6.1
        ReversePath(None),
        MailParameters(
            body=Body.EIGHT_BIT_MIME if is_8bit else Body.SEVEN_BIT,
            smtputf8=is_utf8,
            # RFC 8689 section 5: a report tells of the message, and goes as that one had to.
            require_tls=parameters.require_tls,
        ),
        (Recipient(ForwardPath(sender)),),
    )
