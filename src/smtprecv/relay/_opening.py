"""The beginning of a session: the greeting, EHLO or LHLO, STARTTLS, AUTH.

One rule: nothing here is a message's fault, and so no failure is permanent. A server that refuses us, or that we
refuse, is tried again with every message until somebody mends it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from smtprecv.protocol import Dialect, EnhancedStatus, Reply, Severity
from smtprecv.relay._nexthop import NextHop, offers_in
from smtprecv.relay._step import Compute, Exchange, Handshake, Phase, Say, SessionFailed
from smtprecv.sasl import Password, ScramClient


@final
class TlsMode(Enum):
    """What TLS must be to the next hop."""

    NONE = "none"
    """Not even begun."""
    OPPORTUNISTIC = "opportunistic"
    """Used where STARTTLS is offered, whoever it is that offers it."""
    REQUIRED = "required"
    """Used always; whoever the server is. Nobody can read along who does not do more than that."""
    VERIFIED = "verify"
    """Used always, with a certificate that is trusted for the server's name."""


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a session is held.

    ``hostname``: what we call ourselves. ``is_implicit``: TLS begins before the greeting (RFC 8314 section 3.3).
    ``credentials``: who we are, shown inside TLS only, but for ``TlsMode.NONE``. ``is_local``: the connection does not
    leave this machine.
    """

    hostname: str
    dialect: Dialect = Dialect.SMTP
    tls: TlsMode = TlsMode.NONE
    is_implicit: bool = False
    credentials: Password | None = None
    is_local: bool = False


def opening(terms: Terms, nonce: str) -> Exchange[NextHop]:
    """Come to where mail may be sent; SessionFailed if that can't be.

    ``nonce``: for SCRAM, fresh and not to be guessed, printable ASCII without a comma.
    """
    if terms.is_implicit:
        yield from _handshake()
    _demand(Phase.GREETING, (yield Say(b"", 1, Phase.GREETING)))
    offers = yield from _hello(terms)
    is_secure = terms.is_implicit
    if not is_secure and terms.tls is not TlsMode.NONE:
        is_secure = yield from _starttls(terms, offers)
        if is_secure:
            # RFC 3207 section 4.2: what was known before is discarded.
            offers = yield from _hello(terms)
    next_hop = NextHop(terms.dialect, offers, is_secure and terms.tls is TlsMode.VERIFIED, terms.is_local)
    if terms.credentials is not None:
        yield from _auth(next_hop, terms.credentials, nonce)
    return next_hop


def _hello(terms: Terms) -> Exchange[Mapping[str, str]]:
    verb = "LHLO" if terms.dialect is Dialect.LMTP else "EHLO"
    (reply,) = yield Say(f"{verb} {terms.hostname}\r\n".encode(), 1, Phase.HELLO)
    is_plain = terms.dialect is Dialect.SMTP and terms.tls in _MAY_BE_CLEAR and terms.credentials is None
    if reply.severity is Severity.PERMANENT and is_plain:
        # RFC 5321 section 3.2: a server that does not know EHLO may know HELO.
        _demand(Phase.HELLO, (yield Say(f"HELO {terms.hostname}\r\n".encode(), 1, Phase.HELLO)))
        return {}
    _demand(Phase.HELLO, [reply])
    return offers_in(reply)


_MAY_BE_CLEAR: Final = frozenset({TlsMode.NONE, TlsMode.OPPORTUNISTIC})


def _starttls(terms: Terms, offers: Mapping[str, str]) -> Exchange[bool]:
    """Begin TLS, and say whether that was done; SessionFailed if it must be and can't."""
    if "STARTTLS" not in offers:
        reply = Reply(451, "TLS is required, and STARTTLS is not offered", EnhancedStatus(4, 7, 4))
    else:
        (reply,) = yield Say(b"STARTTLS\r\n", 1, Phase.STARTTLS)
        if reply.is_ok:
            yield from _handshake()
            return True
        reply = _transient(Phase.STARTTLS, reply)
    if terms.tls not in _MAY_BE_CLEAR:
        raise SessionFailed(reply, is_tls=True)
    return False


