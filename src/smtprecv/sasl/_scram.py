"""SCRAM-SHA-256 (RFC 5802, RFC 7677 section 3), without channel binding: the server's side, and the client's.

The server's is in two steps, because between them somebody must look for the user's keys: ``scram_sha_256`` ends when
the client has named itself, and ``ScramStart.proceed`` is the rest. Its one rule: a user who is not there is answered
like one who is. The client's (``ScramClient``) is cut where it has to toil.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final, Self, final

from smtprecv.sasl._identity import (
    CREDENTIALS_INVALID,
    MALFORMED_RESPONSE,
    Identity,
    Password,
    SaslError,
    name_in,
    text_in,
)
from smtprecv.sasl._saslprep import saslprep

ITERATIONS: Final = 65_536
"""How often a new password is hashed: RFC 7677 section 4 has about a tenth of a second in mind.

More is refused by clients with Cyrus SASL, Postfix among them: a bound of theirs against servers that let them toil.
"""
_LEAST_ITERATIONS: Final = 4096
_MOST_ITERATIONS: Final = 10_000_000
_MOST_OF_OTHERS: Final = 1_000_000
"""Iterations that another server may ask of us: about half a second."""

SALT_SIZE: Final = 16
"""Octets of salt of a new password."""

_KEY_SIZE: Final = 32
_MAX_MESSAGE_SIZE: Final = 8192
"""Octets of a message of the client: two names, each octet of them written with three, and two nonces fit."""


@final
@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What is kept of a password for SCRAM-SHA-256 (RFC 5802 section 3): enough to check it, too little to log in.

    ValueError for an empty salt, keys that are not of 32 octets, and iterations that are fewer than 4096 (RFC 7677
    section 4) or more than 10,000,000.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse keys that could not be used, or would not be worth it."""
        if not _LEAST_ITERATIONS <= self.iterations <= _MOST_ITERATIONS:
            msg = f"{self.iterations} iterations are not {_LEAST_ITERATIONS} to {_MOST_ITERATIONS}"
            raise ValueError(msg)
        if not self.salt or {len(self.stored_key), len(self.server_key)} != {_KEY_SIZE}:
            msg = f"a key of SCRAM-SHA-256 has {_KEY_SIZE} octets, and a salt has some"
            raise ValueError(msg)

    @classmethod
    def derive(cls, password: str, *, salt: bytes, iterations: int = ITERATIONS) -> Self:
        """Derive the keys of a password; ValueError for one that SASLprep does not allow.

        It blocks, half a second or longer for a million iterations: run it in a thread.
        """
        salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
        stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        return cls(salt, iterations, stored_key, _hmac(salted, b"Server Key"))

    @classmethod
    def of_nobody(cls, user: str, *, secret: bytes, iterations: int = ITERATIONS, salt_size: int = SALT_SIZE) -> Self:
        """Give keys that no password fits, for a user who is not there: by the same secret always the same.

        A client cannot tell them from those of a user who has as many iterations and as large a salt.
        """
        octets = hashlib.shake_256(secret + user.encode()).digest(2 * _KEY_SIZE + salt_size)
        stored_key, server_key, salt = octets[:_KEY_SIZE], octets[_KEY_SIZE:-salt_size], octets[-salt_size:]
        return cls(salt, iterations, stored_key, server_key)

    def fits(self, password: str) -> bool:
        """Say whether these are the keys of a password. It blocks as ``derive`` does."""
        try:
            derived = ScramKeys.derive(password, salt=self.salt, iterations=self.iterations)
        except ValueError:
            return False  # RFC 4616 section 2: what cannot be prepared fails
        return hmac.compare_digest(derived.stored_key, self.stored_key)


@final
@dataclass(frozen=True, slots=True)
class ScramStart:
    """A SCRAM exchange whose client has named itself: it goes on when there are keys.

    ``header``, ``first_bare`` and ``nonce`` are the client's, as it wrote them.
    """

    user: str
    authorization: str
    header: str
    first_bare: str
    nonce: str

    def proceed(self, keys: ScramKeys, *, nonce: str) -> Generator[bytes, bytes, Identity]:
        """Go on with the keys of ``user``, or those of nobody (``ScramKeys.of_nobody``); nothing here takes long.

        ``nonce``: fresh and not to be guessed, printable ASCII without a comma. The last challenge is the server's
        signature, which the client answers with nothing (RFC 4422 section 3.6). To act as another is refused.
        """
        nonces = self.nonce + nonce
        server_first = f"r={nonces},s={_base64(keys.salt)},i={keys.iterations}"
        final = _matched(_CLIENT_FINAL, (yield server_first.encode()))
        if (final["binding"], final["nonce"]) != (_base64(self.header.encode()), nonces):
            raise SaslError(MALFORMED_RESPONSE)
        message = ",".join([self.first_bare, server_first, final["without_proof"]]).encode()
        client_key = _xor(b64decode(final["proof"]), _hmac(keys.stored_key, message))
        is_shown = hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key)
        if not is_shown or self.authorization not in {"", self.user}:
            raise SaslError(CREDENTIALS_INVALID)
        if (yield f"v={_base64(_hmac(keys.server_key, message))}".encode()):
            raise SaslError(MALFORMED_RESPONSE)
        return Identity(self.user)


