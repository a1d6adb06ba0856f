"""The trace fields that a delivery puts on top of a message (RFC 5321 section 4.4).

Pure. Its one rule: nothing that a client said can end a line, leave its clause or begin a
comment. A word that came from outside passes ``word`` or ``line_safe`` before it is
written, and non-ASCII characters pass only where the client asked for SMTPUTF8. Lines end
with CRLF; a delivery that stores LF converts the fields together with the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import format_datetime
from typing import Final

from smtprecv.message import Client
from smtprecv.protocol import AddressLiteral, Dialect, Domain, Mailbox, Recipient, ReversePath, Tls
from smtprecv.spool import Entry

_LINE_SIZE: Final = 78  # RFC 5322 section 2.1.1: the length that a line SHOULD keep to
_WORD_SIZE: Final = 255
_NOT_IN_WORD: Final = re.compile(r"[^A-Za-z0-9_.:\u0080-\U0010ffff-]")  # the colon: IPv6 literals


def trace_fields(entry: Entry, recipient: Recipient, hostname: str) -> bytes:
    """Give all that stands on top of the copy for ``recipient``: Return-Path, Delivered-To, Received."""
    return b"".join(
        (
            return_path_field(entry.envelope.reverse_path, is_utf8=entry.envelope.parameters.smtputf8),
            delivered_to_field(recipient, is_utf8=entry.envelope.parameters.smtputf8),
            received_field(entry, hostname, recipient),
        )
    )


def divider(start: bytes) -> bytes:
    """Give what must stand between the trace fields and a message that starts so: nothing, or an empty line.

    A message that begins with white space would continue our last field, and so write into it
    (RFC 5322 section 2.2.3). Behind an empty line it is what it is: a message without a header.
    """
    return b"\r\n" if start[:1] in (b" ", b"\t") else b""


def received_field(entry: Entry, hostname: str, recipient: Recipient | None = None) -> bytes:
    """Give the Received field: from whom, by ``hostname``, how, under which queue id, for whom, when.

    ``recipient`` is named in the FOR clause. Give it only for a copy that nobody but this recipient
    sees: a field that names one recipient to another tells of blind copies (RFC 5321 section 7.2).
    """
    is_utf8 = entry.envelope.parameters.smtputf8
    clauses = [
        *_from_clause(entry.client, is_utf8=is_utf8),
        f"by {word(hostname, is_utf8=is_utf8)}",
        f"with {protocol_name(entry)}",
        *_tls_comment(entry.client.session.tls),
        f"id {word(entry.queue_id, is_utf8=False)}",
    ]
    if recipient is not None:
        clauses.append(f"for <{_address(recipient.forward_path.mailbox, is_utf8=is_utf8)}>")
    clauses[-1] += ";"
    return _field("Received", [*clauses, format_datetime(entry.received)])


def return_path_field(reverse_path: ReversePath, *, is_utf8: bool = False) -> bytes:
    """Give the Return-Path field, which keeps the reverse-path; ``<>`` for the null reverse-path."""
    address = "" if reverse_path.mailbox is None else _address(reverse_path.mailbox, is_utf8=is_utf8)
    return _field("Return-Path", [f"<{address}>"])


def delivered_to_field(recipient: Recipient, *, is_utf8: bool = False) -> bytes:
    """Give the Delivered-To field, which says whose copy it is and lets a forwarder see a loop."""
    return _field("Delivered-To", [_address(recipient.forward_path.mailbox, is_utf8=is_utf8)])


def envelope_to_field(recipient: Recipient, *, is_utf8: bool = False) -> bytes:
    """Give the X-Envelope-To field: who the envelope is for. Not for eyes other than this recipient's."""
    return _field("X-Envelope-To", [_address(recipient.forward_path.mailbox, is_utf8=is_utf8)])


def word(text: str, *, is_utf8: bool = False) -> str:
    """Make one word of what somebody calls himself; an address literal keeps its brackets."""
    text = line_safe(text[:_WORD_SIZE], is_utf8=is_utf8)
    if text.startswith("[") and text.endswith("]"):
        return f"[{_NOT_IN_WORD.sub('?', text[1:-1])}]"
    return _NOT_IN_WORD.sub("?", text) or "unknown"


def line_safe(text: str, *, is_utf8: bool = False) -> str:
    """Give the text with a question mark for each character that is not printable, or not ASCII but for ``is_utf8``."""
    if text.isprintable() and (is_utf8 or text.isascii()):
        return text
    return "".join(c if c.isprintable() and (is_utf8 or c.isascii()) else "?" for c in text)


def _from_clause(client: Client, *, is_utf8: bool) -> list[str]:
    words = [f"from {word(client.session.hello or 'unknown', is_utf8=is_utf8)}"]
    host = "" if client.host is None else f"{word(client.host, is_utf8=is_utf8)} "
    if client.address is not None:
        words.append(f"({host}{word(str(AddressLiteral(client.address)), is_utf8=False)})")
    if client.ident is not None:
        words.append(f"(ident {word(client.ident, is_utf8=is_utf8)})")
    return words


def protocol_name(entry: Entry) -> str:
    """Name the protocol by which a message came (RFC 3848, RFC 6531 section 4.3)."""
    session, parameters = entry.client.session, entry.envelope.parameters
    is_lmtp = session.dialect is Dialect.LMTP
    if not (session.is_extended or is_lmtp):
        return "SMTP"
    kind = ("UTF8" if parameters.smtputf8 else "" if is_lmtp else "E") + session.dialect.value
    return kind + "S" * session.is_secure + "A" * (session.identity is not None)


def _tls_comment(tls: Tls | None) -> list[str]:
    if tls is None:
        return []
    words = (word(tls.version, is_utf8=False), word(tls.cipher, is_utf8=False))
    return [f"({' '.join(words)} {tls.bits} bits)"]


def _address(mailbox: Mailbox, *, is_utf8: bool) -> str:
    domain = mailbox.domain
    if is_utf8 and isinstance(domain, Domain):
        # RFC 6531 section 3.7.3: U-labels, if they stand for this very name and can be shown.
        unicode = domain.unicode
        if unicode.isprintable() and Domain.from_text(unicode) == domain:
            mailbox = Mailbox(mailbox.local_part, Domain(unicode))
    return line_safe(str(mailbox), is_utf8=is_utf8)


def _field(name: str, clauses: Iterable[str]) -> bytes:
    """Write a field, folded between clauses (RFC 5322 section 2.2.3)."""
    lines = [f"{name}:"]
    for clause in clauses:
        if len(lines[-1]) + 1 + len(clause) <= _LINE_SIZE or lines[-1] == f"{name}:":
            lines[-1] += f" {clause}"
        else:
            lines.append(f"\t{clause}")
    return "".join(f"{line}\r\n" for line in lines).encode()