def _handshake() -> Exchange[None]:
    (reply,) = yield Handshake()
    if not reply.is_ok:
        raise SessionFailed(reply, is_tls=True)


def _auth(next_hop: NextHop, credentials: Password, nonce: str) -> Exchange[None]:
    mechanism = next((name for name in _MECHANISMS if name in next_hop.mechanisms), None)
    if mechanism is None:
        text = f"the next hop offers none of {', '.join(_MECHANISMS)}"
        raise SessionFailed(Reply(451, text, EnhancedStatus(4, 7, 4)))
    yield from _MECHANISMS[mechanism](credentials, nonce)


def _scram(credentials: Password, nonce: str) -> Exchange[None]:
    """Show that we know the password, which is not sent, and see that the next hop does (RFC 5802 section 5)."""
    try:
        client = ScramClient(credentials, nonce=nonce)
        client.read((yield from _challenged(b"AUTH SCRAM-SHA-256 " + b64encode(client.first))))
        yield Compute(client.derive)
        client.verify((yield from _challenged(b64encode(client.final()))))
    except ValueError as error:
        # RFC 4954 section 4: so a client breaks off an exchange.
        yield Say(b"*\r\n", 1, Phase.AUTH)
        raise SessionFailed(Reply(451, f"AUTH by SCRAM-SHA-256: {error}", EnhancedStatus(4, 7, 0))) from None
    _demand(Phase.AUTH, (yield Say(b"\r\n", 1, Phase.AUTH)))


def _plain(credentials: Password, _nonce: str) -> Exchange[None]:
    """Send the line of PLAIN (RFC 4616 section 2)."""
    words = (credentials.authorization, credentials.user, credentials.password)
    line = b"AUTH PLAIN " + b64encode("\0".join(words).encode())
    _demand(Phase.AUTH, (yield Say(line + b"\r\n", 1, Phase.AUTH)))


def _login(credentials: Password, _nonce: str) -> Exchange[None]:
    """Send the lines of LOGIN, which no RFC describes."""
    for line in (b"AUTH LOGIN", b64encode(credentials.user.encode())):
        yield from _prompted(line)
    _demand(Phase.AUTH, (yield Say(b64encode(credentials.password.encode()) + b"\r\n", 1, Phase.AUTH)))


def _prompted(line: bytes) -> Exchange[str]:
    """Send a line of AUTH that has to be answered by 334, and give what stands behind that."""
    (reply,) = yield Say(line + b"\r\n", 1, Phase.AUTH)
    if reply.severity is not Severity.INTERMEDIATE:
        raise SessionFailed(_transient(Phase.AUTH, reply))
    return reply.text


def _challenged(line: bytes) -> Exchange[bytes]:
    """Do the same, and give the challenge; ValueError if it is none."""
    return b64decode((yield from _prompted(line)), validate=True)


_MECHANISMS: Final[Mapping[str, Callable[[Password, str], Exchange[None]]]] = {
    "SCRAM-SHA-256": _scram,
    "PLAIN": _plain,
    "LOGIN": _login,
}
"""Ways to log in, the one that is liked best first."""


def _demand(phase: Phase, replies: Sequence[Reply]) -> None:
    """Go on behind a 2yz only."""
    (reply,) = replies
    if not reply.is_ok:
        raise SessionFailed(_transient(phase, reply))


def _transient(phase: Phase, reply: Reply) -> Reply:
    """Give a refusal of the session as one of the moment, whatever it was."""
    if reply.severity is Severity.TRANSIENT:
        return reply
    status = None if reply.status is None else EnhancedStatus(4, reply.status.subject, reply.status.detail)
    return Reply(451, f"{phase.value} was {reply}", status)
