"""What is spoken at some listeners: what a user says of it, and what comes of that."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import final

from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.policy import Policy
from smtprecv.protocol import Config
from smtprecv.server._hooks import Hooks
from smtprecv.server._intake import Intake
from smtprecv.server._limits import Limits
from smtprecv.server._networks import Networks
from smtprecv.server._tls import TlsSource


@final
@dataclass(frozen=True, slots=True)
class Role:
    """How the sessions at some listeners differ from the others of a server; None is as the server's own.

    ``implicit_tls``: TLS from the first octet on (RFC 8314 section 3), with the server's ``tls``.
    """

    config: Config | None = None
    policy: Policy | None = None
    intake: Intake | None = None
    implicit_tls: bool = False


@final
@dataclass(frozen=True, slots=True)
class Service:
    """All that a session at some listeners depends on."""

    config: Config
    hooks: Hooks
    intake: Intake
    limits: Limits = Limits()
    tls: ssl.SSLContext | TlsSource | None = None
    implicit_tls: bool = False
    proxy_from: Networks = Networks()
    xclient_from: Networks = Networks()
    trusted: Networks = Networks()

    def __post_init__(self) -> None:
        """Refuse TLS without a certificate."""
        if self.tls is None and (self.implicit_tls or self.config.requires_tls):
            msg = "TLS is demanded, but there is no certificate: tls"
            raise ConfigError(msg)

    def config_for(self, client: Client) -> Config:
        """Give the settings of a session with this client: what can be offered follows from what is there."""
        return replace(
            self.config,
            starttls=self.tls is not None,
            auth=self.hooks.mechanisms,
            xclient=client.address in self.xclient_from,
            trusts_client=client.address in self.trusted,
        )
