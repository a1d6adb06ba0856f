"""The part of a report that programs read: message/delivery-status (RFC 3464 section 2), and its UTF-8 form (RFC 6533).

Its one rule is that of the trace fields: no word from outside ends a line or begins a field.
"""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from email.utils import format_datetime
from typing import Final

from smtprecv.dsn._rules import Action, Outcome
from smtprecv.protocol import AddressLiteral, EnhancedStatus, OriginalRecipient, Reply
from smtprecv.spool import Entry
from smtprecv.trace import line_safe, word

_ADDRESS_SIZE: Final = 900
"""Octets of an address, so that its line has at most 998: more than a path can have."""
_REPLY_SIZE: Final = 500
"""Characters of a reply's text."""
_FOLDED_SIZE: Final = 76

CLASSES: Final[Mapping[Action, tuple[int, ...]]] = {
    # RFC 3464 section 2.3.3: what was given up may have failed for a passing reason, to the last.
    Action.FAILED: (5, 4),
    Action.DELAYED: (4,),
    Action.DELIVERED: (2,),
    Action.RELAYED: (2,),
    Action.EXPANDED: (2,),
}
"""The classes of status that an action may have; where the last reply is of no such class, the first one counts."""


def delivery_status(entry: Entry, outcomes: Sequence[Outcome], hostname: str) -> bytes:
    """Give the fields of the message, and behind an empty line each those of a recipient."""
    groups = [_message_fields(entry, hostname), *(_recipient_fields(entry, outcome) for outcome in outcomes)]
    return "\r\n".join("".join(f"{field}\r\n" for field in group) for group in groups).encode()


def status_of(outcome: Outcome) -> EnhancedStatus:
    """Give the status of an outcome: that of its reply, or of the reply's class (RFC 3461 section 6.3)."""
    reply = reply_of(outcome)
    if reply is None:
        return EnhancedStatus(CLASSES[outcome.action][0], 0, 0)
    status = reply.status or EnhancedStatus(reply.code // 100, 0, 0)
    # RFC 3463 section 2: three digits at most.
    return status if max(status) < 1000 and min(status) >= 0 else EnhancedStatus(status.klass, 0, 0)


def reply_of(outcome: Outcome) -> Reply | None:
    """Give the reply that says why it came so; None if there is none, or if the last one is older than the outcome."""
    reply = outcome.standing.last
    return reply if reply is not None and reply.code // 100 in CLASSES[outcome.action] else None


def remote_of(outcome: Outcome) -> str | None:
    """Give the name of who gave the reply; None where the sender may not know where the message went."""
    return None if outcome.standing.recipient.original is not None or outcome.remote is None else word(outcome.remote)


def transcript_of(outcome: Outcome) -> str | None:
    """Give the reply in ASCII, on one line; without its text where the sender may not know where the message went.

    The text of a reply often names the mailbox, and a recipient that was redirected is known by another name.
    """
    reply = reply_of(outcome)
    if reply is None:
        return None
    text = "" if outcome.standing.recipient.original is not None else reply.text[:_REPLY_SIZE]
    # A reader would decode what looks like an encoded-word (RFC 2047), line ends included.
    words = line_safe(" ".join(text.split())).replace("=?", "= ?").split()
    return " ".join([str(reply.code), *([] if reply.status is None else [str(status_of(outcome))]), *words])


def address_of(outcome: Outcome) -> str:
    """Give the address that the sender knows, as it was when it was accepted (RFC 3464 section 2.3.2)."""
    return _cut(str(outcome.forward_path))


def _message_fields(entry: Entry, hostname: str) -> Iterator[str]:
    # RFC 3464 section 2.2, RFC 3461 section 4.4: the ENVID without its encoding.
    envid, by = entry.envelope.parameters.envid, entry.envelope.parameters.deliver_by
    if envid is not None:
        yield f"Original-Envelope-Id: {_cut(str(envid))}"
    # RFC 3461 section 6.3: the type is dns for nothing less than a full domain name.
    name_type = "dns" if "." in hostname and not hostname.startswith("[") else "x-local-hostname"
    yield f"Reporting-MTA: {name_type}; {word(hostname)}"
    client = entry.client
    if client.session.hello is not None:
        address = "" if client.address is None else f" ({word(str(AddressLiteral(client.address)))})"
        yield f"Received-From-MTA: dns; {word(client.session.hello)}{address}"
    yield f"Arrival-Date: {format_datetime(entry.received)}"
    if by is not None:
        yield f"Deliver-By-Date: {format_datetime(entry.received + dt.timedelta(seconds=by.seconds))}"


def _recipient_fields(entry: Entry, outcome: Outcome) -> Iterator[str]:
    # RFC 3464 section 2.3
    address, remote, transcript = address_of(outcome), remote_of(outcome), transcript_of(outcome)
    orcpt = outcome.standing.recipient.parameters.orcpt
    # RFC 3461 section 6.3: not without an ORCPT.
    if orcpt is not None:
        yield f"Original-Recipient: {_original(orcpt, is_utf8=not address.isascii())}"
    yield f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}"
    yield f"Action: {outcome.action.value}"
    yield f"Status: {status_of(outcome)}"
    if remote is not None:
        yield f"Remote-MTA: dns; {remote}"
    if transcript is not None:
        yield _folded(f"Diagnostic-Code: smtp; {transcript}")
    if entry.attempted is not None:
        yield f"Last-Attempt-Date: {format_datetime(entry.attempted)}"
    yield f"Final-Log-ID: {word(entry.queue_id)}"
    if outcome.action is Action.DELAYED and outcome.retried_until is not None:
        yield f"Will-Retry-Until: {format_datetime(outcome.retried_until)}"


def _original(orcpt: OriginalRecipient, *, is_utf8: bool) -> str:
    address = str(orcpt.encoded)
    # Postfix says rfc822 of any address that it was given without a type.
    if address.isascii() and orcpt.address_type.lower() != "utf-8":
        return f"{line_safe(orcpt.address_type)}; {_cut(address)}"
    # RFC 6533 section 3: where the fields are ASCII, the form that is; else the one without an encoding.
    escaped = "".join(c if c.isascii() else f"\\x{{{ord(c):02X}}}" for c in address)
    return f"utf-8; {_cut(orcpt.address if is_utf8 else escaped)}"


def _cut(text: str) -> str:
    return line_safe(text, is_utf8=True).encode()[:_ADDRESS_SIZE].decode(errors="ignore")


def _folded(field: str) -> str:
    lines = textwrap.wrap(field, _FOLDED_SIZE, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
    return "\r\n".join(lines)
