"""What XCLIENT and XFORWARD say of a client, and what they cannot say."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.message import Client, SessionId
from smtprecv.protocol import Dialect, Session, Tls
from smtprecv.server._xclient import xclient, xforward

TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")
PROXY = Client(
    SessionId("s1"),
    ip_address("10.0.0.1"),
    40000,
    Session("proxy.example", is_extended=True, identity="proxy", tls=TLS),
    "proxy.example",
    "nobody",
    ip_address("10.0.0.2"),
    25,
)
"""Who says it, with all that can be known of it."""


def test_xclient_says_everything() -> None:
    """Name, address, port, protocol, HELO, login and our own end are the real client's; TLS stays what it is."""
    attributes = (
        ("NAME", "spike.example.com"),
        ("ADDR", "192.0.2.7"),
        ("PORT", "12345"),
        ("PROTO", "ESMTP"),
        ("HELO", "[192.0.2.7]"),
        ("LOGIN", "anna@example.com"),
        ("DESTADDR", "IPV6:2001:db8::25"),
        ("DESTPORT", "587"),
    )
    session = Session("[192.0.2.7]", is_extended=True, identity="anna@example.com", tls=TLS)
    local_address = IPv6Address("2001:db8::25")

    assert xclient(PROXY, attributes) == Client(
        SessionId("s1"), IPv4Address("192.0.2.7"), 12345, session, "spike.example.com", None, local_address, 587
    )


def test_the_order_of_attributes_does_not_matter() -> None:
    """An address in the last place takes nothing away from what was given before it."""
    attributes = [("NAME", "spike.example.com"), ("PORT", "12345"), ("ADDR", "192.0.2.7"), ("DESTPORT", "1")]
    expected = xclient(PROXY, attributes)

    assert (expected.host, expected.port, expected.local_port) == ("spike.example.com", 12345, 1)
    assert xclient(PROXY, attributes[::-1]) == expected


def test_what_was_known_of_the_proxy_is_not_known_of_the_client() -> None:
    """An address alone takes away name, user and port: they belong to the address before."""
    client = xclient(PROXY, [("ADDR", "192.0.2.7"), ("DESTADDR", "192.0.2.25")])

    assert (client.address, client.port, client.host, client.ident) == (IPv4Address("192.0.2.7"), None, None, None)
    assert (client.local_address, client.local_port) == (IPv4Address("192.0.2.25"), None)


def test_the_session_begins_anew() -> None:
    """After XCLIENT the client has said nothing and is nobody, unless HELO, PROTO or LOGIN say otherwise."""
    assert xclient(PROXY, [("NAME", "spike.example.com")]).session == Session(tls=TLS)


def test_an_attribute_alone_changes_itself_alone() -> None:
    """A second XCLIENT may say the rest: what is not given stays."""
    first = xclient(PROXY, [("ADDR", "192.0.2.7"), ("PORT", "7")])
    second = xclient(first, [("NAME", "spike.example.com")])

    assert (second.address, second.port, second.host) == (IPv4Address("192.0.2.7"), 7, "spike.example.com")
    assert (second.local_address, second.local_port) == (PROXY.local_address, 25)


@pytest.mark.parametrize("name", ["NAME", "ADDR", "PORT", "HELO", "LOGIN", "DESTADDR", "DESTPORT"])
def test_what_is_not_available_is_not_known(name: str) -> None:
    """[UNAVAILABLE] takes away what was known."""
    client = xclient(PROXY, [(name, None)])
    known = {
        "NAME": client.host,
        "ADDR": client.address,
        "PORT": client.port,
        "HELO": client.session.hello,
        "LOGIN": client.session.identity,
        "DESTADDR": client.local_address,
        "DESTPORT": client.local_port,
    }

    assert known[name] is None


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("192.0.2.7", IPv4Address("192.0.2.7")),
        ("IPV6:2001:db8::7", IPv6Address("2001:db8::7")),
        ("IPv6:2001:DB8::7", IPv6Address("2001:db8::7")),
        ("2001:db8::7", IPv6Address("2001:db8::7")),
        ("IPV6:::ffff:192.0.2.7", IPv4Address("192.0.2.7")),
    ],
)
def test_addresses(value: str, address: IPv4Address | IPv6Address) -> None:
    """IPv4 as it is, IPv6 behind IPV6: in any case or without it; a mapped address is the IPv4 address."""
    assert xclient(PROXY, [("ADDR", value)]).address == address


