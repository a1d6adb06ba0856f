"""The hooks of a policy, looked up once, each with its default answer.

The one place where a policy is called. What it raises comes through; an answer amiss is a ValueError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, final

from smtprecv.errors import ConfigError
from smtprecv.message import Client
from smtprecv.policy import ConnectPolicy, DataPolicy, HelloPolicy, MailPolicy, Policy, RcptPolicy
from smtprecv.protocol import EnhancedStatus, Envelope, Hello, Mail, Rcpt, Reply
from smtprecv.server._trouble import is_final

P = ParamSpec("P")

_ACCEPTED: Final = Reply(250, "ok")
_SENDER_OK: Final = Reply(250, "sender ok", EnhancedStatus(2, 1, 0))
_RECIPIENT_OK: Final = Reply(250, "recipient ok", EnhancedStatus(2, 1, 5))


@final
class Hooks:
    """A policy as the server calls it: every hook is there."""

    def __init__(self, policy: Policy | None) -> None:
        """Look up which hooks ``policy`` has; None has none. ConfigError for an object without any."""
        self._connect = policy if isinstance(policy, ConnectPolicy) else None
        self._hello = policy if isinstance(policy, HelloPolicy) else None
        self._mail = policy if isinstance(policy, MailPolicy) else None
        self._rcpt = policy if isinstance(policy, RcptPolicy) else None
        self._data = policy if isinstance(policy, DataPolicy) else None
        if policy is not None and not any((self._connect, self._hello, self._mail, self._rcpt, self._data)):
            msg = f"{policy!r} has no hook of a policy: connect, hello, mail, rcpt or data"
            raise ConfigError(msg)

    async def connect(self, client: Client) -> Reply:
        """Answer a connection."""
        return _ACCEPTED if self._connect is None else await _ask(self._connect.connect, client)

    async def hello(self, client: Client, hello: Hello) -> Reply:
        """Answer HELO or EHLO."""
        return _ACCEPTED if self._hello is None else await _ask(self._hello.hello, client, hello)

    async def mail(self, client: Client, mail: Mail) -> Reply:
        """Answer MAIL."""
        return _SENDER_OK if self._mail is None else await _ask(self._mail.mail, client, mail)

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        """Answer RCPT."""
        return _RECIPIENT_OK if self._rcpt is None else await _ask(self._rcpt.rcpt, client, envelope, rcpt)

    async def data(self, client: Client, envelope: Envelope) -> Reply:
        """Answer DATA."""
        return _ACCEPTED if self._data is None else await _ask(self._data.data, client, envelope)


async def _ask(hook: Callable[P, Awaitable[Reply]], *args: P.args, **kwargs: P.kwargs) -> Reply:
    reply = await hook(*args, **kwargs)
    # What is not even a Reply has no severity.
    if not is_final(reply):
        msg = f"a hook answered {reply}, which is neither yes nor no"
        raise ValueError(msg)
    return reply
