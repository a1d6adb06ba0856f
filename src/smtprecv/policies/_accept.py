"""Which recipients a receiver answers for: those of its own domains, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.protocol import EnhancedStatus, Envelope, Host, Rcpt, Reply, parse_host

_ACCEPTED: Final = Reply(250, "recipient ok", EnhancedStatus(2, 1, 5))
_DENIED: Final = Reply(550, "relaying denied", EnhancedStatus(5, 7, 1))  # RFC 5321 section 3.6.2


@final
class AcceptDomains:
    """A RcptPolicy that accepts every local part of some domains, and refuses the rest with 550 5.7.1.

    ``domains``: names, U-labels allowed, or address literals in brackets; subdomains are other domains.
    ``hostname``: the receiver's own name, whose postmaster is accepted too: ``<postmaster>``
    without a domain is that one (RFC 5321 section 4.5.1). ``trusts_users``: whom AUTH has identified may send to
    anybody. ConfigError for a name that is none.
    """

    def __init__(self, domains: Iterable[str], hostname: str, *, trusts_users: bool = False) -> None:
        """Take the domains."""
        self._trusts_users: Final = trusts_users
        self._domains: Final = frozenset(_host(domain) for domain in domains)
        self._own: Final = _host(hostname)

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        """Answer a recipient by its domain."""
        domain = rcpt.forward_path.mailbox.domain
        is_ours = domain in self._domains or (rcpt.forward_path.is_postmaster and domain == self._own)
        is_user = self._trusts_users and client.session.identity is not None
        return _ACCEPTED if is_ours or is_user else _DENIED


def _host(text: str) -> Host:
    try:
        return parse_host(text)
    except ValueError as error:
        msg = f"{text!r} is not a domain: {error}"
        raise ConfigError(msg) from None
