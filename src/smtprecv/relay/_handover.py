"""What is handed to the next hop with a message: the MAIL and RCPT lines, and what it can't be given.

Two tables. One rule: what the sender asked for is passed on as it came to those who offer it (RFC 5321 section
4.1.1.11); where a message can't do without and the next hop has not got it, the message is refused, not converted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from smtprecv.protocol import (
    Body,
    ByMode,
    Dialect,
    EnhancedStatus,
    Envelope,
    LocalProtocolError,
    Mailbox,
    Notify,
    OriginalRecipient,
    Recipient,
    Reply,
)
from smtprecv.relay._nexthop import NextHop

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# RFC 6533 section 3: what stands for itself in an address of the type utf-8 that must be ASCII.
_PLAIN: Final = frozenset(map(chr, range(0x21, 0x7F))) - {*"+=\\"}


@final
@dataclass(frozen=True, slots=True)
class Handover:
    """A message and those of its recipients who are to get it in one transaction.

    ``size``: octets of all that is sent. ``is_ascii``: the message is known to be ASCII, whatever it was declared to
    be. ``seconds_left``: what is left of the time that its sender has set (RFC 2852), None if none was.
    """

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    size: int
    is_ascii: bool = False
    seconds_left: int | None = None

    @property
    def is_internationalized(self) -> bool:
        """True if it was declared so, or an address is (RFC 6531 section 3.4)."""
        return self.envelope.parameters.smtputf8 or self.has_utf8_sender or any(map(_is_utf8, self.recipients))

    @property
    def has_utf8_sender(self) -> bool:
        """True if the reverse-path is not ASCII."""
        mailbox = self.envelope.reverse_path.mailbox
        return mailbox is not None and not _is_ascii(mailbox)


def must_inspect(envelope: Envelope, next_hop: NextHop) -> bool:
    """Say whether it matters if the message is ASCII: more was declared than the next hop takes."""
    parameters, offers = envelope.parameters, next_hop.offers
    is_8bit = parameters.body is Body.EIGHT_BIT_MIME
    return (is_8bit and "8BITMIME" not in offers) or (parameters.smtputf8 and "SMTPUTF8" not in offers)


def refusal(handover: Handover, next_hop: NextHop) -> Reply | None:
    """Give why the message can't go there at all; None if it can."""
    return next((reply for is_amiss, reply in _REFUSALS if is_amiss(handover, next_hop)), None)


def recipient_refusal(recipient: Recipient, next_hop: NextHop) -> Reply | None:
    """Give why this recipient can't be named there; None if it can."""
    return _UTF8_RECIPIENT if _is_utf8(recipient) and "SMTPUTF8" not in next_hop.offers else None


def mail_line(handover: Handover, next_hop: NextHop) -> bytes:
    """Write the MAIL command, with the parameters that were given and are offered."""
    words = [f"MAIL FROM:<{handover.envelope.reverse_path}>"]
    words += [word(handover) for keyword, word in _MAIL_PARAMETERS if keyword in next_hop.offers]
    return _line(words)


def rcpt_line(recipient: Recipient, handover: Handover, next_hop: NextHop) -> bytes:
    """Write the RCPT command. RFC 3461 section 5.2.1: NOTIFY and ORCPT go on as they came, where DSN is offered."""
    words = [f"RCPT TO:<{recipient.forward_path}>"]
    if "DSN" in next_hop.offers:
        is_utf8 = handover.is_internationalized and "SMTPUTF8" in next_hop.offers
        notify, orcpt = recipient.parameters.notify, recipient.parameters.orcpt
        words.append("" if notify is None else f"NOTIFY={_notify(notify)}")
        words.append("" if orcpt is None else f"ORCPT={_orcpt(orcpt, is_utf8=is_utf8)}")
    return _line(words)


def _line(words: Sequence[str]) -> bytes:
    line = " ".join(filter(None, words))
    if _CONTROL.search(line):
        msg = "an address or a parameter with a control character cannot be passed on"
        raise LocalProtocolError(msg)
    return f"{line}\r\n".encode()


def _notify(notify: frozenset[Notify]) -> str:
    return ",".join(wanted.value for wanted in Notify if wanted in notify) or "NEVER"


def _orcpt(orcpt: OriginalRecipient, *, is_utf8: bool) -> str:
    if is_utf8 or orcpt.encoded.encoded.isascii():
        return str(orcpt)
    # RFC 6533 section 3: without SMTPUTF8 the characters are named.
    named = "".join(c if c in _PLAIN else f"\\x{{{ord(c):02X}}}" for c in orcpt.address)
    return f"{orcpt.address_type};{named}"


def _is_utf8(recipient: Recipient) -> bool:
    return not _is_ascii(recipient.forward_path.mailbox)


def _is_ascii(mailbox: Mailbox) -> bool:
    return mailbox.local_part.isascii()  # a domain is held as A-labels


def _size(handover: Handover) -> str:
    return f"SIZE={handover.size}"


def _body(body: Body) -> Callable[[Handover], str]:
    return lambda handover: f"BODY={body.value}" if handover.envelope.parameters.body is body else ""


