"""The beginning of a session: what is said before there is mail, and that no failure there is a message's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from tests.relay.script import play, reply

from smtprecv.protocol import Dialect, Severity
from smtprecv.relay import SessionFailed, Terms, TlsMode, opening
from smtprecv.relay._nexthop import NextHop, offers_in
from smtprecv.sasl import Password

CLEAR = Terms("us.example")
MAYBE = replace(CLEAR, tls=TlsMode.OPPORTUNISTIC)
NEEDED = replace(CLEAR, tls=TlsMode.REQUIRED)
VERIFIED = replace(CLEAR, tls=TlsMode.VERIFIED)
LOGGED_IN = replace(VERIFIED, credentials=Password("anna", "secret"))
NONCE = "rOprNGfwEbeRWgbNEkqO"
HELLO = "EHLO us.example"
OFFERS_TLS = "250-mx.example|250-SIZE 10|250 STARTTLS"
OFFERS_AUTH = "250-mx.example|250 AUTH LOGIN PLAIN"
OFFERS_SCRAM = "250-mx.example|250 AUTH PLAIN SCRAM-SHA-256"
# The exchange of RFC 7677 section 3, in Base64.
PENCIL = replace(VERIFIED, credentials=Password("user", "pencil"))
CLIENT_FIRST = "biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8="
SERVER_FIRST = (
    "334 cj1yT3ByTkdmd0ViZVJXZ2JORWtxTyVodllEcFdVYTJSYVRDQWZ1eEZJbGopaE5sRiRrMCxzPVcyMlphSjBTTlk3c29Fc1VFamI2Z1E9PSxp"
    "PTQwOTY="
)
CLIENT_FINAL = (
    "Yz1iaXdzLHI9ck9wck5HZndFYmVSV2diTkVrcU8laHZZRHBXVWEyUmFUQ0FmdXhGSWxqKWhObEYkazAscD1kSHpiWmFwV0lrNGpVaE4rVXRlOXl0"
    "YWc5empmTUhnc3FtbWl6N0FuZFZRPQ=="
)
SERVER_FINAL = "334 dj02cnJpVFJCaTIzV3BSUi93dHVwK21NaFVaVW4vZEI1bkxUSlJzamw5NUc0PQ=="
OFFERS_LOGIN = "250-mx.example|250 AUTH=LOGIN"


def lead(terms: Terms, answers: Mapping[str, str | Sequence[str]]) -> tuple[list[str], NextHop]:
    """Open a session."""
    return play(
        opening(terms, NONCE), {"<greeting>": "220 mx.example", "<tls>": "220 TLS", "STARTTLS": "220 go", **answers}
    )


@pytest.mark.parametrize(
    ("terms", "answers", "said"),
    [
        (CLEAR, {"EHLO": OFFERS_TLS}, [HELLO]),
        (CLEAR, {"EHLO": "502 what"}, [HELLO, "HELO us.example"]),
        (replace(CLEAR, dialect=Dialect.LMTP), {}, ["LHLO us.example"]),
        (MAYBE, {}, [HELLO]),
        (MAYBE, {"EHLO": OFFERS_TLS}, [HELLO, "STARTTLS", "<tls>", HELLO]),
        (MAYBE, {"EHLO": OFFERS_TLS, "STARTTLS": "454 not now"}, [HELLO, "STARTTLS"]),
        (NEEDED, {"EHLO": OFFERS_TLS}, [HELLO, "STARTTLS", "<tls>", HELLO]),
        (
            LOGGED_IN,
            {"EHLO": [OFFERS_TLS, OFFERS_AUTH], "AUTH": "235 you"},
            [HELLO, "STARTTLS", "<tls>", HELLO, "AUTH PLAIN AGFubmEAc2VjcmV0"],
        ),
        (
            PENCIL,
            {
                "EHLO": [OFFERS_TLS, OFFERS_SCRAM],
                "AUTH": SERVER_FIRST,
                CLIENT_FINAL: SERVER_FINAL,
                "": "235 you",
            },
            [HELLO, "STARTTLS", "<tls>", HELLO, f"AUTH SCRAM-SHA-256 {CLIENT_FIRST}", CLIENT_FINAL, ""],
        ),
        (
            replace(LOGGED_IN, tls=TlsMode.NONE),
            {"EHLO": OFFERS_LOGIN, "AUTH": "334 x", "YW5": "334 x", "c2": "235 you"},
            [HELLO, "AUTH LOGIN", "YW5uYQ==", "c2VjcmV0"],
        ),
    ],
)
def test_opened(terms: Terms, answers: Mapping[str, str | Sequence[str]], said: Sequence[str]) -> None:
    """EHLO, or else HELO; STARTTLS, and EHLO once more; AUTH (RFC 3207 section 4.2, RFC 5321 section 3.2)."""
    assert lead(terms, answers)[0] == ["<greeting>", *said]


def test_implicit() -> None:
    """TLS may begin before the greeting (RFC 8314 section 3.3)."""
    said, next_hop = lead(replace(VERIFIED, is_implicit=True), {})
    assert said == ["<tls>", "<greeting>", HELLO]
    assert next_hop.is_verified


@pytest.mark.parametrize(("terms", "is_verified"), [(MAYBE, False), (NEEDED, False), (VERIFIED, True)])
def test_known(terms: Terms, *, is_verified: bool) -> None:
    """What was offered in clear is forgotten inside TLS; verified is only what had to be (RFC 3207 section 4.2)."""
    _, next_hop = lead(terms, {"EHLO": [OFFERS_TLS, "250-mx.example|250 DSN"]})
    assert next_hop == NextHop(Dialect.SMTP, {"DSN": ""}, is_verified)


@pytest.mark.parametrize(
    ("terms", "answers", "is_tls", "text"),
    [
        (CLEAR, {"<greeting>": "554 5.7.1 go away"}, False, "451 4.7.1 the greeting was 554 5.7.1 go away"),
        (CLEAR, {"<greeting>": "421 busy"}, False, "421 busy"),
        (CLEAR, {"<greeting>": "354 go"}, False, "451 the greeting was 354 go"),
        (CLEAR, {"EHLO": "502 what", "HELO": "550 no"}, False, "451 the reply to EHLO or LHLO was 550 no"),
        (CLEAR, {"EHLO": "450 later"}, False, "450 later"),
        (NEEDED, {"EHLO": "502 what"}, False, "451 the reply to EHLO or LHLO was 502 what"),
        (NEEDED, {}, True, "451 4.7.4 TLS is required, and STARTTLS is not offered"),
        (VERIFIED, {"EHLO": OFFERS_TLS, "STARTTLS": "454 4.7.0 not now"}, True, "454 4.7.0 not now"),
        (MAYBE, {"EHLO": OFFERS_TLS, "<tls>": "451 4.7.5 no TLS"}, True, "451 4.7.5 no TLS"),
        (replace(NEEDED, is_implicit=True), {"<tls>": "451 4.7.5 no TLS"}, True, "451 4.7.5 no TLS"),
        (LOGGED_IN, {"EHLO": OFFERS_TLS}, False, "451 4.7.4 the next hop offers none of SCRAM-SHA-256, PLAIN, LOGIN"),
        (
            LOGGED_IN,
            {"EHLO": [OFFERS_TLS, OFFERS_AUTH], "AUTH": "535 5.7.8 no"},
            False,
            "451 4.7.8 the reply to AUTH was 535 5.7.8 no",
        ),
        (LOGGED_IN, {"EHLO": [OFFERS_TLS, OFFERS_AUTH], "AUTH": "334 x"}, False, "451 the reply to AUTH was 334 x"),
        (LOGGED_IN, {"EHLO": [OFFERS_TLS, OFFERS_LOGIN], "AUTH": "235 x"}, False, "451 the reply to AUTH was 235 x"),
    ],
)
def test_failed(terms: Terms, answers: Mapping[str, str | Sequence[str]], text: str, *, is_tls: bool) -> None:
    """What fails before MAIL is no message's fault: it is never permanent, and nothing is said behind it."""
    with pytest.raises(SessionFailed) as caught:
        lead(terms, answers)
    assert (str(caught.value.reply), caught.value.is_tls) == (text, is_tls)
    assert caught.value.reply.severity is Severity.TRANSIENT


