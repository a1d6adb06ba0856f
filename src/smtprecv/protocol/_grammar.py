"""From text to addresses: the paths of RFC 5321 section 4.1.2, as RFC 6531 section 3.3 widens them.

One rule: what is parsed and written again with ``str`` parses to an equal value. Every fault is a
ValueError whose text says what is wrong without repeating the input. No expression here backtracks
without bound, and nothing recurses. Whether an address is wanted, and whether it may be non-ASCII,
is not known here.
"""

from __future__ import annotations

import contextlib
import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from smtprecv.protocol._address import (
    DOT_STRING,
    AddressLiteral,
    Domain,
    ForwardPath,
    Host,
    Mailbox,
    ReversePath,
)

MAX_LOCAL_PART_SIZE: Final = 64
"""Octets of a local part, without quotes (RFC 5321 section 4.5.3.1.1)."""
MAX_DOMAIN_SIZE: Final = 255
"""Octets of a domain, as A-labels (RFC 5321 section 4.5.3.1.2)."""
MAX_PATH_SIZE: Final = 256
"""Octets of a path, angle brackets and source route included (RFC 5321 section 4.5.3.1.3)."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_QUOTED_STRING: Final = r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"'
_QUOTED_PAIR: Final = re.compile(r"\\(.)")
_LOCAL_PART: Final = rf"(?:{DOT_STRING.pattern}|{_QUOTED_STRING})"
_ADDRESS_LITERAL: Final = re.compile(r"\[(?:(?P<ipv4>[0-9.]+)|[Ii][Pp][Vv]6:(?P<ipv6>[0-9A-Fa-f.:]+))\]")
_HOST: Final = r"(?:\[[^\[\]\\\s<>@]+\]|[^\[\]\\\s<>@,:\"]+)"
_NAMES: Final = rf"(?P<local_part>{_LOCAL_PART})@(?P<host>{_HOST})"
_MAILBOX: Final = re.compile(_NAMES)
# RFC 5321 section 4.1.2: a source route must be accepted and should be ignored.
_PATH: Final = re.compile(rf"<(?:@{_HOST}(?:,@{_HOST})*:)?{_NAMES}>(?= |$)")
_POSTMASTER: Final = re.compile(r"<(?P<local_part>postmaster)>", re.IGNORECASE)
# Wider than RFC 5321 section 4.1.1.1: underscores and lone labels are what real clients say. Still nothing
# that could mean something else in a trace field.
_HELLO: Final = re.compile(r"(?=.{1,255}$)(?:[A-Za-z0-9._-]+|\[[A-Za-z0-9.:_-]+\])")


def parse_hello(text: str) -> str:
    """Read what a client calls itself in HELO, EHLO or LHLO; ValueError for what is neither a name nor a literal."""
    if not _HELLO.fullmatch(text):
        msg = "neither a domain nor an address literal"
        raise ValueError(msg)
    return text


def parse_host(text: str) -> Host:
    """Read a domain or an address literal; ValueError for anything else, tags other than IPv6 included."""
    if text.startswith("["):
        return _parse_address_literal(text)
    if not text.isprintable():
        msg = "the domain is malformed"
        raise ValueError(msg)
    domain = Domain.from_text(text)
    if len(domain.name) > MAX_DOMAIN_SIZE:
        msg = "the domain is too long"
        raise ValueError(msg)
    if not _DOMAIN.fullmatch(domain.name):
        msg = "the domain is malformed"
        raise ValueError(msg)
    return domain


def parse_mailbox(text: str) -> Mailbox:
    """Read ``local-part@domain``, without angle brackets; ValueError for anything else."""
    match = _MAILBOX.fullmatch(text)
    if match is None:
        msg = "the address is malformed"
        raise ValueError(msg)
    return _named(match)


def parse_reverse_path(text: str) -> ReversePath:
    """Read what ``str`` of a ReversePath wrote: a mailbox, or nothing at all for the null reverse-path."""
    return ReversePath(parse_mailbox(text) if text else None)


def parse_forward_path(text: str) -> ForwardPath:
    """Read what ``str`` of a ForwardPath wrote: a mailbox."""
    return ForwardPath(parse_mailbox(text))


def read_reverse_path(text: str) -> tuple[ReversePath, str]:
    """Read the path in angle brackets that ``text`` begins with; give it and the rest."""
    path, rest = _divided(text)
    return _reverse_path(path), rest


def read_forward_path(text: str, hostname: str) -> tuple[ForwardPath, str]:
    """Read the path in angle brackets that ``text`` begins with; ``<Postmaster>`` is at ``hostname``."""
    path, rest = _divided(text)
    return _forward_path(path, hostname), rest


def _divided(text: str) -> tuple[str, str]:
    """Cut off the path that ``text`` begins with."""
    path, bracket, rest = text.partition(">")
    if bracket and '"' not in path and (not rest or rest.startswith(" ")):
        return path + bracket, rest
    # The bracket was none, or may stand in a quoted string.
    match = _matched(_PATH.match(text))
    return match[0], text[match.end() :]


# Who sends or receives mail does so often. What is refused is not kept, and so no path that is kept is longer than its
# limit.
@lru_cache(maxsize=512)
def _reverse_path(path: str) -> ReversePath:
    return ReversePath(None if path == "<>" else _mailbox(path))


@lru_cache(maxsize=512)
def _forward_path(path: str, hostname: str) -> ForwardPath:
    match = _POSTMASTER.fullmatch(path)
    if match is not None:
        # RFC 5321 section 4.5.1: accepted without a domain, in any case.
        return ForwardPath(Mailbox(match["local_part"], parse_host(hostname)))
    return ForwardPath(_mailbox(path))


def _mailbox(path: str) -> Mailbox:
    match = _matched(_PATH.fullmatch(path))
    if len(path.encode()) > MAX_PATH_SIZE:
        msg = "the path is too long"
        raise ValueError(msg)
    return _named(match)


def _matched(match: re.Match[str] | None) -> re.Match[str]:
    if match is None:
        msg = "the path is malformed"
        raise ValueError(msg)
    return match


def _named(match: re.Match[str]) -> Mailbox:
    """Give the mailbox whose two parts were found."""
    local_part = match["local_part"]
    if local_part.startswith('"'):
        # RFC 5321 section 4.1.2: all quoted forms must be treated as equivalent.
        local_part = _QUOTED_PAIR.sub(r"\1", local_part[1:-1])
    if len(local_part.encode()) > MAX_LOCAL_PART_SIZE:
        msg = "the local part is too long"
        raise ValueError(msg)
    return Mailbox(local_part, parse_host(match["host"]))


def _parse_address_literal(text: str) -> AddressLiteral:
    """Read ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 section 4.1.3)."""
    match = _ADDRESS_LITERAL.fullmatch(text)
    if match is not None:
        with contextlib.suppress(AddressValueError):
            return AddressLiteral(IPv6Address(match["ipv6"]) if match["ipv6"] else IPv4Address(match["ipv4"]))
    msg = "the address literal is malformed"
    raise ValueError(msg)
