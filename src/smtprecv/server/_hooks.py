"""The hooks of a policy, looked up once, each with its default answer.

The one place where a policy is called. What it raises comes through; an answer amiss is a ValueError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, ParamSpec, final

from smtprecv.errors import ConfigError
from smtprecv.message import Client, Redirect
from smtprecv.policy import (
    All,
    AuthPolicy,
    ConnectPolicy,
    DataPolicy,
    HelloPolicy,
    MailPolicy,
    MessagePolicy,
    Policy,
    RcptPolicy,
    ScramPolicy,
)
from smtprecv.protocol import EnhancedStatus, Envelope, Hello, Mail, Rcpt, Reply
from smtprecv.sasl import External, Identity, Password, ScramKeys
from smtprecv.server._intake import Incoming
from smtprecv.server._peer import Lookups
from smtprecv.server._spread import worst
from smtprecv.server._trouble import is_final

P = ParamSpec("P")

_ACCEPTED: Final = Reply(250, "ok")
_SENDER_OK: Final = Reply(250, "sender ok", EnhancedStatus(2, 1, 0))
RECIPIENT_OK: Final = Reply(250, "recipient ok", EnhancedStatus(2, 1, 5))

_KINDS: Final = (
    ConnectPolicy,
    HelloPolicy,
    AuthPolicy,
    ScramPolicy,
    MailPolicy,
    RcptPolicy,
    DataPolicy,
    MessagePolicy,
)
_NAMES: Final = ("connect", "hello", "authenticate", "scram_keys", "mail", "rcpt", "data", "message")


@final
class Hooks:
    """A policy as the server calls it: every hook is there."""

    def __init__(self, policy: Policy | None, lookups: Lookups | None = None) -> None:
        """Look up which hooks ``policy`` has; None has none. ConfigError for an object without any."""
        self._lookups = lookups or Lookups()
        policies = [] if policy is None else list(_single(policy))
        self._connect = [each.connect for each in policies if isinstance(each, ConnectPolicy)]
        self._hello = [each.hello for each in policies if isinstance(each, HelloPolicy)]
        self._authenticate = [each.authenticate for each in policies if isinstance(each, AuthPolicy)]
        self._scram_keys = [each.scram_keys for each in policies if isinstance(each, ScramPolicy)]
        self._mail = [each.mail for each in policies if isinstance(each, MailPolicy)]
        self._rcpt = [each.rcpt for each in policies if isinstance(each, RcptPolicy)]
        self._data = [each.data for each in policies if isinstance(each, DataPolicy)]
        self._message = [each.message for each in policies if isinstance(each, MessagePolicy)]

    async def look_up(self, client: Client) -> Client:
        """Complete what is known of a client, before ``connect`` sees it."""
        return await self._lookups.complete(client)

    def connect(self, client: Client) -> Awaitable[Reply]:
        """Answer a connection."""
        return _ask(self._connect, _ACCEPTED, client)

    def hello(self, client: Client, hello: Hello) -> Awaitable[Reply]:
        """Answer HELO or EHLO."""
        return _ask(self._hello, _ACCEPTED, client, hello)

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The mechanisms of AUTH for which there is somebody to ask, the best first."""
        scram = ("SCRAM-SHA-256",) if self._scram_keys else ()
        return ("EXTERNAL", *scram, "PLAIN", "LOGIN") if self._authenticate else scram

    async def authenticate(self, client: Client, credentials: Password | External) -> Identity | Reply:
        """Answer what a client brings: by the first policy that knows it, else as those that do not say together."""
        refusals: list[Reply] = []
        for hook in self._authenticate:
            answer = await hook(client, credentials)
            if isinstance(answer, Identity):
                return answer
            if not is_final(answer) or answer.is_ok:
                msg = f"a hook answered {answer}, which is neither an identity nor a refusal"
                raise ValueError(msg)
            refusals.append(answer)
        return worst(refusals)

    async def scram_keys(self, client: Client, user: str) -> ScramKeys | None:
        """Give the keys of a user from the first policy that has some."""
        for hook in self._scram_keys:
            keys = await hook(client, user)
            if keys is not None:
                return keys
        return None

    def mail(self, client: Client, mail: Mail) -> Awaitable[Reply]:
        """Answer MAIL."""
        return _ask(self._mail, _SENDER_OK, client, mail)

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply | Redirect:
        """Answer RCPT."""
        redirect: Redirect | None = None
        reply = RECIPIENT_OK
        for hook in self._rcpt:
            answer = await hook(client, envelope, rcpt)
            if isinstance(answer, Redirect):
                redirect = answer
                continue
            reply = _checked(answer)
            if not reply.is_ok:
                return reply
        return redirect or reply

    def data(self, client: Client, envelope: Envelope) -> Awaitable[Reply]:
        """Answer DATA."""
        return _ask(self._data, _ACCEPTED, client, envelope)

    async def message(self, client: Client, envelope: Envelope, incoming: Incoming) -> Reply:
        """Answer the end of a sound message, which is made readable only if there is somebody to read it."""
        if not self._message:
            return _ACCEPTED
        return await _ask(self._message, _ACCEPTED, client, envelope, await incoming.message())


def _single(policy: Policy) -> Iterator[Policy]:
    """Give the policies that a policy consists of, in order; ConfigError for an object that is none."""
    if isinstance(policy, All) and policy.policies:
        for each in policy.policies:
            yield from _single(each)
    elif not isinstance(policy, _KINDS):
        msg = f"{policy!r} has no hook of a policy: {', '.join(_NAMES)}"
        raise ConfigError(msg)
    elif isinstance(policy, type):
        msg = f"{policy!r} is a class, and a policy is an object"
        raise ConfigError(msg)
    else:
        _refuse_fields(policy)
        yield policy


def _refuse_fields(policy: object) -> None:
    """Find out before the first client, not from it, that a hook's name stands for something else."""
    for name in _NAMES:
        if not callable(getattr(policy, name, print)):
            msg = f"{name} of {policy!r} is not a function, and has the name of a hook"
            raise ConfigError(msg)


async def _ask(
    hooks: Sequence[Callable[P, Awaitable[Reply]]], default: Reply, *args: P.args, **kwargs: P.kwargs
) -> Reply:
    """Ask until one refuses."""
    reply = default
    for hook in hooks:
        reply = _checked(await hook(*args, **kwargs))
        if not reply.is_ok:
            break
    return reply


def _checked(reply: Reply) -> Reply:
    # What is not even a Reply has no severity.
    if not is_final(reply):
        msg = f"a hook answered {reply}, which is neither yes nor no"
        raise ValueError(msg)
    return reply
