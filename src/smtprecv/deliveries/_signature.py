"""The signature of a web hook, in the form of Standard Webhooks: who has the secret can tell that we sent it, and when.

Pure. Its one rule: what is signed is ``ID.TIME.BODY``, so that neither can be exchanged; what is compared is compared
in constant time.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final, final

from smtprecv.errors import ConfigError

ID_HEADER: Final = "webhook-id"
TIME_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

_VERSION: Final = "v1"
_PREFIX: Final = "whsec_"
_LEAST_SECRET: Final = 16


@final
class Signer:
    """Signs one request, whose body comes in pieces."""

    def __init__(self, secret: str, message_id: str, at: dt.datetime) -> None:
        """Begin; ConfigError for a secret that is none."""
        self._time: Final = str(int(at.timestamp()))
        self._id: Final = message_id
        self._mac: Final = hmac.new(read_secret(secret), f"{message_id}.{self._time}.".encode(), hashlib.sha256)

    def update(self, octets: bytes) -> None:
        """Take the next piece of the body."""
        self._mac.update(octets)

    def headers(self) -> Mapping[str, str]:
        """Give the three fields."""
        signature = base64.b64encode(self._mac.digest()).decode()
        return {ID_HEADER: self._id, TIME_HEADER: self._time, SIGNATURE_HEADER: f"{_VERSION},{signature}"}


def read_secret(text: str) -> bytes:
    """Give the octets of a secret: of ``whsec_`` and Base64, or of any text; ConfigError under 16 octets."""
    encoded = text.removeprefix(_PREFIX)
    try:
        secret = text.encode() if encoded == text else base64.b64decode(encoded, validate=True)
    except binascii.Error:
        msg = "a secret that begins with whsec_ goes on in Base64"
        raise ConfigError(msg) from None
    if len(secret) < _LEAST_SECRET:
        msg = f"a secret has {_LEAST_SECRET} octets at least"
        raise ConfigError(msg)
    return secret


def verify_signature(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    now: dt.datetime,
    tolerance: dt.timedelta = dt.timedelta(minutes=5),
) -> bool:
    """Say whether a Webhook with this secret sent this body, at most ``tolerance`` before or after ``now``.

    ``headers``: those of the request, whatever the case of their names. False for whatever is missing or malformed;
    ConfigError for a secret that is none.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, time, signatures = given[ID_HEADER], given[TIME_HEADER], given[SIGNATURE_HEADER]
        at = dt.datetime.fromtimestamp(int(time), dt.UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return False
    mac = hmac.new(read_secret(secret), f"{message_id}.{time}.".encode() + body, hashlib.sha256)
    wanted = f"{_VERSION},{base64.b64encode(mac.digest()).decode()}".encode()
    is_right = any(hmac.compare_digest(wanted, each.encode()) for each in signatures.split(" "))
    return is_right and abs(now - at) <= tolerance
