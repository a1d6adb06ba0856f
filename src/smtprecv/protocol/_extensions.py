"""The service extensions that the answer to EHLO announces (RFC 5321 section 4.1.1.1), as data."""

from __future__ import annotations

from typing import Final

from smtprecv.protocol._config import Config

_OFFERS: Final = (
    "PIPELINING",  # RFC 2920 section 2
    "SIZE {config.max_message_size}",  # RFC 1870 section 3
    "8BITMIME",  # RFC 6152 section 2
    "SMTPUTF8",  # RFC 6531 section 3.1
    "ENHANCEDSTATUSCODES",  # RFC 2034 section 3
    "HELP",  # RFC 5321 section 4.1.1.1
)


def offers(config: Config) -> tuple[str, ...]:
    """Give the EHLO lines, in the order in which they are announced."""
    return tuple(offer.format(config=config) for offer in _OFFERS)
