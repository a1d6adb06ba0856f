"""ESMTP parameters: what may follow the path of MAIL and RCPT.

A keyword that is not in the table is 555. The tables hold what EHLO offers; after HELO the
table is empty, and so the same rule refuses every parameter (RFC 5321 section 4.1.1.11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias, TypeVar

from smtprecv.protocol._envelope import Body, MailParameters
from smtprecv.protocol._refusal import BAD_PARAMETER, REPEATED_PARAMETER, UNKNOWN_PARAMETER, Refusal

P = TypeVar("P")
Parameter: TypeAlias = Callable[[P, str | None], P]
"""Takes the parameters so far and a value (None without ``=``), and gives them with the value in; or a Refusal."""

_PARAMETER: Final = re.compile(r"(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[^=]+))?")
# RFC 1870 section 6.1: size-value ::= 1*20DIGIT
_SIZE: Final = re.compile(r"[0-9]{1,20}")
_BODIES: Final = {body.value: body for body in (Body.SEVEN_BIT, Body.EIGHT_BIT_MIME)}


def parse_parameters(text: str, known: Mapping[str, Parameter[P]], so_far: P) -> P:
    """Read ``KEYWORD[=value]`` divided by spaces into ``so_far``; a Refusal for what is malformed or not known."""
    seen: set[str] = set()
    for word in filter(None, text.split(" ")):
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise Refusal(BAD_PARAMETER)
        keyword = match["keyword"].upper()
        if keyword in seen:
            raise Refusal(REPEATED_PARAMETER)
        seen.add(keyword)
        parameter = known.get(keyword)
        if parameter is None:
            raise Refusal(UNKNOWN_PARAMETER)
        so_far = parameter(so_far, match["value"])
    return so_far


def _size(so_far: MailParameters, value: str | None) -> MailParameters:
    if value is None or not _SIZE.fullmatch(value):
        raise Refusal(BAD_PARAMETER)
    return replace(so_far, size=int(value))


def _body(so_far: MailParameters, value: str | None) -> MailParameters:
    body = _BODIES.get(value.upper()) if value is not None else None
    if body is None:
        raise Refusal(BAD_PARAMETER)
    return replace(so_far, body=body)


def _smtputf8(so_far: MailParameters, value: str | None) -> MailParameters:
    # RFC 6531 section 3.4: the parameter does not have a value.
    if value is not None:
        raise Refusal(BAD_PARAMETER)
    return replace(so_far, smtputf8=True)


MAIL_PARAMETERS: Final[Mapping[str, Parameter[MailParameters]]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
}

NO_MAIL_PARAMETERS: Final[Mapping[str, Parameter[MailParameters]]] = {}
"""What MAIL may have after HELO."""

RCPT_PARAMETERS: Final[Mapping[str, Parameter[None]]] = {}
