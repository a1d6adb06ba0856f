"""The lines of a password file: ``user:{SCRAM-SHA-256}ITERATIONS,SALT,STORED,SERVER``, keys and salt in base64.

That is Dovecot's notation. Empty lines and those that begin with ``#`` say nothing. The one rule: what is
written here is read here, and whatever else stands in a file is a ConfigError that names the line.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Final

from smtprecv.errors import ConfigError
from smtprecv.sasl import ScramKeys, read_name

_SCHEME: Final = "{SCRAM-SHA-256}"
_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_KEYS: Final = re.compile(rf"{re.escape(_SCHEME)}([0-9]{{1,9}}),({_BASE64}),({_BASE64}),({_BASE64})")


def read_keys(octets: bytes, name: str) -> Mapping[str, ScramKeys]:
    """Read a whole file: the keys of each user. ConfigError ``name:line: reason`` for a line that is none.

    No reason repeats what stands in the line.
    """
    users: dict[str, ScramKeys] = {}
    for number, line in _lines(octets):
        try:
            user, keys = _read_line(line)
            if user in users:
                msg = f"{user!r} has a line already"
                raise ValueError(msg)  # noqa: TRY301  # as any other reason
        except ValueError as error:
            msg = f"{name}:{number}: {error}"
            raise ConfigError(msg) from None
        users[user] = keys
    return users


def read_user(text: str) -> str:
    """Read the name of a user as it may stand in a file, prepared by SASLprep; ValueError for any other."""
    user = read_name(text, is_stored=True)
    if ":" in user or user.startswith("#") or user != user.strip():
        msg = "the name of a user has no colon, does not begin with #, and neither begins nor ends with a space"
        raise ValueError(msg)
    return user


def with_keys(octets: bytes, user: str, keys: ScramKeys) -> bytes:
    """Give a file in which the line of a user holds these keys, in its place or at the end; all others stay."""
    salt, stored_key, server_key = (b64encode(each).decode() for each in (keys.salt, keys.stored_key, keys.server_key))
    line = f"{user}:{_SCHEME}{keys.iterations},{salt},{stored_key},{server_key}\n".encode()
    lines = octets.splitlines(keepends=True)
    places = [place for place, each in enumerate(lines) if _is_of(each, user)]
    if places:
        lines[places[0]] = line
        return b"".join(lines)
    end = b"\n" if octets and not octets.endswith(b"\n") else b""
    return octets + end + line


def without_user(octets: bytes, user: str) -> bytes:
    """Give a file in which no line is of this user."""
    return b"".join(line for line in octets.splitlines(keepends=True) if not _is_of(line, user))


def _lines(octets: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(octets.splitlines(), start=1):
        if line.strip() and not line.startswith(b"#"):
            yield number, line


def _read_line(line: bytes) -> tuple[str, ScramKeys]:
    try:
        name, colon, text = line.decode().partition(":")
    except UnicodeDecodeError:
        msg = "is not UTF-8"
        raise ValueError(msg) from None
    match = _KEYS.fullmatch(text)
    if not colon or match is None:
        msg = f"is not user:{_SCHEME}ITERATIONS,SALT,STORED,SERVER"
        raise ValueError(msg)
    if read_user(name) != name:
        msg = "the name of the user is not as SASLprep (RFC 4013) writes it"
        raise ValueError(msg)
    iterations, *octets = match.groups()
    salt, stored_key, server_key = map(b64decode, octets)
    return name, ScramKeys(salt, int(iterations), stored_key, server_key)


def _is_of(line: bytes, user: str) -> bool:
    return line.partition(b":")[0] == user.encode()
