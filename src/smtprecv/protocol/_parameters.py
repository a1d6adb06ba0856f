"""ESMTP parameters: what may follow the path of MAIL and RCPT.

A keyword that is not in the table is 555. The tables hold what EHLO offers; after HELO the
tables are empty, and so the same rule refuses every parameter (RFC 5321 section 4.1.1.11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, TypedDict, TypeVar

from smtprecv.protocol._envelope import (
    Body,
    ByMode,
    DeliverBy,
    Notify,
    OriginalRecipient,
    Ret,
)
from smtprecv.protocol._grammar import parse_mailbox
from smtprecv.protocol._refusal import BAD_PARAMETER, REPEATED_PARAMETER, UNKNOWN_PARAMETER, Refusal
from smtprecv.protocol._xtext import Xtext


class MailFields(TypedDict, total=False):
    """What MailParameters is made of, as far as the client said it."""

    size: int
    body: Body
    smtputf8: bool
    ret: Ret
    envid: Xtext
    deliver_by: DeliverBy
    priority: int
    require_tls: bool
    auth: str


class RcptFields(TypedDict, total=False):
    """What RcptParameters is made of, as far as the client said it."""

    notify: frozenset[Notify]
    orcpt: OriginalRecipient


Fields = TypeVar("Fields", MailFields, RcptFields)
Parameter: TypeAlias = Callable[[str], Fields]
"""Takes a value, empty without ``=``, and gives the field that it fills.

A Refusal, or a ValueError, for a value that is none.
"""

_PARAMETER: Final = re.compile(r"(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[^=]+))?")
# RFC 1870 section 6.1: size-value ::= 1*20DIGIT
_SIZE: Final = re.compile(r"[0-9]{1,20}")
# RFC 2852 section 4
_BY: Final = re.compile(r"(?P<seconds>[+-]?[0-9]{1,9});(?P<mode>[NRnr])(?P<trace>[Tt]?)")
# RFC 6710 section 3
_PRIORITY: Final = re.compile(r"0|-?[1-9]")
# RFC 3461 section 4.2: an atom.
_ADDRESS_TYPE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_MAX_ENVID_SIZE: Final = 100
"""Characters of an ENVID (RFC 3461 section 5.4)."""
_MAX_ORCPT_SIZE: Final = 500
"""Characters of an ORCPT (RFC 3461 section 5.4)."""


def parse_parameters(text: str, known: Mapping[str, Parameter[Fields]], fields: Fields) -> Fields:
    """Read ``KEYWORD[=value]`` divided by spaces into ``fields``; a Refusal for what is malformed or not known."""
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
        try:
            fields.update(parameter(match["value"] or ""))
        except ValueError:
            raise Refusal(BAD_PARAMETER) from None
    return fields


def _matched(pattern: re.Pattern[str], value: str) -> re.Match[str]:
    match = pattern.fullmatch(value)
    if match is None:
        raise Refusal(BAD_PARAMETER)
    return match


def _size(value: str) -> MailFields:
    return {"size": int(_matched(_SIZE, value)[0])}


def _body(value: str) -> MailFields:
    return {"body": Body(value.upper())}


def _smtputf8(value: str) -> MailFields:
    # RFC 6531 section 3.4: the parameter does not have a value.
    _refuse_value(value)
    return {"smtputf8": True}


def _ret(value: str) -> MailFields:
    return {"ret": Ret(value.upper())}


def _envid(value: str) -> MailFields:
    if not 0 < len(value) <= _MAX_ENVID_SIZE:
        raise Refusal(BAD_PARAMETER)
    return {"envid": Xtext.read(value)}  # RFC 3461 section 4.4: kept as it came


def _by(value: str) -> MailFields:
    match = _matched(_BY, value)
    by = DeliverBy(int(match["seconds"]), ByMode(match["mode"].upper()), bool(match["trace"]))
    # RFC 2852 section 4: what is to be returned in no time could only be returned.
    if by.mode is ByMode.RETURN and by.seconds <= 0:
        raise Refusal(BAD_PARAMETER)
    return {"deliver_by": by}


def _mt_priority(value: str) -> MailFields:
    return {"priority": int(_matched(_PRIORITY, value)[0])}


def _requiretls(value: str) -> MailFields:
    # RFC 8689 section 2: no value is associated with this parameter.
    _refuse_value(value)
    return {"require_tls": True}


def _auth(value: str) -> MailFields:
    if not value:
        raise Refusal(BAD_PARAMETER)
    text = str(Xtext.read(value, is_utf8=True))
    # RFC 4954 section 5: a mailbox, or <>.
    return {"auth": "" if text == "<>" else str(parse_mailbox(text))}


def _notify(value: str) -> RcptFields:
    words = value.upper().split(",")
    # RFC 3461 section 4.1: NEVER stands alone.
    wanted = () if words == ["NEVER"] else tuple(Notify(word) for word in words)
    if len(set(wanted)) < len(wanted):
        raise Refusal(BAD_PARAMETER)
    return {"notify": frozenset(wanted)}


def _orcpt(value: str) -> RcptFields:
    address_type, semicolon, address = value.partition(";")
    if not (semicolon and address and _ADDRESS_TYPE.fullmatch(address_type)) or len(value) > _MAX_ORCPT_SIZE:
        raise Refusal(BAD_PARAMETER)
    # RFC 6533 section 3: addresses of this type may be written in UTF-8.
    if not (address.isascii() or address_type.lower() == "utf-8"):
        raise Refusal(BAD_PARAMETER)
    # Its octets may stand encoded in any: so Postfix writes its internationalized ones, of the type rfc822.
    encoded = Xtext.read(address, is_utf8=True)
    return {"orcpt": OriginalRecipient(address_type, encoded)}


def _refuse_value(value: str) -> None:
    if value:
        raise Refusal(BAD_PARAMETER)


MAIL_PARAMETERS: Final[Mapping[str, Parameter[MailFields]]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
    "BY": _by,
    "MT-PRIORITY": _mt_priority,
    "REQUIRETLS": _requiretls,
    "AUTH": _auth,
}
NO_MAIL_PARAMETERS: Final[Mapping[str, Parameter[MailFields]]] = {}
"""What MAIL may have after HELO."""

RCPT_PARAMETERS: Final[Mapping[str, Parameter[RcptFields]]] = {
    "NOTIFY": _notify,
    "ORCPT": _orcpt,
}
NO_RCPT_PARAMETERS: Final[Mapping[str, Parameter[RcptFields]]] = {}
"""What RCPT may have after HELO."""
