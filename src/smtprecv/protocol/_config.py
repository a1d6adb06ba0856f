"""The settings of the protocol core."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

from smtprecv.protocol._envelope import Dialect
from smtprecv.protocol._grammar import parse_host

_MECHANISM: Final = re.compile(r"[A-Z0-9_-]{1,20}")


@final
@dataclass(frozen=True, slots=True)
class Config:
    """What one protocol session may do.

    ``hostname``: the receiver's own name, a domain (A-labels) or an address literal. ``max_message_size``: octets
    of one message after unstuffing, announced by SIZE. ``max_recipients``: RCPT commands accepted
    in one transaction, at least 100 (RFC 5321 section 4.5.3.1.8). ``max_hops``: Received fields in one
    header (RFC 5321 section 6.3). ``help_text``: what HELP is answered.

    ``max_transactions``: MAIL commands of one session, None for no limit; both limits are announced (RFC 9422).
    ``dialect``: SMTP or LMTP. ``requires_tls``: nothing but STARTTLS and what leads to it outside of TLS
    (RFC 3207 section 4). ``requires_auth``: no MAIL before AUTH (RFC 4954 section 6). ``auth_without_tls``: AUTH in
    clear too.

    What the server behind the machine can do, which `smtprecv.Server` sets by itself: ``starttls``;
    ``auth``, the mechanisms; ``trusts_client``: the client may set priorities without AUTH; ``xclient``: it may say
    who the client really is, by XCLIENT and XFORWARD.

    ValueError for anything that the RFC forbids.
    """

    hostname: str
    max_message_size: int = 50 * 1024 * 1024
    max_recipients: int = 1000
    max_hops: int = 100
    help_text: str = "see RFC 5321"
    max_transactions: int | None = None
    dialect: Dialect = Dialect.SMTP
    requires_tls: bool = False
    requires_auth: bool = False
    auth_without_tls: bool = False
    starttls: bool = False
    auth: tuple[str, ...] = ()
    trusts_client: bool = False
    xclient: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that is none, and limits that the RFC forbids."""
        if not self.hostname.isascii():
            msg = "hostname must be written in A-labels (xn--…)"
            raise ValueError(msg)
        parse_host(self.hostname)
        # RFC 5321 sections 4.5.3.1, 4.5.3.1.7 and 4.5.3.1.8: at least 64K octets and 100 recipients.
        if self.max_message_size < 64 * 1024:
            msg = "max_message_size must be at least 65536 octets (RFC 5321 section 4.5.3.1.7)"
            raise ValueError(msg)
        if self.max_recipients < 100:
            msg = "max_recipients must be at least 100 (RFC 5321 section 4.5.3.1.8)"
            raise ValueError(msg)
        if self.max_hops < 1:
            msg = "max_hops must be at least 1"
            raise ValueError(msg)
        if not all(_MECHANISM.fullmatch(mechanism) for mechanism in self.auth):
            msg = "auth must name mechanisms as they are announced (RFC 4422 section 3.1)"
            raise ValueError(msg)
        if self.max_transactions is not None and self.max_transactions < 1:
            msg = "max_transactions must be at least 1"
            raise ValueError(msg)
