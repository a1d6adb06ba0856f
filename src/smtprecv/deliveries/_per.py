"""How often a delivery asks on one attempt: for each recipient, or once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias, TypeVar

import trio

from smtprecv.deliveries._trouble import BROKEN_OFF
from smtprecv.protocol import Recipient, Reply

_A = TypeVar("_A")

Per: TypeAlias = Literal["recipient", "message"]
"""``recipient``: once for each, who has a reply of his own; ``message``: once, and the reply is for all of them."""


async def ask(
    per: Per, recipients: Sequence[Recipient], one: Callable[[Sequence[Recipient]], Awaitable[_A]]
) -> Sequence[_A | Reply]:
    """Give one answer for each recipient, in order; those that stand there twice are asked for once.

    Cancellation after the first answer ends the asking, and what was answered stays: the others are put off.
    """
    distinct = list(dict.fromkeys(recipients))
    parties = [distinct] if per == "message" else [[recipient] for recipient in distinct]
    answers: dict[Recipient, _A] = {}
    try:
        for party in parties:
            answers |= dict.fromkeys(party, await one(party))
    except* trio.Cancelled:
        pass
    if not answers:
        await trio.lowlevel.checkpoint_if_cancelled()
    return [answers.get(recipient, BROKEN_OFF) for recipient in recipients]
