"""The part of a report that people read: what was done for whom, why, and what happens next.

Its one rule: what somebody else said stands in lines of its own, indented, so that it can't be taken for ours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from email.utils import format_datetime
from typing import Final, NamedTuple, final

from smtprecv.dsn._rules import Action, Outcome
from smtprecv.dsn._status import address_of, remote_of, transcript_of
from smtprecv.spool import Entry
from smtprecv.trace import word

_LINE_SIZE: Final = 72


@final
class _Words(NamedTuple):
    subject: str
    heading: str
    ending: str


WORDS: Final[Mapping[Action, _Words]] = {
    Action.FAILED: _Words(
        "Your message could not be delivered",
        "Your message could not be delivered to",
        "It is not tried again.",
    ),
    Action.DELAYED: _Words(
        "Your message is delayed",
        "Your message could not be delivered so far to",
        "This is a warning only. You do not need to send your message again: it is still tried{until}.",
    ),
    Action.RELAYED: _Words(
        "Your message was passed on",
        "Your message was passed on to another mail system, which may not say whether it delivers it, for",
        "You may get no further report, unless the delivery fails.",
    ),
    Action.EXPANDED: _Words(
        "Your message was delivered",
        "Your message was delivered to all mailboxes behind",
        "They may pass it on.",
    ),
    Action.DELIVERED: _Words(
        "Your message was delivered",
        "Your message was delivered to",
        "This does not say that it was read.",
    ),
}
"""What is said of each action; a report of several has the subject of the first of them in this order."""


def subject(outcomes: Sequence[Outcome]) -> str:
    """Give the subject of a report."""
    actions = {outcome.action for outcome in outcomes}
    return next(words.subject for action, words in WORDS.items() if action in actions)


def explanation(entry: Entry, outcomes: Sequence[Outcome], hostname: str, *, is_all: bool) -> bytes:
    """Give the text, in UTF-8 where an address is. ``is_all``: the whole message is attached, not its header alone."""
    paragraphs = [f"This is the mail system at {word(hostname)}."]
    for action in WORDS:
        told = [outcome for outcome in outcomes if outcome.action is action]
        if told:
            paragraphs += _section(action, told)
    what = "Your message is" if is_all else "The header of your message is"
    paragraphs.append(_wrapped(f"{what} attached. Here it had the name {word(entry.queue_id)} in the queue.", 0))
    return "\r\n\r\n".join(paragraphs).encode() + b"\r\n"


def _section(action: Action, outcomes: Sequence[Outcome]) -> Iterator[str]:
    words, last = WORDS[action], outcomes[-1].retried_until
    until = "" if last is None else f" until {format_datetime(last)}"
    yield _wrapped(f"{words.heading}:", 0)
    for outcome in outcomes:
        yield "\r\n".join(_recipient(outcome))
    yield _wrapped(words.ending.format(until=until), 0)


def _recipient(outcome: Outcome) -> Iterator[str]:
    yield f"    <{address_of(outcome)}>"
    transcript, remote = transcript_of(outcome), remote_of(outcome)
    if transcript is not None:
        whose = "The answer was" if remote is None else f"{remote} answered"
        yield _wrapped(f"{whose}: {transcript}", 8)


def _wrapped(text: str, indentation: int) -> str:
    indent = " " * indentation
    lines = textwrap.wrap(
        text,
        _LINE_SIZE,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\r\n".join(lines)
