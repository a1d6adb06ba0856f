"""Folder templates: no address escapes, and none shares a folder with another."""

from __future__ import annotations

import os
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from smtprecv.deliveries._folder import FolderTemplate, escape, fold
from smtprecv.errors import ConfigError
from smtprecv.protocol import AddressLiteral, Domain, Host, Mailbox

EXAMPLE = Domain("example.com")
HOSTILE = st.text() | st.text("./\\\0%~ :@{}A\u00e9\u0301\u202e\n", max_size=20) | st.text(min_size=200)
HOSTS = HOSTILE.map(Domain) | st.ip_addresses().map(AddressLiteral)
TEMPLATES = st.sampled_from(["{domain}/{local_part}", "{address}", "x{local_part}y/{domain}.z", ".{domain}/.{address}"])


@pytest.mark.parametrize(
    ("template", "local_part", "domain", "expected"),
    [
        ("/m/{domain}/{local_part}", "bob", EXAMPLE, "/m/example.com/bob"),
        ("/m/{domain}/{local_part}", "Bob", EXAMPLE, "/m/example.com/bob"),
        ("/m/{address}/Mail", "bob+x", EXAMPLE, "/m/bob+x@example.com/Mail"),
        ("/m/mail-{local_part}.d", "a.b", EXAMPLE, "/m/mail-a.b.d"),
        ("/m/all", "bob", EXAMPLE, "/m/all"),
        ("/m/{local_part}", "..", EXAMPLE, "/m/%2E%2E"),
        ("/m/{local_part}", ".", EXAMPLE, "/m/%2E"),
        ("/m/{local_part}", "a.", EXAMPLE, "/m/a%2E"),
        ("/m/{local_part}", "", EXAMPLE, "/m/%"),
        ("/m/{local_part}", "../../etc", EXAMPLE, "/m/%2E.%2F..%2Fetc"),
        ("/m/{local_part}", 'a\0b\\:*"<>|', EXAMPLE, "/m/a%00b%5C%3A%2A%22%3C%3E%7C"),
        ("/m/{local_part}", "\u00c9", EXAMPLE, "/m/%C3%A9"),
        ("/m/{local_part}", "E\u0301", EXAMPLE, "/m/%C3%A9"),
        ("/m/{domain}", "bob", AddressLiteral(IPv6Address("::1")), "/m/%5Bipv6%3A%3A%3A1%5D"),
    ],
)
def test_folder(template: str, local_part: str, domain: Host, expected: str) -> None:
    """Each recipient has its folder, named in lower case and in characters that mean nothing to a file system."""
    assert FolderTemplate(template).folder(Mailbox(local_part, domain)) == Path(expected)


@pytest.mark.parametrize(
    ("template", "culprit"),
    [
        ("", "not a path"),
        ("/m/\0", "not a path"),
        ("/m/{user}", "{user} is unknown, there are {domain}, {local_part}, {address}"),
        ("/m/{}", "{} is unknown"),
        ("/m/{local_part!r}", "unknown"),
        ("/m/{local_part}-{domain}", "one placeholder at most"),
        ("/m/{domain", "stray braces"),
        ("/m/domain}", "stray braces"),
        ("/m/{domain}/../x", ".. would leave"),
        ("/m/{domain}" + "x" * 200, "no room"),
    ],
)
def test_bad_template(template: str, culprit: str) -> None:
    """A template that cannot keep the promise is refused at once, with the reason."""
    with pytest.raises(ConfigError) as caught:
        FolderTemplate(template)
    assert culprit in str(caught.value)


def test_relative_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means what it meant when it was given."""
    monkeypatch.chdir(tmp_path)
    template = FolderTemplate("m/{domain}")
    monkeypatch.chdir("/")
    assert template.prefix == tmp_path / "m"


@given(template=TEMPLATES, local_part=HOSTILE, domain=HOSTS)
def test_no_escape(template: str, local_part: str, domain: Host) -> None:
    """Whatever the address, its folder is exactly as deep below the prefix as the template says."""
    folder = FolderTemplate(Path("/srv/mail") / template).folder(Mailbox(local_part, domain))
    assert Path(os.path.normpath(folder)) == folder
    assert len(folder.relative_to("/srv/mail").parts) == len(Path(template).parts)
    assert max(len(os.fsencode(part)) for part in folder.parts) <= 255
    assert str(folder).isascii()
    assert str(folder).isprintable()


@given(template=TEMPLATES, one=st.tuples(HOSTILE, HOSTS), other=st.tuples(HOSTILE, HOSTS), same=st.booleans())
def test_no_collision(template: str, one: tuple[str, Host], other: tuple[str, Host], *, same: bool) -> None:
    """Addresses that differ in more than case or composition have different folders."""
    mailboxes = Mailbox(*one), Mailbox(other[0], one[1] if same else other[1])
    distinct = {(fold(mailbox.local_part), fold(str(mailbox.domain))) for mailbox in mailboxes}
    assume(all("@" not in domain for _, domain in distinct))  # no domain has one
    assert len({FolderTemplate(template).folder(mailbox) for mailbox in mailboxes}) == len(distinct)


@given(HOSTILE)
def test_escape_is_reversible(text: str) -> None:
    """What fits is spelled so that it can be read back; what does not fit says so."""
    escaped = escape(text)
    assert len(escaped) <= 255
    assert unquote(escaped) == text or (escaped, text) == ("%", "") or "%=" in escaped


def test_long_names_differ() -> None:
    """Names that are cut end in a hash of the whole: only their ends differ, and that is enough."""
    one, other = escape("a" * 300 + "x"), escape("a" * 300 + "y")
    assert one != other
    assert one[:200] == other[:200]
    assert (len(one), len(other)) == (255, 255)
