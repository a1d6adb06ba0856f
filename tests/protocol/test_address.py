"""Paths, mailboxes, domains and address literals (RFC 5321 section 4.1.2, RFC 6531 section 3.3)."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import (
    AddressLiteral,
    Domain,
    ForwardPath,
    Host,
    Mailbox,
    ReversePath,
    parse_forward_path,
    parse_host,
    parse_mailbox,
    parse_reverse_path,
)
from smtprecv.protocol._grammar import read_forward_path, read_reverse_path

LONG_LABEL = "a" * 63
LONG_DOMAIN = ".".join([LONG_LABEL] * 4)

MAILBOXES = {
    "a@example.com": ("a", "example.com"),
    "a.b+c@example.com": ("a.b+c", "example.com"),
    "!#$%&'*+-/=?^_`{|}~@example.com": ("!#$%&'*+-/=?^_`{|}~", "example.com"),
    "Joe@EXAMPLE.com": ("Joe", "example.com"),
    "joe@localhost": ("joe", "localhost"),
    "joe@1a.2": ("joe", "1a.2"),
    '"joe"@example.com': ("joe", "example.com"),
    '"joe smith"@example.com': ("joe smith", "example.com"),
    '"a@b"@example.com': ("a@b", "example.com"),
    r'"a\"b\\c\d"@example.com': (r'a"b\cd', "example.com"),
    '">"@example.com': (">", "example.com"),
    '""@example.com': ("", "example.com"),
    '"a..b"@example.com': ("a..b", "example.com"),
    "a@[192.0.2.1]": ("a", "[192.0.2.1]"),
    "a@[IPv6:2001:db8::1]": ("a", "[IPv6:2001:db8::1]"),
    "a@[ipv6:2001:DB8:0::1]": ("a", "[IPv6:2001:db8::1]"),
    "a@[IPv6:::ffff:192.0.2.1]": ("a", str(AddressLiteral(ip_address("::ffff:192.0.2.1")))),
    "grüße@bücher.example": ("grüße", "xn--bcher-kva.example"),
    "a@BÜCHER.example": ("a", "xn--bcher-kva.example"),
    "用户@例子.example": ("用户", "xn--fsqu00a.example"),
    f"{'a' * 64}@example.com": ("a" * 64, "example.com"),
    f"a@{LONG_DOMAIN}": ("a", LONG_DOMAIN),
}

NO_MAILBOXES = [
    "",
    "a",
    "@",
    "a@",
    "@example.com",
    "a@@example.com",
    "a@b@example.com",
    ".a@example.com",
    "a.@example.com",
    "a..b@example.com",
    "a b@example.com",
    "a,b@example.com",
    "a:b@example.com",
    "a;b@example.com",
    "a(b)@example.com",
    "<a@example.com>",
    '"a@example.com',
    '"a"b@example.com',
    '"a"b"@example.com',
    '"a\\"@example.com',
    '"a\x00"@example.com',
    '"a\r\nb"@example.com',
    "a\x7f@example.com",
    "a@example.com.",
    "a@.example.com",
    "a@example..com",
    "a@-example.com",
    "a@example-.com",
    "a@exam_ple.com",
    "a@exam ple.com",
    "a@example.com ",
    "a@example.com\n",
    "a@\u037e.example",  # NFC makes it a semicolon
    f"a@{LONG_LABEL}a.example",
    f"a@{LONG_DOMAIN[:-2]}.aa",
    f"a@{'ü' * 63}.example",
    f"{'a' * 65}@example.com",
    f"{'ü' * 33}@example.com",
    "a@192.0.2.1]",
    "a@[192.0.2.1",
    "a@[]",
    "a@[192.0.2]",
    "a@[192.0.2.256]",
    "a@[2001:db8::1]",
    "a@[IPv6:192.0.2.1]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[IPv6:12345::]",
    "a@[X400:C=example]",
]


@pytest.mark.parametrize(("text", "expected"), MAILBOXES.items())
def test_a_mailbox_is_read(text: str, expected: tuple[str, str]) -> None:
    """A local part is held without its quotes, a domain in lower case and A-labels.

    RFC 5321 sections 2.4, 4.1.2, 4.1.3, 4.5.3.1.1 and 4.5.3.1.2, RFC 5891 section 4.4, RFC 6531 section 3.3.
    """
    mailbox = parse_mailbox(text)
    assert expected == (mailbox.local_part, str(mailbox.domain))


@pytest.mark.parametrize("text", MAILBOXES)
def test_a_mailbox_round_trips(text: str) -> None:
    """What was read and written again is read as the same value."""
    mailbox = parse_mailbox(text)
    assert mailbox == parse_mailbox(str(mailbox))


@pytest.mark.parametrize("text", NO_MAILBOXES)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    """Whatever the grammar does not have is a ValueError, whose text does not repeat it.

    RFC 5321 sections 4.1.3, 4.5.3.1.1 and 4.5.3.1.2.
    """
    with pytest.raises(ValueError, match=r"malformed|too long") as refused:
        parse_mailbox(text)
    assert re.fullmatch(r"the [a-z ]+", str(refused.value))


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=16),
    st.sampled_from([Domain("example.com"), AddressLiteral(ip_address("192.0.2.1"))]),
)
def test_any_local_part_round_trips(local_part: str, host: Host) -> None:
    """A local part of any printable text survives being written and read."""
    assert Mailbox(local_part, host) == parse_mailbox(str(Mailbox(local_part, host)))


@given(st.ip_addresses())
def test_any_address_literal_round_trips(address: object) -> None:
    """An address literal of any address survives being written and read."""
    literal = AddressLiteral(ip_address(str(address)))
    assert literal == parse_host(str(literal))


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Reading raises nothing but ValueError, and what it accepts round-trips."""
    try:
        mailbox = parse_mailbox(text)
    except ValueError:
        return
    assert mailbox == parse_mailbox(str(mailbox))


