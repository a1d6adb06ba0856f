"""What must hold of everything that the world has seen, over all lives of a process.

1. Who was promised to is served, or his sender is told that he is not, or he has failed and is to be seen.
2. Nobody is served twice, but for those whom a process served that died before this was recorded.
3. A sender is told of a recipient once.
4. Nothing odd was seen: a message that is not what was sent, a fault in the spool, a logged error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import TypeAlias, final

from tests.simulation.plan import Mail
from tests.simulation.sights import Crashed, Odd, Promised, Recorded, Refused, Served, Sight, Told
from tests.simulation.world import finals, is_bad

from smtprecv.spool import Entry, Status

_Key: TypeAlias = tuple[str, str]
"""A message or report, and who gets it."""


@final
class Service(Enum):
    """How far a recipient is with a message."""

    SERVED = auto()
    RECORDED = auto()
    UNKNOWN = auto()
    """The process that served him died before it had recorded so: it may be done once more."""


def violations(history: Sequence[Sight], mails: Mapping[str, Mail], left: Sequence[Entry]) -> Iterator[str]:
    """Say what does not hold. ``left``: what is in the queue at the end, when nothing is pending."""
    yield from (f"odd: {sight.what}" for sight in history if isinstance(sight, Odd))
    yield from _twice(history)
    yield from _told_twice(history)
    yield from _lost(history, mails, left)
    yield from (f"still pending: {entry.queue_id}" for entry in left if entry.pending)


def _twice(history: Sequence[Sight]) -> Iterator[str]:
    services: dict[_Key, Service] = {}
    names: dict[str, list[_Key]] = {}
    refused: set[str] = set()
    for sight in history:
        match sight:
            case Refused(token):
                refused.add(token)
            case Served() | Told():
                key = (sight.token, sight.recipient) if isinstance(sight, Served) else (sight.queue_id, "the sender")
                if services.get(key, Service.UNKNOWN) is not Service.UNKNOWN:
                    yield f"served twice: {key}"
                if isinstance(sight, Served) and sight.token in refused:
                    yield f"served, though refused: {key}"
                services[key] = Service.SERVED
                names.setdefault(sight.queue_id, []).append(key)
            case Recorded(queue_id):
                _move(services, names.get(queue_id, ()), Service.RECORDED)
            case Crashed():
                _move(services, list(services), Service.UNKNOWN)
            case Promised() | Odd():
                pass


def _move(services: dict[_Key, Service], keys: Sequence[_Key], service: Service) -> None:
    """Change how far those are who are served, and no more than that."""
    services.update((key, service) for key in keys if services[key] is Service.SERVED)


def _told_twice(history: Sequence[Sight]) -> Iterator[str]:
    reports = {(sight.queue_id, sight.token, sight.recipients) for sight in history if isinstance(sight, Told)}
    told = Counter((token, recipient) for _, token, recipients in reports for recipient in recipients)
    yield from (f"told twice: {key}" for key, count in told.items() if count > 1)


def _lost(history: Sequence[Sight], mails: Mapping[str, Mail], left: Sequence[Entry]) -> Iterator[str]:
    served = {(sight.token, sight.recipient) for sight in history if isinstance(sight, Served)}
    told = {(sight.token, each) for sight in history if isinstance(sight, Told) for each in sight.recipients}
    failed = {
        (str(entry.envelope.recipients[0]).partition("-")[2], str(standing.recipient))
        for entry in left
        for standing in entry.standings
        if standing.status is Status.FAILED
    }
    for token in (sight.token for sight in history if isinstance(sight, Promised)):
        mail = mails[token]
        for recipient in mail.recipients:
            for final_recipient in finals(recipient):
                if not is_bad(final_recipient):
                    if (token, final_recipient) not in served:
                        yield f"lost: {token} for {final_recipient}"
                elif mail.has_sender and (token, recipient) not in told:
                    yield f"never told: {token} for {recipient}"
                elif not mail.has_sender and (f"{token}@example.net", final_recipient) not in failed:
                    yield f"not to be seen: {token} for {final_recipient}"
