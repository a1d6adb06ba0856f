"""What the attributes of XCLIENT and XFORWARD make of a client.

After Postfix's XCLIENT_README and XFORWARD_README. Two tables say which attributes each command has, and what each
does. Its one rule: what was said of one client is never mixed with what is known of another. Who may say it is
not known here, nor in what lines it came: values are decoded, and None for ``[UNAVAILABLE]`` and ``[TEMPUNAVAIL]``.
Every fault is a ValueError whose text says what is wrong without repeating the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from smtprecv.message import Client
from smtprecv.protocol import Dialect, Session, parse_hello
from smtprecv.server._networks import parse_ip_address

_Apply: TypeAlias = Callable[[Client, str | None], Client]
_Attributes: TypeAlias = Iterable[tuple[str, str | None]]

_IP_V6: Final = re.compile(r"^IPV6:", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_WORD: Final = re.compile(r"[!-~]{1,255}")
_MAX_LOGIN_SIZE: Final = 255
_MAX_PROTOCOL_SIZE: Final = 64
_IS_EXTENDED: Final[Mapping[str, bool]] = {"SMTP": False, "ESMTP": True, "LMTP": True}


def xclient(client: Client, attributes: _Attributes) -> Client:
    """Give the client that XCLIENT says this one to be; ValueError for what cannot be understood.

    ``attributes``: names in upper case and values, as in the event Xclient. The session is back where it was at the
    greeting, but for HELO, PROTO and LOGIN if they are given. An ADDR takes away the name, the user and the port of
    the address before, unless they are given too; a DESTADDR its port.
    """
    given = dict(attributes)
    session = replace(client.session, hello=None, is_extended=False, identity=None)
    client = replace(client, session=session)
    if "ADDR" in given:
        client = replace(client, address=None, port=None, host=None, ident=None)
    if "DESTADDR" in given:
        client = replace(client, local_address=None, local_port=None)
    return _applied("XCLIENT", _XCLIENT, client, given)


def xforward(client: Client, attributes: _Attributes) -> Client:
    """Give the client from whom ``client`` has what it forwards; ValueError for what cannot be understood.

    ``attributes``: all that was given since the end of the last transaction; the last of a name counts. What is not
    given is not known, and nothing is taken from ``client`` but our end of its connection. For a client without an
    address, which is how local submission is marked, the other attributes say nothing. It is for logs and
    trace fields: who may do what is decided by the real client.
    """
    given = dict(attributes)
    unknown = replace(client, session=Session(), address=None, port=None, host=None, ident=None)
    forwarded = _applied("XFORWARD", _XFORWARD, unknown, given)
    return unknown if "ADDR" in given and given["ADDR"] is None else forwarded


def _applied(command: str, known: Mapping[str, _Apply], client: Client, given: Mapping[str, str | None]) -> Client:
    for name, value in given.items():
        if name not in known:
            msg = f"{command} has no such attribute"
            raise ValueError(msg)
        try:
            client = known[name](client, value)
        except ValueError as error:
            msg = f"{name}: {error}"
            raise ValueError(msg) from None
    return client


def _name(client: Client, value: str | None) -> Client:
    return replace(client, host=_matching(_HOST, value, "not a host name"))


def _addr(client: Client, value: str | None) -> Client:
    return replace(client, address=_address(value))


def _port(client: Client, value: str | None) -> Client:
    return replace(client, port=_number(value))


def _destaddr(client: Client, value: str | None) -> Client:
    return replace(client, local_address=_address(value))


def _destport(client: Client, value: str | None) -> Client:
    return replace(client, local_port=_number(value))


def _helo(client: Client, value: str | None) -> Client:
    hello = None if value is None else parse_hello(value)
    return replace(client, session=replace(client.session, hello=hello))


def _login(client: Client, value: str | None) -> Client:
    if value is not None and not (value.isprintable() and 0 < len(value) <= _MAX_LOGIN_SIZE):
        msg = "not a name"
        raise ValueError(msg)
    return replace(client, session=replace(client.session, identity=value))


def _proto(client: Client, value: str | None) -> Client:
    is_extended = _IS_EXTENDED.get((value or "").upper())
    if is_extended is None:
        msg = "neither SMTP nor ESMTP"
        raise ValueError(msg)
    return replace(client, session=replace(client.session, is_extended=is_extended))


def _forwarded_proto(client: Client, value: str | None) -> Client:
    """Take any protocol, as XFORWARD's may be none of ours."""
    protocol = _matching(_WORD, value, "not a protocol") or ""
    if len(protocol) > _MAX_PROTOCOL_SIZE:
        msg = "too long"
        raise ValueError(msg)
    is_extended = _IS_EXTENDED.get(protocol.upper(), False)
    dialect = Dialect.LMTP if protocol.upper() == "LMTP" else Dialect.SMTP
    return replace(client, session=replace(client.session, is_extended=is_extended, dialect=dialect))


def _ident(client: Client, value: str | None) -> Client:
    """Take the name of a message on the other machine, which says nothing of the client."""
    _matching(_WORD, value, "not a message's name")
    return client


def _source(client: Client, value: str | None) -> Client:
    """Take where the other machine has the message from: nothing here depends on it."""
    if value is not None and value.upper() not in {"LOCAL", "REMOTE"}:
        msg = "neither LOCAL nor REMOTE"
        raise ValueError(msg)
    return client


def _address(value: str | None) -> IPv4Address | IPv6Address | None:
    if value is None:
        return None
    text = _IP_V6.sub("", value, count=1)
    try:
        # A tag in front of what is no IPv6 address, mapped ones included, is a mistake.
        if text != value:
            IPv6Address(text)
        return parse_ip_address(text)
    except ValueError:
        msg = "not an IP address"
        raise ValueError(msg) from None


def _number(value: str | None) -> int | None:
    text = _matching(_PORT, value, "not a port")
    number = None if text is None else int(text)
    if number is not None and number > 65535:
        msg = "not a port"
        raise ValueError(msg)
    return number


def _matching(pattern: re.Pattern[str], value: str | None, fault: str) -> str | None:
    if value is not None and not pattern.fullmatch(value):
        raise ValueError(fault)
    return value


_XCLIENT: Final[Mapping[str, _Apply]] = {
    "NAME": _name,
    "ADDR": _addr,
    "PORT": _port,
    "PROTO": _proto,
    "HELO": _helo,
    "LOGIN": _login,
    "DESTADDR": _destaddr,
    "DESTPORT": _destport,
}
_XFORWARD: Final[Mapping[str, _Apply]] = {
    "NAME": _name,
    "ADDR": _addr,
    "PORT": _port,
    "PROTO": _forwarded_proto,
    "HELO": _helo,
    "IDENT": _ident,
    "SOURCE": _source,
}