@pytest.mark.parametrize("text", ["", "a@example.com", '"a b"@[192.0.2.1]'])
def test_paths_round_trip(text: str) -> None:
    """The text of a path is that of its mailbox; nothing at all is the null reverse-path."""
    assert text == str(parse_reverse_path(text))
    assert (text == "") == parse_reverse_path(text).is_null
    if text:
        assert text == str(parse_forward_path(text))


def test_a_forward_path_is_never_null() -> None:
    """Only a reverse-path can be null (RFC 5321 sections 4.1.1.3 and 4.5.5)."""
    with pytest.raises(ValueError, match="malformed"):
        parse_forward_path("")


@pytest.mark.parametrize(
    ("text", "path", "rest"),
    [
        ("<>", "", ""),
        ("<> SIZE=1", "", " SIZE=1"),
        ("<a@example.com>", "a@example.com", ""),
        ("<a@example.com>  SIZE=1", "a@example.com", "  SIZE=1"),
        ("<@relay.example:a@example.com>", "a@example.com", ""),
        ("<@relay.example,@[192.0.2.1]:a@example.com>", "a@example.com", ""),
        ('<"a> b"@example.com> X', '"a> b"@example.com', " X"),
    ],
)
def test_a_path_is_read(text: str, path: str, rest: str) -> None:
    """A path ends with its bracket; a source route is accepted and dropped (RFC 5321 section 4.1.2)."""
    assert (parse_reverse_path(path), rest) == read_reverse_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a@example.com",
        "<a@example.com",
        "a@example.com>",
        "<a@example.com>SIZE=1",
        "<>SIZE=1",
        "< a@example.com>",
        "<a@example.com >",
        "<<a@example.com>>",
        "<a>",
        "<postmaster>",
        "<@relay.example>",
        "<@relay.example a@example.com>",
        "<@relay.example,:a@example.com>",
        "<relay.example:a@example.com>",
        f"<@{LONG_DOMAIN}:a@example.com>",
        f"<{'a' * 64}@{'a.' * 94}aa>",
        f"<{'ü' * 32}@{'a.' * 94}aa>",
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    """Brackets are needed, nothing but a space may follow them, and 256 octets are the limit."""
    with pytest.raises(ValueError, match=r"malformed|too long"):
        read_reverse_path(text)


def outcome(text: str) -> tuple[ReversePath, str] | str:
    """Give what is read of a text, or why nothing is."""
    try:
        return read_reverse_path(text)
    except ValueError as error:
        return str(error)


@given(
    st.sampled_from(["", "@relay.example:", "@a,@b:"]),
    st.sampled_from(["a", "a.b", "\u00fc"]),
    st.text('ab.-<>[]()1:,@"\\ ', max_size=12),
)
def test_where_a_path_ends(route: str, local_part: str, behind: str) -> None:
    """A path that is cut off at its first bracket is the one that the whole grammar finds.

    Quotes around a local part change nothing (RFC 5321 section 4.1.2), but that a bracket may stand inside of them.
    """
    whole, plain = (f"<{route}{written}@{behind}" for written in (f'"{local_part}"', local_part))
    assert outcome(whole) == outcome(plain)
    assert outcome(plain) == outcome(plain), "and it is kept as it is"


def test_the_longest_path() -> None:
    """256 octets, brackets included, are accepted (RFC 5321 section 4.5.3.1.3)."""
    text = f"<{'a' * 64}@{'a.' * 94}a>"
    assert len(text) == 256
    assert (parse_reverse_path(text[1:-1]), "") == read_reverse_path(text)


@pytest.mark.parametrize("text", ["<Postmaster>", "<postmaster>", "<POSTMASTER>"])
@pytest.mark.parametrize("hostname", ["mx.example.com", "[192.0.2.1]"])
def test_postmaster_needs_no_domain(text: str, hostname: str) -> None:
    """<Postmaster> is at the receiver's own name (RFC 5321 section 4.5.1)."""
    forward_path, rest = read_forward_path(text, hostname)
    assert (ForwardPath(Mailbox(text[1:-1], parse_host(hostname))), "") == (forward_path, rest)
    assert forward_path.is_postmaster


def test_values() -> None:
    """Addresses know how they are written for people."""
    assert Domain("xn--bcher-kva.example").unicode == "bücher.example"
    assert Domain("xn--\x80.example").unicode == "xn--\x80.example"
    assert str(ReversePath(None)) == ""
    assert not parse_forward_path("a@example.com").is_postmaster


@pytest.mark.parametrize("text", ["a\x00.example", "a\n.example", "\u2028.example", "b\u00fc\x85.example"])
def test_a_host_can_be_shown(text: str) -> None:
    """A domain with what is not printable is malformed, before IDNA could make something of it."""
    with pytest.raises(ValueError, match="malformed"):
        parse_host(text)
