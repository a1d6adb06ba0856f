"""The mechanisms by name, and those that end in a claim at once: PLAIN, LOGIN and EXTERNAL.

Each is a generator of a few lines that can be led by hand: ``advance(exchange)`` gives the first challenge, which is
not shown to a client that has sent an initial response; ``advance(exchange, response)`` the next, or what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Final, TypeAlias, TypeVar

from smtprecv.sasl._identity import (
    MALFORMED_RESPONSE,
    External,
    Password,
    SaslError,
    name_in,
    optional_name_in,
    password_in,
)
from smtprecv.sasl._scram import ScramStart, scram_sha_256

T = TypeVar("T")

Exchange: TypeAlias = Generator[bytes, bytes, T]
"""Challenges out, responses in, a finding at the end; SaslError if there is none."""

Claim: TypeAlias = Password | External | ScramStart
"""What a mechanism finds: who the client says it is, to be judged with what is known of that user."""

Mechanism: TypeAlias = Callable[[], Exchange[Claim]]
"""Begins an exchange."""


def advance(exchange: Exchange[T], response: bytes | None = None) -> bytes | T:
    """Go on with the client's response, None at the start; give the next challenge, or at the end the finding.

    SaslError if the exchange has failed. One that the client gives up is simply closed.
    """
    try:
        return next(exchange) if response is None else exchange.send(response)
    except StopIteration as stop:
        finding: T = stop.value
        return finding


def plain() -> Exchange[Password]:
    """Lead PLAIN: all in one response (RFC 4616 section 2)."""
    response = yield b""
    match response.split(b"\0"):
        case [authorization, user, password]:
            return Password(name_in(user), password_in(password), optional_name_in(authorization))
        case _:
            raise SaslError(MALFORMED_RESPONSE)


def login() -> Exchange[Password]:
    """Lead LOGIN, which no RFC describes: user and password, each asked for. An initial response is the user."""
    user = name_in((yield b"Username:"))
    return Password(user, password_in((yield b"Password:")))


def external(name: str) -> Exchange[External]:
    """Lead EXTERNAL for a client whose certificate has this name (RFC 4422 appendix A)."""
    return External(name, optional_name_in((yield b"")))


_MECHANISMS: Final[Mapping[str, Mechanism]] = {"SCRAM-SHA-256": scram_sha_256, "PLAIN": plain, "LOGIN": login}


def mechanisms(certificate_name: str | None = None) -> Mapping[str, Mechanism]:
    """Give the mechanisms by name, the best first; EXTERNAL is among them for a client with a verified certificate."""
    if certificate_name is None:
        return _MECHANISMS
    return {"EXTERNAL": partial(external, certificate_name), **_MECHANISMS}