REFUSED = [
    ("ADDR", ""),
    ("ADDR", "spike.example.com"),
    ("ADDR", "[192.0.2.7]"),
    ("ADDR", "192.0.2.07"),
    ("ADDR", "192.0.2.7/32"),
    ("ADDR", "IPV6:192.0.2.7"),
    ("ADDR", "IPV6:IPV6:::1"),
    ("ADDR", "fe80::1%eth0"),
    ("ADDR", "IPV6:fe80::1%a b"),
    ("ADDR", "3221225991"),
    ("PORT", ""),
    ("PORT", "65536"),
    ("PORT", "-1"),
    ("PORT", "٢٥"),
    ("PORT", "000025"),
    ("NAME", ""),
    ("NAME", "spike.example.com (192.0.2.7)"),
    ("NAME", "spike\r\nX: y"),
    ("NAME", "spike\n"),
    ("NAME", "bücher.example"),
    ("NAME", "x" * 256),
    ("HELO", ""),
    ("HELO", "spike example"),
    ("HELO", "spike)by(evil"),
    ("HELO", "spike\r\nX: y"),
    ("HELO", "spike\n"),
    ("HELO", "x" * 256),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *REFUSED,
        ("LOGIN", ""),
        ("LOGIN", "anna\0"),
        ("LOGIN", "anna\r\nX: y"),
        ("LOGIN", "x" * 256),
        ("PROTO", None),
        ("PROTO", ""),
        ("PROTO", "HTTP"),
        ("DESTADDR", "mx.example.com"),
        ("DESTPORT", "99999"),
        ("IDENT", "abc"),
        ("name", "spike.example.com"),
        ("", ""),
    ],
)
def test_xclient_refuses(name: str, value: str | None) -> None:
    """What is no value of the attribute is refused with a reason, in which the value does not stand."""
    with pytest.raises(ValueError, match=r".+") as caught:
        xclient(PROXY, [(name, value)])
    assert len(str(caught.value)) < 60
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *REFUSED,
        ("PROTO", ""),
        ("PROTO", "E SMTP"),
        ("PROTO", "x" * 65),
        ("IDENT", ""),
        ("IDENT", "a b"),
        ("IDENT", "a\n"),
        ("SOURCE", ""),
        ("SOURCE", "elsewhere"),
        ("LOGIN", "anna"),
        ("DESTADDR", "192.0.2.25"),
    ],
)
def test_xforward_refuses(name: str, value: str) -> None:
    """The same values are refused, and attributes that belong to XCLIENT: nobody logs in by being forwarded."""
    with pytest.raises(ValueError, match=r".+"):
        xforward(PROXY, [(name, value)])


def test_xforward_says_everything() -> None:
    """Name, address, port, protocol and HELO are those of the one from whom the filter has the message."""
    attributes = [
        ("NAME", "spike.example.com"),
        ("ADDR", "192.0.2.7"),
        ("PORT", "12345"),
        ("PROTO", "esmtp"),
        ("HELO", "spike.example.com"),
        ("IDENT", "3CF6B2AAE8"),
        ("SOURCE", "remote"),
    ]

    assert xforward(PROXY, attributes) == Client(
        SessionId("s1"),
        IPv4Address("192.0.2.7"),
        12345,
        Session("spike.example.com", is_extended=True),
        "spike.example.com",
        local_address=PROXY.local_address,
        local_port=25,
    )


def test_nothing_of_the_filter_is_told_of_its_client() -> None:
    """What XFORWARD does not say is not known, neither that the filter used TLS nor who it was."""
    client = xforward(PROXY, [("HELO", "spike.example.com")])

    assert client == Client(
        SessionId("s1"),
        None,
        None,
        Session("spike.example.com"),
        local_address=PROXY.local_address,
        local_port=25,
    )


def test_several_commands_add_up() -> None:
    """Given all at once, the last value of each attribute counts."""
    first, second = [("ADDR", "192.0.2.7"), ("HELO", "a.example")], [("HELO", "b.example"), ("PORT", "7")]
    client = xforward(PROXY, [*first, *second])

    assert (client.address, client.port, client.session.hello) == (IPv4Address("192.0.2.7"), 7, "b.example")


def test_local_submission_has_no_client() -> None:
    """ADDR=[UNAVAILABLE] marks mail that began on the other machine: what else is said is checked, and ignored."""
    local = [("ADDR", None), ("NAME", "localhost"), ("HELO", "spike.example.com"), ("SOURCE", "LOCAL")]

    assert xforward(PROXY, local) == xforward(PROXY, [])
    with pytest.raises(ValueError, match="PORT: not a port"):
        xforward(PROXY, [*local, ("PORT", "x")])


@pytest.mark.parametrize(
    ("protocol", "session"),
    [
        ("SMTP", Session()),
        ("ESMTP", Session(is_extended=True)),
        ("LMTP", Session(is_extended=True, dialect=Dialect.LMTP)),
        ("QMQP", Session()),
        (None, Session()),
    ],
)
def test_a_forwarded_protocol_may_be_any(protocol: str | None, session: Session) -> None:
    """XFORWARD's protocol may be none of ours; of such a one nothing is known."""
    assert xforward(PROXY, [("PROTO", protocol)]).session == session


NAMES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT", "IDENT", "SOURCE", "", "X")


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.text() | st.from_regex(r"[0-9.:a-fA-F]{1,12}"))))
def test_no_value_does_anything_but_fit_or_raise(attributes: list[tuple[str, str | None]]) -> None:
    """Whatever is said, the answer is a client whose texts are printable and bounded, or a ValueError."""
    for command in (xclient, xforward):
        try:
            client = command(PROXY, attributes)
        except ValueError:
            continue
        texts = [client.host, client.session.hello, client.session.identity]
        assert all(text is None or (text.isprintable() and 0 < len(text) <= 255) for text in texts)
        assert client.session_id == PROXY.session_id