@pytest.mark.parametrize(
    ("answers", "last", "text"),
    [
        ({"AUTH": "535 5.7.8 no"}, "AUTH", "451 4.7.8 the reply to AUTH was 535 5.7.8 no"),
        ({"AUTH": "334 !"}, "*", "451 4.7.0 AUTH by SCRAM-SHA-256: "),
        ({"AUTH": "334 \u00fc"}, "*", "451 4.7.0 AUTH by SCRAM-SHA-256: "),
        ({"AUTH": "334"}, "*", "451 4.7.0 AUTH by SCRAM-SHA-256: the answer is none to SCRAM-SHA-256"),
        ({"AUTH": SERVER_FIRST, "Yz1": "535 no"}, "Yz1", "451 the reply to AUTH was 535 no"),
        # RFC 5802 section 5: a server that does not sign has not shown that it knows the password.
        ({"AUTH": SERVER_FIRST, "Yz1": "235 you"}, "Yz1", "451 the reply to AUTH was 235 you"),
        (
            {"AUTH": SERVER_FIRST, "Yz1": "334 dj1h"},
            "*",
            "451 4.7.0 AUTH by SCRAM-SHA-256: the signature is not that of a server that knows our password",
        ),
        ({"AUTH": SERVER_FIRST, "Yz1": SERVER_FINAL, "": "535 no"}, "", "451 the reply to AUTH was 535 no"),
    ],
)
def test_scram_failed(answers: Mapping[str, str], last: str, text: str) -> None:
    """SCRAM ends where either side has not shown what it must; nothing weaker is tried behind it."""
    said: list[str] = []
    told = {"<greeting>": "220 mx", "<tls>": "220 TLS", "STARTTLS": "220 go", "EHLO": [OFFERS_TLS, OFFERS_SCRAM]}
    with pytest.raises(SessionFailed) as caught:
        play(opening(PENCIL, NONCE), {**told, **answers}, said=said)
    assert str(caught.value.reply).startswith(text)
    assert said[-1].startswith(last)
    assert "AUTH PLAIN" not in " ".join(said)


def test_offers() -> None:
    """The lines behind the first are the extensions, in any case; the first of two alike counts."""
    text = "250-mx.example SIZE 1|250-size 10|250-SIZE 20|250-Auth=plain LOGIN|250-AUTH X|250-LIMITS RCPTMAX=7|250 DSN"
    next_hop = NextHop(Dialect.SMTP, offers_in(reply(text)))
    assert next_hop.offers == {"SIZE": "10", "AUTH": "plain LOGIN", "LIMITS": "RCPTMAX=7", "DSN": ""}
    assert (next_hop.max_size, next_hop.max_recipients, next_hop.mechanisms) == (10, 7, frozenset({"PLAIN", "LOGIN"}))
    assert (NextHop().max_size, NextHop().max_recipients, NextHop().mechanisms) == (None, 100, frozenset())
