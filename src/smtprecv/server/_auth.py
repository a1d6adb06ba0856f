"""AUTH (RFC 4954): leads an exchange of SASL, and asks the policy for what it can't know.

Its one rule: how an exchange goes on never depends on whether there is such a user.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Generator
from typing import Final, TypeAlias, final

from smtprecv.message import Client
from smtprecv.protocol import Auth, AuthResponse, EnhancedStatus, Reply
from smtprecv.sasl import External, Identity, Password, SaslError, ScramKeys, ScramStart, advance, mechanisms
from smtprecv.server._hooks import Hooks

_NONCE_SIZE: Final = 24
"""Octets of randomness in our part of the nonce (RFC 5802 section 5.1)."""

_SECRET: Final = secrets.token_bytes(32)
"""What the keys of a user who is not there are made of: as long as this process lives, at every listener the same."""

_CANCELLED: Final = Reply(501, "authentication cancelled", EnhancedStatus(5, 7, 0))

_Finding: TypeAlias = Password | External | ScramStart | Identity
_Exchange: TypeAlias = Generator[bytes, bytes, _Finding]


@final
class Authentication:
    """The AUTH exchanges of one session, one at a time."""

    def __init__(self, hooks: Hooks) -> None:
        """Begin without one."""
        self._hooks = hooks
        self._exchange: _Exchange | None = None

    async def answer(self, client: Client, event: Auth | AuthResponse) -> Reply | Identity:
        """Give the next challenge as a 334, who the client was shown to be, or the refusal that ends the exchange."""
        exchange, self._exchange = self._exchange, None
        try:
            if isinstance(event, Auth):
                exchange = self._begin(client, event.mechanism)
                challenge = advance(exchange)
                step = challenge if event.initial_response is None else advance(exchange, event.initial_response)
            elif exchange is None or event.octets is None:
                return _CANCELLED  # RFC 4954 section 4: 501 to the client that gives up
            else:
                step = advance(exchange, event.octets)
        except SaslError as error:
            return error.reply
        return await self._follow(client, exchange, step)

    def _begin(self, client: Client, mechanism: str) -> _Exchange:
        tls = client.session.tls
        return mechanisms(None if tls is None else tls.client_name)[mechanism]()

    async def _keys(self, client: Client, start: ScramStart) -> ScramKeys:
        keys = await self._hooks.scram_keys(client, start.user)
        return keys or ScramKeys.of_nobody(start.user, secret=_SECRET)

    async def _follow(self, client: Client, exchange: _Exchange, step: bytes | _Finding) -> Reply | Identity:
        match step:
            case bytes():
                self._exchange = exchange
                return Reply(334, b64encode(step).decode())
            case ScramStart():
                keys = await self._keys(client, step)
                exchange = step.proceed(keys, nonce=secrets.token_urlsafe(_NONCE_SIZE))
                return await self._follow(client, exchange, advance(exchange))
            case Password() | External():
                return await self._hooks.authenticate(client, step)
            case Identity():  # pragma: no branch  # the union ends here, which the type checkers prove
                return step
