"""What is to happen in one simulation: all of it drawn from one seed, and data, so that it can be made smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Final, final

from tests.simulation.disk import Loss

LARGE_SIZE: Final = 9000
"""Octets of a message whose body is a file: the spools of the simulation hold less in memory."""


@final
class Ending(Enum):
    """What a client does with a message."""

    WHOLE = "sends it all"
    CUT = "is gone in the midst of it"
    RESET = "takes it back before DATA"


@final
@dataclass(frozen=True, slots=True)
class Mail:
    """One message. ``token`` names it in its header."""

    token: str
    recipients: tuple[str, ...]
    size: int
    has_sender: bool
    ending: Ending

    @property
    def octets(self) -> bytes:
        """The message; a line in it begins with a dot."""
        line = f".{self.token} and so on, up to the end of the line\r\n"
        text = f"X-Token: {self.token}\r\n\r\n{line * (self.size // len(line) + 1)}"
        return text.encode()


@final
@dataclass(frozen=True, slots=True)
class Sending:
    """What one client does: it comes after ``delay`` seconds, and sends some messages."""

    delay: float
    mails: tuple[Mail, ...]


@final
@dataclass(frozen=True, slots=True)
class Life:
    """One life of the process: its clients, how long it goes on, and how it ends.

    ``is_lean``: what arrives is not for the process itself to deliver, but for the pass that it makes at ``pass_at``.
    ``crash``: the place of the crash, 0 to below 1 of all that happens in the life; ``near_sights``: of what the world
    sees, and then ``steps`` things later.
    """

    number: int
    sendings: tuple[Sending, ...]
    seconds: float
    is_lean: bool
    loss: Loss
    crash: float
    near_sights: bool
    steps: int


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """One simulation: the lives of a process that ends with a crash each time, before the last one that is healthy."""

    seed: int
    wal_limit: int
    lives: tuple[Life, ...]


def drawn(seed: int) -> Plan:
    """Draw a plan."""
    chance = Random(seed)
    lives = tuple(_life(chance, number) for number in range(chance.choice((1, 1, 2, 3))))
    return Plan(seed, chance.choice((20_000, 100_000, 4_000_000)), lives)


def _life(chance: Random, number: int) -> Life:
    sendings = tuple(_sending(chance, f"{number}-{index}") for index in range(chance.randint(0 if number else 1, 3)))
    return Life(
        number,
        sendings,
        seconds=chance.choice((5.0, 40.0, 200.0)),
        is_lean=chance.random() < 0.25,
        loss=chance.choice((Loss.KILL, Loss.NOTHING, Loss.ORDERED, Loss.SCATTERED)),
        crash=chance.random(),
        near_sights=chance.random() < 0.6,
        steps=chance.randint(0, 9),
    )


def _sending(chance: Random, name: str) -> Sending:
    mails = tuple(_mail(chance, f"{name}-{index}") for index in range(chance.randint(1, 3)))
    return Sending(chance.choice((0.0, 0.0, chance.uniform(0, 30))), mails)


def _mail(chance: Random, token: str) -> Mail:
    kinds = chance.choices(("ok", "bad", "list"), (5, 2, 1), k=chance.choice((1, 1, 2, 3)))
    return Mail(
        token,
        tuple(f"{kind}{index}-{token}@example.net" for index, kind in enumerate(kinds)),
        chance.choice((50, 50, 1500, LARGE_SIZE)),
        has_sender=chance.random() < 0.85,
        ending=chance.choices((Ending.WHOLE, Ending.CUT, Ending.RESET), (12, 1, 1))[0],
    )


def smaller(plan: Plan) -> Iterator[Plan]:
    """Give plans in which one thing less happens: a life, a client, a message, a recipient, octets."""
    for index, life in enumerate(plan.lives):
        if len(plan.lives) > 1:
            yield replace(plan, lives=(*plan.lives[:index], *plan.lives[index + 1 :]))
        for less in _smaller_life(life):
            yield replace(plan, lives=(*plan.lives[:index], less, *plan.lives[index + 1 :]))


def elsewhere(plan: Plan) -> Iterator[Plan]:
    """Give plans in which the crash of one life is at another place."""
    for index, life in enumerate(plan.lives):
        for place in range(0, 100, 9):
            other = replace(life, crash=place / 100, near_sights=False)
            yield replace(plan, lives=(*plan.lives[:index], other, *plan.lives[index + 1 :]))


def _smaller_life(life: Life) -> Iterator[Life]:
    for index, sending in enumerate(life.sendings):
        before, after = life.sendings[:index], life.sendings[index + 1 :]
        yield replace(life, sendings=(*before, *after))
        if sending.delay:
            yield replace(life, sendings=(*before, replace(sending, delay=0.0), *after))
        for place, mail in enumerate(sending.mails):
            for less in ((), *((each,) for each in _smaller_mail(mail))):
                mails = (*sending.mails[:place], *less, *sending.mails[place + 1 :])
                yield replace(life, sendings=(*before, replace(sending, mails=mails), *after))
    if life.seconds > 5:
        yield replace(life, seconds=5.0)


def _smaller_mail(mail: Mail) -> Iterator[Mail]:
    if len(mail.recipients) > 1:
        for index in range(len(mail.recipients)):
            yield replace(mail, recipients=(*mail.recipients[:index], *mail.recipients[index + 1 :]))
    if mail.size > 50:
        yield replace(mail, size=50)
