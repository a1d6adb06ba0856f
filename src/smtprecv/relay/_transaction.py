"""A mail transaction: who gets which reply.

The envelope goes in groups where PIPELINING is offered (RFC 2920 section 3.1), each small enough that neither side
ever waits for the other to read. DATA is never in a group: whether there is anybody to send the message to is known
before it begins, and its 354, which answers nothing else, shows that both sides count the same replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from smtprecv.protocol import Body, Dialect, EnhancedStatus, Notify, Recipient, Reply, Severity
from smtprecv.relay._handover import Handover, mail_line, rcpt_line, recipient_refusal, refusal
from smtprecv.relay._nexthop import NextHop
from smtprecv.relay._step import OUT_OF_STEP, Exchange, Phase, Say, SendMail, SessionFailed

_GROUP_SIZE: Final = 50
"""Commands sent before a reply is read: their replies, 25 KiB at most, fit into what the system buffers."""
_REFUSED: Final = frozenset({Severity.TRANSIENT, Severity.PERMANENT})
_MAX_TEXT_SIZE: Final = 1024
"""Characters of a reply that are kept with each recipient."""
_UNEXPECTED: Final = EnhancedStatus(4, 5, 0)
_RELAYED: Final = EnhancedStatus(2, 1, 9)
"""RFC 3886: relayed to who does not speak of it any more."""


def transaction(handover: Handover, next_hop: NextHop) -> Exchange[tuple[Reply, ...]]:
    """Hand a message over, and give a reply for each of its recipients: 2yz, it is the next hop's now.

    SessionFailed if the replies do not fit what was asked: then nobody has got the message as far as anybody can
    tell. Otherwise the session is where it was, and the next transaction may follow.
    """
    refused = refusal(handover, next_hop)
    if refused is not None:
        return (refused,) * len(handover.recipients)
    outcomes = {index: recipient_refusal(each, next_hop) for index, each in enumerate(handover.recipients)}
    wanted = [index for index, reply in outcomes.items() if reply is None]
    lines = [rcpt_line(handover.recipients[index], handover, next_hop) for index in wanted]
    answers = (yield from _envelope(mail_line(handover, next_hop), lines, next_hop)) if wanted else ()
    outcomes.update(zip(wanted, answers, strict=True))
    accepted = [index for index, reply in zip(wanted, answers, strict=True) if reply.is_ok]
    if accepted:
        replies = yield from _mail_data(handover, next_hop, len(accepted))
        outcomes.update(zip(accepted, replies, strict=True))
    return tuple(
        _outcome(outcomes[index] or OUT_OF_STEP, each, next_hop) for index, each in enumerate(handover.recipients)
    )


def _envelope(mail: bytes, lines: Sequence[bytes], next_hop: NextHop) -> Exchange[Sequence[Reply]]:
    """Give the reply to each RCPT line; a sender who is refused is the reply to all."""
    size = _GROUP_SIZE if "PIPELINING" in next_hop.offers else 1
    commands = (mail, *lines)
    first, *others = [commands[start : start + size] for start in range(0, len(commands), size)]
    sender, *answers = yield Say(b"".join(first), len(first), Phase.MAIL)
    if not sender.is_ok:
        return [sender] * len(lines)
    for group in others:
        answers += yield Say(b"".join(group), len(group), Phase.RCPT)
    if not any(reply.is_ok for reply in answers):
        yield _RSET
    return answers


def _mail_data(handover: Handover, next_hop: NextHop, accepted: int) -> Exchange[Sequence[Reply]]:
    """Send the message, and give a reply for each of those who were accepted."""
    # RFC 2033 section 4.2: by LMTP each of them has a reply of its own.
    due = accepted if next_hop.dialect is Dialect.LMTP else 1
    is_chunked = handover.envelope.parameters.body is Body.BINARY_MIME
    if not is_chunked:
        (reply,) = yield Say(b"DATA\r\n", 1, Phase.DATA)
        if reply.severity in _REFUSED:
            yield _RSET
            return [reply] * accepted
        if reply.code != 354:
            raise SessionFailed(OUT_OF_STEP)
    replies = yield SendMail(is_chunked, due)
    return replies if due == accepted else [*replies] * accepted


def _outcome(reply: Reply, recipient: Recipient, next_hop: NextHop) -> Reply:
    """Give what is remembered of a reply: never a 3yz, and not more text than anybody reads."""
    if reply.severity is Severity.INTERMEDIATE:
        reply = Reply(451, f"the next hop said {reply}", _UNEXPECTED)
    notify = recipient.parameters.notify or frozenset()
    # RFC 3461 section 5.2.2: the sender is to be told by us that a server without DSN has it.
    is_last_known = next_hop.dialect is Dialect.SMTP and "DSN" not in next_hop.offers
    if reply.is_ok and is_last_known and Notify.SUCCESS in notify:
        reply = replace(reply, status=_RELAYED)
    return replace(reply, text=reply.text[:_MAX_TEXT_SIZE])


_RSET: Final = Say(b"RSET\r\n", 1, Phase.RSET)
"""Ends a transaction that came to nothing."""