def _smtputf8(handover: Handover) -> str:
    return "SMTPUTF8" if handover.is_internationalized else ""


def _ret(handover: Handover) -> str:
    ret = handover.envelope.parameters.ret
    return "" if ret is None else f"RET={ret.value}"


def _envid(handover: Handover) -> str:
    envid = handover.envelope.parameters.envid
    return "" if envid is None else f"ENVID={envid.encoded}"


def _by(handover: Handover) -> str:
    by, left = handover.envelope.parameters.deliver_by, handover.seconds_left
    # RFC 2852 section 4: what is left of the time; nine digits.
    return "" if by is None or left is None else f"BY={max(left, -999_999_999)};{by.mode.value}{'T' * by.is_traced}"


def _mt_priority(handover: Handover) -> str:
    priority = handover.envelope.parameters.priority
    return f"MT-PRIORITY={priority}" if priority else ""


def _requiretls(handover: Handover) -> str:
    return "REQUIRETLS" if handover.envelope.parameters.require_tls else ""


_MAIL_PARAMETERS: Final[Sequence[tuple[str, Callable[[Handover], str]]]] = (
    ("SIZE", _size),
    ("8BITMIME", _body(Body.EIGHT_BIT_MIME)),
    ("BINARYMIME", _body(Body.BINARY_MIME)),
    ("SMTPUTF8", _smtputf8),
    ("DSN", _ret),
    ("DSN", _envid),
    ("DELIVERBY", _by),
    ("MT-PRIORITY", _mt_priority),
    ("REQUIRETLS", _requiretls),
)
"""Keywords that EHLO may offer, and what each puts into MAIL: a parameter, or nothing."""


def _lacks_requiretls(handover: Handover, next_hop: NextHop) -> bool:
    has = next_hop.is_verified and "REQUIRETLS" in next_hop.offers
    return handover.envelope.parameters.require_tls and not (has or next_hop.is_local)


def _lacks_binarymime(handover: Handover, next_hop: NextHop) -> bool:
    is_binary = handover.envelope.parameters.body is Body.BINARY_MIME
    return is_binary and not {"BINARYMIME", "CHUNKING"} <= next_hop.offers.keys()


def _lacks_8bitmime(handover: Handover, next_hop: NextHop) -> bool:
    is_8bit = handover.envelope.parameters.body is Body.EIGHT_BIT_MIME
    return is_8bit and not handover.is_ascii and "8BITMIME" not in next_hop.offers


def _lacks_utf8_sender(handover: Handover, next_hop: NextHop) -> bool:
    return handover.has_utf8_sender and "SMTPUTF8" not in next_hop.offers


def _lacks_smtputf8(handover: Handover, next_hop: NextHop) -> bool:
    is_utf8 = handover.envelope.parameters.smtputf8 and not handover.is_ascii
    return is_utf8 and "SMTPUTF8" not in next_hop.offers


def _is_too_big(handover: Handover, next_hop: NextHop) -> bool:
    return next_hop.max_size is not None and handover.size > next_hop.max_size


def _is_too_late(handover: Handover, next_hop: NextHop) -> bool:
    by, left = handover.envelope.parameters.deliver_by, handover.seconds_left
    if by is None or left is None or by.mode is not ByMode.RETURN:
        return False
    # A final delivery is in time or not; a relay that knows of no time can promise nothing.
    return left <= 0 or (next_hop.dialect is Dialect.SMTP and "DELIVERBY" not in next_hop.offers)


def _reply(code: int, status: str, text: str) -> Reply:
    return Reply(code, text, EnhancedStatus.parse(status))


_UTF8_RECIPIENT: Final = _reply(553, "5.6.7", "the next hop does not take non-ASCII addresses")

_Test: TypeAlias = Callable[[Handover, NextHop], bool]
_REFUSALS: Final[Sequence[tuple[_Test, Reply]]] = (
    # RFC 8689 section 4.2
    (_lacks_requiretls, _reply(550, "5.7.30", "the next hop does not support REQUIRETLS, with a verified certificate")),
    # RFC 3030 section 3: the third of the three choices.
    (_lacks_binarymime, _reply(554, "5.6.3", "the next hop does not take binary messages")),
    # RFC 6152 section 3
    (_lacks_8bitmime, _reply(554, "5.6.3", "the next hop does not take 8-bit messages")),
    # RFC 6531 section 3.5
    (_lacks_utf8_sender, _reply(550, "5.6.7", "the next hop does not take non-ASCII addresses")),
    (_lacks_smtputf8, _reply(554, "5.6.9", "the next hop does not take internationalized messages")),
    # RFC 1870 section 6.1
    (_is_too_big, _reply(552, "5.3.4", "the message is too big for the next hop")),
    # RFC 2852 section 4
    (_is_too_late, _reply(554, "5.4.7", "the message cannot be delivered in the time that its sender has set")),
)
"""Why a message can't go to a next hop; the first that holds is what the sender is told."""

REFUSALS: Final = frozenset({_UTF8_RECIPIENT, *(reply for _, reply in _REFUSALS)})
"""What is answered here, with nothing said to the next hop."""
