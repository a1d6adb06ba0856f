"""What is known of the server at the other end: what it offers, and who it was shown to be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, final

from smtprecv.protocol import Dialect, Reply

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_LIMIT: Final = re.compile(r"(?P<name>[A-Za-z0-9-]+)=(?P<value>[1-9][0-9]{0,5})")
_USUAL_RECIPIENTS: Final = 100
"""Recipients of a transaction that every server takes (RFC 5321 section 4.5.3.1.8)."""


@final
@dataclass(frozen=True, slots=True)
class NextHop:
    """The server that a session is held with.

    ``offers``: the keywords of its service extensions, in upper case, and what stood behind each; none after HELO.
    ``is_verified``: TLS is spoken, and its certificate is one that is trusted for its name.
    ``is_local``: it is reached without a network.
    """

    dialect: Dialect = Dialect.SMTP
    offers: Mapping[str, str] = field(default_factory=dict[str, str])
    is_verified: bool = False
    is_local: bool = False

    @property
    def max_size(self) -> int | None:
        """Octets of the largest message that it takes; None if it does not say (RFC 1870 section 3)."""
        match = _NUMBER.fullmatch(self.offers.get("SIZE", ""))
        return (int(match[0]) or None) if match else None

    @property
    def max_recipients(self) -> int:
        """Recipients of one transaction that it takes (RFC 9422 section 4)."""
        return self._limits.get("RCPTMAX", _USUAL_RECIPIENTS)

    @property
    def max_transactions(self) -> float:
        """Transactions of one session that it takes; infinite if it does not say."""
        return self._limits.get("MAILMAX", inf)

    @property
    def _limits(self) -> Mapping[str, int]:
        words = self.offers.get("LIMITS", "").split()
        return {match["name"].upper(): int(match["value"]) for match in map(_LIMIT.fullmatch, words) if match}

    @property
    def mechanisms(self) -> frozenset[str]:
        """The mechanisms that AUTH may use."""
        return frozenset(self.offers.get("AUTH", "").upper().split())


def offers_in(reply: Reply) -> Mapping[str, str]:
    """Read the reply to EHLO or LHLO (RFC 5321 section 4.1.1.1); of a keyword that comes twice, the first counts."""
    offers: dict[str, str] = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        # Servers of old write "AUTH=PLAIN"; no keyword has that sign in it.
        keyword, _, first = keyword.partition("=")
        offers.setdefault(keyword.upper(), f"{first} {parameters}".strip())
    return offers
