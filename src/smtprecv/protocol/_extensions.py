"""The service extensions that the answer to EHLO announces (RFC 5321 section 4.1.1.1), as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from smtprecv.protocol._config import Config
from smtprecv.protocol._envelope import Session, Tls

_When: TypeAlias = Callable[[Config, Session], object]


def mechanisms(config: Config, session: Session) -> tuple[str, ...]:
    """Give the mechanisms that AUTH may use now: none in clear, but for ``auth_without_tls`` (RFC 4954 section 4)."""
    if not (session.is_secure or config.auth_without_tls):
        return ()
    has_name = session.tls is not None and session.tls.client_name is not None
    return tuple(name for name in config.auth if has_name or name != "EXTERNAL")


def _always(_config: Config, _session: Session) -> bool:
    return True


_OFFERS: Final[Sequence[tuple[str, _When]]] = (
    ("PIPELINING", _always),  # RFC 2920 section 2
    ("SIZE {config.max_message_size}", _always),  # RFC 1870 section 3
    ("8BITMIME", _always),  # RFC 6152 section 2
    ("CHUNKING", _always),  # RFC 3030 section 2
    ("BINARYMIME", _always),  # RFC 3030 section 3
    ("SMTPUTF8", _always),  # RFC 6531 section 3.1
    ("ENHANCEDSTATUSCODES", _always),  # RFC 2034 section 3
    ("DSN", _always),  # RFC 3461 section 3
    ("DELIVERBY", _always),  # RFC 2852 section 3
    ("MT-PRIORITY", _always),  # RFC 6710 section 3
    ("LIMITS {limits}", _always),  # RFC 9422 section 3
    ("STARTTLS", lambda config, session: config.starttls and not session.is_secure),  # RFC 3207 section 4
    ("REQUIRETLS", lambda _config, session: session.is_secure),  # RFC 8689 section 2: inside TLS alone
    ("AUTH {mechanisms}", lambda config, session: session.identity is None and mechanisms(config, session)),
    ("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT", lambda config, _session: config.xclient),
    ("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE", lambda config, _session: config.xclient),
    ("HELP", _always),  # RFC 5321 section 4.1.1.1
)


def offers(config: Config, session: Session) -> tuple[str, ...]:
    """Give the EHLO lines, in the order in which they are announced."""
    tls = session.tls
    has_name = tls is not None and tls.client_name is not None
    return _offered(config, session.is_secure, has_name, session.identity is not None)


@lru_cache(maxsize=64)  # a server has a few kinds of sessions, and each of them says EHLO
def _offered(config: Config, is_secure: bool, has_name: bool, is_known: bool) -> tuple[str, ...]:  # noqa: FBT001
    """Give the lines for a session of which no more than this matters."""
    tls = Tls("", "", 0, "" if has_name else None) if is_secure else None
    session = Session(identity="" if is_known else None, tls=tls)
    words = {"config": config, "limits": _limits(config), "mechanisms": " ".join(mechanisms(config, session))}
    return tuple(offer.format_map(words) for offer, when in _OFFERS if when(config, session))


def _limits(config: Config) -> str:
    """Give the limits that are known before a transaction (RFC 9422 section 4)."""
    mail = "" if config.max_transactions is None else f"MAILMAX={config.max_transactions} "
    return f"{mail}RCPTMAX={config.max_recipients}"
