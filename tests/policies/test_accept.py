"""The accept policy: nobody opens a relay by accident."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtprecv.errors import ConfigError
from smtprecv.message import Client, SessionId
from smtprecv.policies import AcceptDomains
from smtprecv.policy import RcptPolicy
from smtprecv.protocol import Envelope, Rcpt, ReversePath, Session, parse_forward_path

POLICY = AcceptDomains(["example.com", "B\u00dcCHER.example", "[192.0.2.1]"], "mx.example.net")
CLIENT = Client(SessionId("s"), None, None)
USER = replace(CLIENT, session=Session(identity="anna@example.com"))


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("anybody@example.com", 250),
        ('"any body"@EXAMPLE.com', 250),
        ("x@b\u00fccher.example", 250),
        ("x@xn--bcher-kva.example", 250),
        ("x@[192.0.2.1]", 250),
        ("Postmaster@mx.example.net", 250),
        ("bob@mx.example.net", 550),
        ("x@sub.example.com", 550),
        ("x@notexample.com", 550),
        ("x@[192.0.2.2]", 550),
        ("postmaster@example.org", 550),
        ("x%example.org@example.com", 250),
    ],
)
async def test_rcpt(address: str, code: int) -> None:
    """Every local part of an accepted domain is taken, and the receiver's own postmaster; nothing else is.

    RFC 5321 section 4.5.1.
    """
    reply = await POLICY.rcpt(CLIENT, Envelope(ReversePath(None)), Rcpt(parse_forward_path(address)))
    assert reply.code == code


async def test_refusal() -> None:
    """The refusal says that relaying is denied (RFC 5321 section 3.6.2)."""
    reply = await POLICY.rcpt(CLIENT, Envelope(ReversePath(None)), Rcpt(parse_forward_path("x@example.org")))
    assert str(reply) == "550 5.7.1 relaying denied"


@pytest.mark.parametrize(
    ("trusts_users", "client", "code"), [(True, USER, 250), (True, CLIENT, 550), (False, USER, 550)]
)
async def test_users(trusts_users: bool, client: Client, code: int) -> None:  # noqa: FBT001 - parametrized
    """Whom AUTH has identified may send to anybody, where that was said, and nobody else may."""
    policy = AcceptDomains(["example.com"], "mx.example.net", trusts_users=trusts_users)
    reply = await policy.rcpt(client, Envelope(ReversePath(None)), Rcpt(parse_forward_path("x@example.org")))
    assert reply.code == code


@pytest.mark.parametrize("domain", ["", "a..b", "-a.example", "[192.0.2]", "a b", "a@b", "[192.0.2.1"])
def test_bad_domain(domain: str) -> None:
    """A name that is no domain is refused when the policy is made."""
    with pytest.raises(ConfigError, match="is not a domain"):
        AcceptDomains([domain], "mx.example.net")


def test_is_a_policy() -> None:
    """It decides over RCPT."""
    assert isinstance(POLICY, RcptPolicy)
