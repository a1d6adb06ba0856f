"""ESMTP parameters as JSON: a delivery is given them just as the client wrote them.

Its one rule: a parameter that was not given costs nothing, and so one that a row does not have was not given. That is
why rows of earlier versions can be read. The priority is not here: it is looked for, and has a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from smtprecv.protocol import (
    Body,
    ByMode,
    DeliverBy,
    MailParameters,
    Notify,
    OriginalRecipient,
    RcptParameters,
    Ret,
    Xtext,
)
from smtprecv.spool._fields import (
    JsonValue,
    fields_text,
    read_flag,
    read_mapping,
    read_number,
    read_optional_number,
    read_optional_text,
    read_sequence,
    read_text,
)

_NEVER: Final = 10**9
"""Seconds that no time to deliver by reaches: it has 9 digits (RFC 2852 section 4)."""


def mail_text(parameters: MailParameters) -> str:
    """Write the parameters of MAIL, but for the priority."""
    return fields_text(mail_fields(parameters))


def mail_fields(parameters: MailParameters) -> Mapping[str, JsonValue]:
    """Give the parameters of MAIL, but for the priority, as the fields of an object."""
    given: dict[str, JsonValue] = {
        "ret": None if parameters.ret is None else parameters.ret.value,
        "envid": None if parameters.envid is None else parameters.envid.encoded,
        "deliver_by": None if parameters.deliver_by is None else _deliver_by_fields(parameters.deliver_by),
        "require_tls": True if parameters.require_tls else None,
        "auth": parameters.auth,
    }
    return {
        "size": parameters.size,
        "body": parameters.body.value,
        "smtputf8": parameters.smtputf8,
        **{name: value for name, value in given.items() if value is not None},
    }


def read_mail(fields: Mapping[str, object], priority: object) -> MailParameters:
    """Read the parameters of MAIL."""
    ret, envid, deliver_by = fields.get("ret"), fields.get("envid"), fields.get("deliver_by")
    return MailParameters(
        size=read_optional_number(fields["size"]),
        body=Body(fields["body"]),
        smtputf8=read_flag(fields["smtputf8"]),
        ret=None if ret is None else Ret(ret),
        envid=None if envid is None else _read_xtext(envid),
        deliver_by=None if deliver_by is None else _read_deliver_by(deliver_by),
        priority=read_number(priority),
        require_tls=read_flag(fields.get("require_tls", False)),
        auth=read_optional_text(fields.get("auth")),
    )


def rcpt_text(parameters: RcptParameters) -> str | None:
    """Write the parameters of RCPT; None if none was given."""
    fields = rcpt_fields(parameters)
    return fields_text(fields) if fields else None


def rcpt_fields(parameters: RcptParameters) -> Mapping[str, JsonValue]:
    """Give the parameters of RCPT as the fields of an object."""
    given: dict[str, JsonValue] = {}
    if parameters.notify is not None:
        given["notify"] = sorted(word.value for word in parameters.notify)
    if parameters.orcpt is not None:
        given["orcpt"] = [parameters.orcpt.address_type, parameters.orcpt.encoded.encoded]
    return given


def read_rcpt(fields: Mapping[str, object]) -> RcptParameters:
    """Read the parameters of RCPT."""
    notify, orcpt = fields.get("notify"), fields.get("orcpt")
    return RcptParameters(
        notify=None if notify is None else frozenset(Notify(word) for word in read_sequence(notify)),
        orcpt=None if orcpt is None else _read_original(orcpt),
    )


def _deliver_by_fields(deliver_by: DeliverBy) -> JsonValue:
    return {"seconds": deliver_by.seconds, "mode": deliver_by.mode.value, "is_traced": deliver_by.is_traced}


def _read_deliver_by(value: object) -> DeliverBy:
    fields = read_mapping(value)
    seconds = read_number(fields["seconds"])
    if abs(seconds) >= _NEVER:
        msg = f"{seconds} seconds are no time to deliver by"
        raise ValueError(msg)
    return DeliverBy(seconds, ByMode(fields["mode"]), read_flag(fields["is_traced"]))


def _read_original(value: object) -> OriginalRecipient:
    address_type, encoded = read_sequence(value)
    return OriginalRecipient(read_text(address_type), _read_xtext(encoded))


def _read_xtext(value: object) -> Xtext:
    # What was accepted may be of either kind; that it is an xtext at all is what its readers rely on.
    return Xtext.read(read_text(value), is_utf8=True)
