"""How often a delivery asks on one attempt: for each recipient, or once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias, TypeVar

from smtprecv.protocol import Recipient

_A = TypeVar("_A")

Per: TypeAlias = Literal["recipient", "message"]
"""``recipient``: once for each, who has a reply of his own; ``message``: once, and the reply is for all of them."""


async def ask(
    per: Per, recipients: Sequence[Recipient], one: Callable[[Sequence[Recipient]], Awaitable[_A]]
) -> Sequence[_A]:
    """Give one answer for each recipient, in order; those that stand there twice are asked for once."""
    distinct = list(dict.fromkeys(recipients))
    parties = [distinct] if per == "message" else [[recipient] for recipient in distinct]
    replies: dict[Recipient, _A] = {}
    for party in parties:
        replies |= dict.fromkeys(party, await one(party))
    return [replies[recipient] for recipient in recipients]
