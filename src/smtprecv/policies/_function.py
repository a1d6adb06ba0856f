"""Functions as policies: each of these gives an object with one hook, which asks the function.

They stand as decorators too. The hook's Protocol says what the function is given, by position, and may answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, final

from smtprecv.message import Client, Message, Redirect
from smtprecv.policy import AuthPolicy, ConnectPolicy, DataPolicy, HelloPolicy, MailPolicy, MessagePolicy, RcptPolicy
from smtprecv.protocol import Envelope, Hello, Mail, Rcpt, Reply
from smtprecv.sasl import External, Identity, Password

_Connect: TypeAlias = Callable[[Client], Awaitable[Reply]]
_Hello: TypeAlias = Callable[[Client, Hello], Awaitable[Reply]]
_Authenticate: TypeAlias = Callable[[Client, Password | External], Awaitable[Identity | Reply]]
_Mail: TypeAlias = Callable[[Client, Mail], Awaitable[Reply]]
_Rcpt: TypeAlias = Callable[[Client, Envelope, Rcpt], Awaitable[Reply | Redirect]]
_Data: TypeAlias = Callable[[Client, Envelope], Awaitable[Reply]]
_Message: TypeAlias = Callable[[Client, Envelope, Message], Awaitable[Reply]]


def on_connect(function: _Connect) -> ConnectPolicy:
    """Give the policy that asks this function about a connection."""
    return _OnConnect(function)


def on_hello(function: _Hello) -> HelloPolicy:
    """Give the policy that asks this function about HELO and EHLO."""
    return _OnHello(function)


def on_authenticate(function: _Authenticate) -> AuthPolicy:
    """Give the policy that asks this function about AUTH with a password or a certificate."""
    return _OnAuthenticate(function)


def on_mail(function: _Mail) -> MailPolicy:
    """Give the policy that asks this function about MAIL."""
    return _OnMail(function)


def on_rcpt(function: _Rcpt) -> RcptPolicy:
    """Give the policy that asks this function about RCPT."""
    return _OnRcpt(function)


def on_data(function: _Data) -> DataPolicy:
    """Give the policy that asks this function about DATA."""
    return _OnData(function)


def on_message(function: _Message) -> MessagePolicy:
    """Give the policy that asks this function about a whole message."""
    return _OnMessage(function)


@final
@dataclass(frozen=True, slots=True)
class _OnConnect:
    function: _Connect

    async def connect(self, client: Client, /) -> Reply:
        return await self.function(client)


@final
@dataclass(frozen=True, slots=True)
class _OnHello:
    function: _Hello

    async def hello(self, client: Client, hello: Hello, /) -> Reply:
        return await self.function(client, hello)


@final
@dataclass(frozen=True, slots=True)
class _OnAuthenticate:
    function: _Authenticate

    async def authenticate(self, client: Client, credentials: Password | External, /) -> Identity | Reply:
        return await self.function(client, credentials)


@final
@dataclass(frozen=True, slots=True)
class _OnMail:
    function: _Mail

    async def mail(self, client: Client, mail: Mail, /) -> Reply:
        return await self.function(client, mail)


@final
@dataclass(frozen=True, slots=True)
class _OnRcpt:
    function: _Rcpt

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt, /) -> Reply | Redirect:
        return await self.function(client, envelope, rcpt)


@final
@dataclass(frozen=True, slots=True)
class _OnData:
    function: _Data

    async def data(self, client: Client, envelope: Envelope, /) -> Reply:
        return await self.function(client, envelope)


@final
@dataclass(frozen=True, slots=True)
class _OnMessage:
    function: _Message

    async def message(self, client: Client, envelope: Envelope, message: Message, /) -> Reply:
        return await self.function(client, envelope, message)
