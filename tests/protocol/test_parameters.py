"""ESMTP parameters by themselves: the table decides what is known, and values keep their case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import (
    Body,
    ByMode,
    DeliverBy,
    MailParameters,
    Notify,
    OriginalRecipient,
    RcptParameters,
    Reply,
    Ret,
    Xtext,
)
from smtprecv.protocol._parameters import (
    MAIL_PARAMETERS,
    RCPT_PARAMETERS,
    MailFields,
    Parameter,
    RcptFields,
    parse_parameters,
)
from smtprecv.protocol._refusal import BAD_PARAMETER, REPEATED_PARAMETER, UNKNOWN_PARAMETER, Refusal

KNOWN: dict[str, Parameter[MailFields]] = {
    "ENVID": lambda value: {"envid": Xtext(value)},
    "X-1": lambda value: {"smtputf8": not value},
    "8X": lambda value: {"auth": value},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("   ", {}),
        (" ENVID=Case+2BKept", {"envid": Xtext("Case+2BKept")}),
        (" envid=a  x-1 8X=<b@example.com> ", {"envid": Xtext("a"), "smtputf8": True, "auth": "<b@example.com>"}),
    ],
)
def test_parameters_are_read(text: str, expected: MailFields) -> None:
    """Keywords have no case, values keep theirs, and one without a value has an empty one."""
    assert expected == parse_parameters(text, KNOWN, MailFields())


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (" ENVID=", BAD_PARAMETER),
        (" =a", BAD_PARAMETER),
        (" ENVID=a=b", BAD_PARAMETER),
        (" -X=a", BAD_PARAMETER),
        (" EN_VID=a", BAD_PARAMETER),
        (" ENVID=a envid=b", REPEATED_PARAMETER),
        (" ENVID=a OTHER", UNKNOWN_PARAMETER),
    ],
)
def test_parameters_are_refused(text: str, reply: Reply) -> None:
    """What is malformed or given twice is 501, what is not known is 555 (RFC 5321 section 4.1.1.11)."""
    with pytest.raises(Refusal) as refused:
        parse_parameters(text, KNOWN, MailFields())
    assert reply is refused.value.reply


MAIL: dict[str, MailParameters] = {
    "BODY=BINARYMIME": MailParameters(body=Body.BINARY_MIME),
    "RET=hdrs": MailParameters(ret=Ret.HDRS),
    "RET=FULL": MailParameters(ret=Ret.FULL),
    "ENVID=QQ314159": MailParameters(envid=Xtext("QQ314159")),
    "ENVID=a+2Bb+20c": MailParameters(envid=Xtext("a+2Bb+20c")),
    "ENVID=" + "x" * 100: MailParameters(envid=Xtext("x" * 100)),
    "BY=120;R": MailParameters(deliver_by=DeliverBy(120, ByMode.RETURN)),
    "BY=+999999999;rt": MailParameters(deliver_by=DeliverBy(999999999, ByMode.RETURN, is_traced=True)),
    "BY=-1;NT": MailParameters(deliver_by=DeliverBy(-1, ByMode.NOTIFY, is_traced=True)),
    "BY=0;N": MailParameters(deliver_by=DeliverBy(0, ByMode.NOTIFY)),
    "MT-PRIORITY=9": MailParameters(priority=9),
    "mt-priority=-9": MailParameters(priority=-9),
    "MT-PRIORITY=0": MailParameters(),
    "REQUIRETLS": MailParameters(require_tls=True),
    "AUTH=<>": MailParameters(auth=""),
    "AUTH=e+3Dmc2@example.com": MailParameters(auth="e=mc2@example.com"),
    'AUTH="a+20b"@EXAMPLE.com': MailParameters(auth='"a b"@example.com'),
    "AUTH=\u00fc@example.com": MailParameters(auth="\u00fc@example.com"),
}
BAD_MAIL = (
    *("RET", "RET=ALL", "ENVID", "ENVID=" + "x" * 101, "ENVID=a+2b", "ENVID=a+2", "ENVID=+", "ENVID=a+0Ab"),
    *("ENVID=+C3+BC", "ENVID=\u00fc", "ENVID=a+7F", "BY", "BY=", "BY=120", "BY=120;X", "BY=120;RR", "BY=120;TR"),
    *("BY=1200000000;R", "BY=0;R", "BY=-1;RT", "BY=;N", "BY=+-1;N", "BY=\u0661;N", "MT-PRIORITY", "MT-PRIORITY=10"),
    *("MT-PRIORITY=+1", "MT-PRIORITY=-0", "MT-PRIORITY=00", "REQUIRETLS=YES", "AUTH", "AUTH=anna", "AUTH=+3C+3E+20"),
    *("AUTH=a+0D+0Ab@example.com", "AUTH=a+FF@example.com", "AUTH=" + "x" * 65 + "@example.com"),
)


@pytest.mark.parametrize(("text", "expected"), MAIL.items())
def test_parameters_of_mail(text: str, expected: MailParameters) -> None:
    """What a parameter of MAIL says is kept, with its case and in its encoding.

    RFC 3461 sections 4.3 and 5.4, RFC 2852 section 4, RFC 6710 section 3, RFC 8689 section 2, RFC 4954 section 5.
    """
    assert expected == MailParameters(**parse_parameters(" " + text, MAIL_PARAMETERS, MailFields()))


@pytest.mark.parametrize("text", BAD_MAIL)
def test_bad_parameters_of_mail(text: str) -> None:
    """A value that its RFC does not allow is 501."""
    with pytest.raises(Refusal) as refused:
        MailParameters(**parse_parameters(" " + text, MAIL_PARAMETERS, MailFields()))
    assert refused.value.reply is BAD_PARAMETER


RCPT: dict[str, RcptParameters] = {
    "NOTIFY=NEVER": RcptParameters(notify=frozenset()),
    "NOTIFY=never": RcptParameters(notify=frozenset()),
    "NOTIFY=SUCCESS": RcptParameters(notify=frozenset({Notify.SUCCESS})),
    "notify=Delay,Failure,SUCCESS": RcptParameters(notify=frozenset(Notify)),
    "ORCPT=rfc822;Ben@Example.com": RcptParameters(orcpt=OriginalRecipient("rfc822", Xtext("Ben@Example.com"))),
    "ORCPT=RFC822;a+2Bb@example.com": RcptParameters(orcpt=OriginalRecipient("RFC822", Xtext("a+2Bb@example.com"))),
    # As Postfix writes it.
    "ORCPT=rfc822;+C3+BC@example.com": RcptParameters(orcpt=OriginalRecipient("rfc822", Xtext("+C3+BC@example.com"))),
    "ORCPT=x400;/S+3Dben/": RcptParameters(orcpt=OriginalRecipient("x400", Xtext("/S+3Dben/"))),
    "ORCPT=x;" + "a" * 498: RcptParameters(orcpt=OriginalRecipient("x", Xtext("a" * 498))),
    "ORCPT=utf-8;\u00fc@example.com": RcptParameters(orcpt=OriginalRecipient("utf-8", Xtext("\u00fc@example.com"))),
}
BAD_RCPT = (
    *("NOTIFY", "NOTIFY=", "NOTIFY=ALWAYS", "NOTIFY=NEVER,SUCCESS", "NOTIFY=SUCCESS,NEVER", "NOTIFY=SUCCESS,SUCCESS"),
    *("NOTIFY=SUCCESS,", "NOTIFY=,", "ORCPT", "ORCPT=", "ORCPT=rfc822", "ORCPT=rfc822;", "ORCPT=;a@example.com"),
    *(
        "ORCPT=rfc 822;a@example.com",
        "ORCPT=rfc(822);a",
        "ORCPT=rfc822;a+b",
        "ORCPT=rfc822;a+0Ab",
    ),
    *(
        "ORCPT=rfc822;\u00fc@example.com",
        "ORCPT=\u00fc;a",
        "ORCPT=x;" + "a" * 499,
        "ORCPT=utf-8;a\u2028b",
        "ORCPT=utf-8;+FF",
    ),
    *("ORCPT=rfc822;a;b NOTIFY",),
)


@pytest.mark.parametrize(("text", "expected"), RCPT.items())
def test_parameters_of_rcpt(text: str, expected: RcptParameters) -> None:
    """Whom to tell of what, and how the sender wrote the recipient, with its case and in its encoding.

    RFC 3461 sections 4.1, 4.2 and 5.4.
    """
    assert expected == RcptParameters(**parse_parameters(" " + text, RCPT_PARAMETERS, RcptFields()))


@pytest.mark.parametrize("text", BAD_RCPT)
def test_bad_parameters_of_rcpt(text: str) -> None:
    """A value that RFC 3461 section 4 does not allow is 501."""
    with pytest.raises(Refusal) as refused:
        RcptParameters(**parse_parameters(" " + text, RCPT_PARAMETERS, RcptFields()))
    assert refused.value.reply is BAD_PARAMETER


def test_deliver_by_is_written_as_it_is_read() -> None:
    """The value of BY comes out as RFC 2852 section 4 writes it."""
    for text in ("120;R", "120;RT", "-1;NT", "0;N"):
        assert str(MailParameters(**parse_parameters(f" BY={text}", MAIL_PARAMETERS, MailFields())).deliver_by) == text


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("rfc822;a+2Bb@example.com", "a+b@example.com"),
        ("utf-8;\u00fc@example.com", "\u00fc@example.com"),
        ("UTF-8;\\x{FC}@example.com", "\u00fc@example.com"),
        ("utf-8;\\x{1F600}\\x{2B}a@example.com", "\U0001f600+a@example.com"),
        ("utf-8;+5Cx{FC}@example.com", "\u00fc@example.com"),
        ("utf-8;\\x{0A}\\x{D800}\\x{110000}\\x{fc}\\x{F}", "\\x{0A}\\x{D800}\\x{110000}\\x{fc}\\x{F}"),
        ("rfc822;\\x{FC}@example.com", "\\x{FC}@example.com"),
    ],
)
def test_the_address_of_an_original_recipient(value: str, address: str) -> None:
    r"""Xtext is decoded, and in the type utf-8 alone ``\x{...}``, if it can be shown (RFC 6533 section 3)."""
    orcpt = RcptParameters(**parse_parameters(f" ORCPT={value}", RCPT_PARAMETERS, RcptFields())).orcpt
    assert orcpt is not None
    assert (str(orcpt), orcpt.address) == (value, address)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_xtext_round_trips(text: str) -> None:
    """A text that is encoded is read as it was, and needs nothing that a parameter may not have."""
    xtext = Xtext.of(text)
    assert str(xtext) == text
    assert all("!" <= character <= "~" and character != "=" for character in xtext.encoded)
    if text.isprintable():
        assert Xtext.read(xtext.encoded, is_utf8=True) == xtext


@given(st.text(st.sampled_from("+=a0F\u00fc \x7f") | st.characters(), max_size=9), st.booleans())
def test_any_text_is_xtext_or_is_not(text: str, is_utf8: bool) -> None:  # noqa: FBT001 - drawn
    """What is taken can be decoded and shown; all else is a ValueError."""
    try:
        xtext = Xtext.read(text, is_utf8=is_utf8)
    except ValueError:
        return
    assert str(xtext).isprintable()
    assert is_utf8 or str(xtext).isascii()
