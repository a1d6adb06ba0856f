"""Who a client is, by SASL (RFC 4422): the mechanisms as generators, and what they find out.

A mechanism yields the server's challenges and is sent the client's responses, both as octets: base64, lines and
what becomes of a refusal are the caller's. It returns what the client claims (``Password``, ``External``), which
somebody else judges; SCRAM returns a ``ScramStart``, which goes on as soon as the user's keys are there.

The one rule: no name comes out that is not prepared by SASLprep, printable and of bounded size, so that none
carries a line end into a log or a field. No clock, file or randomness here: nonces and salts are arguments.
"""

from smtprecv.sasl._identity import (
    CREDENTIALS_INVALID,
    MALFORMED_RESPONSE,
    MAX_SIZE,
    External,
    Identity,
    Password,
    SaslError,
    read_name,
)
from smtprecv.sasl._mechanism import Claim, Exchange, Mechanism, advance, external, login, mechanisms, plain
from smtprecv.sasl._saslprep import saslprep
from smtprecv.sasl._scram import ITERATIONS, SALT_SIZE, ScramClient, ScramKeys, ScramStart, scram_sha_256

__all__ = [
    "CREDENTIALS_INVALID",
    "ITERATIONS",
    "MALFORMED_RESPONSE",
    "MAX_SIZE",
    "SALT_SIZE",
    "Claim",
    "Exchange",
    "External",
    "Identity",
    "Mechanism",
    "Password",
    "SaslError",
    "ScramClient",
    "ScramKeys",
    "ScramStart",
    "advance",
    "external",
    "login",
    "mechanisms",
    "plain",
    "read_name",
    "saslprep",
    "scram_sha_256",
]