def scram_sha_256() -> Generator[bytes, bytes, ScramStart]:
    """Begin SCRAM-SHA-256; a client that demands channel binding, or an extension, is refused."""
    first = _matched(_CLIENT_FIRST, (yield b""))
    authorization = first["authorization"]
    return ScramStart(
        user=_sasl_name(first["user"]),
        authorization=_sasl_name(authorization) if authorization else "",
        header=first["header"],
        first_bare=first["bare"],
        nonce=first["nonce"],
    )


@final
class ScramClient:
    """The client's side: ``first`` is said, ``read`` takes the answer, ``derive`` toils, ``final`` is said, ``verify``.

    ValueError for a name or a password that SASLprep does not allow. ``nonce``: as for ``ScramStart.proceed``.
    """

    def __init__(self, credentials: Password, *, nonce: str) -> None:
        """Begin."""
        name = credentials.authorization and f"a={_written(credentials.authorization)}"
        self._header: Final = f"n,{name},"
        self._first_bare: Final = f"n={_written(credentials.user)},r={nonce}"
        self._password: Final = saslprep(credentials.password).encode()
        self._nonce: Final = nonce
        self._server_first = ""
        self._nonces = ""
        self._salt = b""
        self._iterations = 0
        self._salted = b""
        self._message = b""

    @property
    def first(self) -> bytes:
        """The first message."""
        return f"{self._header}{self._first_bare}".encode()

    def read(self, challenge: bytes) -> None:
        """Take the server's first message; ValueError if it is none, not to ours, or asks for too little or too much.

        Few iterations would make the password cheap to guess for who asks for them (RFC 7677 section 4).
        """
        found = _SERVER_FIRST.fullmatch(challenge.decode())
        if found is None or not found["nonce"].startswith(self._nonce) or found["nonce"] == self._nonce:
            msg = "the answer is none to SCRAM-SHA-256"
            raise ValueError(msg)
        self._iterations = int(found["iterations"])
        if not _LEAST_ITERATIONS <= self._iterations <= _MOST_OF_OTHERS:
            msg = f"{self._iterations} iterations are not {_LEAST_ITERATIONS} to {_MOST_OF_OTHERS}"
            raise ValueError(msg)
        self._server_first, self._nonces, self._salt = found[0], found["nonce"], b64decode(found["salt"])

    def derive(self) -> None:
        """Derive the key. It blocks, half a second or longer for a million iterations: run it in a thread."""
        self._salted = hashlib.pbkdf2_hmac("sha256", self._password, self._salt, self._iterations)

    def final(self) -> bytes:
        """Give the last message, with the proof that we know the password."""
        without_proof = f"c={_base64(self._header.encode())},r={self._nonces}"
        self._message = f"{self._first_bare},{self._server_first},{without_proof}".encode()
        client_key = _hmac(self._salted, b"Client Key")
        proof = _xor(client_key, _hmac(hashlib.sha256(client_key).digest(), self._message))
        return f"{without_proof},p={_base64(proof)}".encode()

    def verify(self, challenge: bytes) -> None:
        """Take the server's signature; ValueError if it does not know our password either (RFC 5802 section 5)."""
        signature = _hmac(_hmac(self._salted, b"Server Key"), self._message)
        if not hmac.compare_digest(challenge.partition(b",")[0], f"v={_base64(signature)}".encode()):
            msg = "the signature is not that of a server that knows our password"
            raise ValueError(msg)


# The grammar of RFC 5802 section 7.
_NONCE: Final = r"[\x21-\x2b\x2d-\x7e]{1,1024}"
_NAME: Final = r"(?:[^\0,=]|=2C|=3D)+"
# RFC 5802 section 5.1: an `m` asks for what is not known here, and must fail; other extensions are ignored.
_EXTENSIONS: Final = r"(?:,[A-Za-ln-z]=[^\0,]+)*"
_CLIENT_FIRST: Final = re.compile(
    # RFC 5802 section 6: `y` is right from a client that could bind, as no -PLUS is offered; `p` demands it.
    rf"(?P<header>[ny],(?:a=(?P<authorization>{_NAME}))?,)"
    rf"(?P<bare>n=(?P<user>{_NAME}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
_SERVER_FIRST: Final = re.compile(
    rf"r=(?P<nonce>{_NONCE}),s=(?P<salt>[A-Za-z0-9+/]+={{0,2}}),i=(?P<iterations>[1-9][0-9]{{0,9}}){_EXTENSIONS}"
)
_CLIENT_FINAL: Final = re.compile(
    rf"(?P<without_proof>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
    r",p=(?P<proof>[A-Za-z0-9+/]{43}=)"  # the base64 of 32 octets
)


def _matched(pattern: re.Pattern[str], response: bytes) -> re.Match[str]:
    match = pattern.fullmatch(text_in(response, _MAX_MESSAGE_SIZE))
    if match is None:
        raise SaslError(MALFORMED_RESPONSE)
    return match


def _sasl_name(text: str) -> str:
    return name_in(text.replace("=2C", ",").replace("=3D", "=").encode())


def _written(name: str) -> str:
    return saslprep(name).replace("=", "=3D").replace(",", "=2C")


def _base64(octets: bytes) -> str:
    return b64encode(octets).decode()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
