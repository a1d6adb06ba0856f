"""What is spoken at some listeners: what a user says of it, and what comes of that."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import Final, final

from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.policy import Policy
from smtprecv.protocol import Config, Dialect, Reply
from smtprecv.server._hooks import Hooks
from smtprecv.server._intake import Intake
from smtprecv.server._limits import Limits
from smtprecv.server._networks import Networks
from smtprecv.server._tls import TlsSource


@final
@dataclass(frozen=True, slots=True)
class Role:
    """How the sessions at some listeners differ from the others of a server; None is as the server's own.

    ``implicit_tls``: TLS from the first octet on (RFC 8314 section 3.3), with the server's ``tls``.
    """

    config: Config | None = None
    policy: Policy | None = None
    intake: Intake | None = None
    implicit_tls: bool = False


@final
class Service:
    """All that a session at some listeners depends on."""

    def __init__(
        self,
        config: Config,
        hooks: Hooks,
        intake: Intake,
        limits: Limits,
        *,
        tls: ssl.SSLContext | TlsSource | None = None,
        implicit_tls: bool = False,
        proxy_from: Networks | None = None,
        xclient_from: Networks | None = None,
    ) -> None:
        """Put it together; ConfigError for what would serve nobody: TLS or AUTH demanded that cannot be had."""
        if tls is None and (implicit_tls or config.requires_tls):
            msg = "TLS is demanded, and there is no certificate for it: tls"
            raise ConfigError(msg)
        if isinstance(tls, ssl.SSLContext) and tls.protocol is ssl.PROTOCOL_TLS_CLIENT:
            msg = "tls is a context of a client: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) makes a server's"
            raise ConfigError(msg)
        if config.requires_auth and not (hooks.mechanisms and (tls or config.auth_without_tls)):
            msg = "AUTH is demanded, and never offered: it needs a policy that authenticates, and TLS"
            raise ConfigError(msg)
        self.hooks: Final = hooks
        self.intake: Final = intake
        self.limits: Final = limits
        self.tls: Final = tls
        self.implicit_tls: Final = implicit_tls
        self.proxy_from: Final = proxy_from or Networks()
        # What can be offered follows from what is there.
        self.config: Final = replace(config, starttls=tls is not None, auth=hooks.mechanisms)
        self.banner: Final = Reply(220, f"{config.hostname} {'LMTP' if config.dialect is Dialect.LMTP else 'ESMTP'}")
        self._xclient_from: Final = xclient_from or Networks()
        self._trusting: Final = replace(self.config, trusts_client=True, xclient=True)

    def config_for(self, client: Client) -> Config:
        """Give the settings of a session with this client."""
        return self._trusting if client.address in self._xclient_from else self.config
