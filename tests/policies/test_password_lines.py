"""The lines of a password file: what may stand there, and how one is replaced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.errors import ConfigError
from smtprecv.policies import read_keys, read_user, with_keys, without_user
from smtprecv.sasl import ScramKeys

KEYS = ScramKeys(b"salt", 4096, b"S" * 32, b"V" * 32)
STORED, SERVER = "U1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1NTU1M=", "VlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlY="
VALUE = f"{{SCRAM-SHA-256}}4096,c2FsdA==,{STORED},{SERVER}"
LINE = f"anna:{VALUE}\n"


def test_read() -> None:
    """A line has a user and keys; comments and empty lines say nothing, and the last line needs no end."""
    text = f"# staff\n\n{LINE}  \n#ben:x\nz\u00f6e x@example.com:{VALUE}"
    assert read_keys(text.encode(), "users") == {"anna": KEYS, "z\u00f6e x@example.com": KEYS}


def test_notation() -> None:
    """A line is written in Dovecot's notation, and reads as what was written."""
    assert with_keys(b"", "anna", KEYS) == LINE.encode()
    assert read_keys(LINE.encode(), "users") == {"anna": KEYS}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("anna", "is not user:{SCRAM-SHA-256}ITERATIONS,SALT,STORED,SERVER"),
        ("anna:secret", "is not user:{SCRAM-SHA-256}ITERATIONS,SALT,STORED,SERVER"),
        ("anna:{PLAIN}secret", "is not user:"),
        (f"anna:{VALUE.replace('256', '1')}", "is not user:"),
        (f"anna:{VALUE}:1000:1000", "is not user:"),
        (f"anna:{VALUE} ", "is not user:"),
        (f"anna: {VALUE}", "is not user:"),
        (f"anna:{VALUE.replace('4096', '-4096')}", "is not user:"),
        (f"anna:{VALUE.replace('4096', '4095')}", "4095 iterations are not 4096 to 10000000"),
        (f"anna:{VALUE.replace('4096', '99999999')}", "99999999 iterations"),
        (f"anna:{VALUE.replace('4096', '9' * 5000)}", "is not user:"),
        (f"anna:{VALUE.replace('c2FsdA==', '')}", "a salt has some"),
        (f"anna:{VALUE.replace('c2FsdA==', 'c2FsdA')}", "is not user:"),
        (f"anna:{VALUE.replace(STORED, 'c2FsdA==')}", "has 32 octets"),
        (f":{VALUE}", "a name is printable"),
        (f"an\tna:{VALUE}", "RFC 4013"),
        (f" anna:{VALUE}", "neither begins nor ends with a space"),
        (f"\u2168:{VALUE}", "not as SASLprep (RFC 4013) writes it"),
        (f"ben:{VALUE}", "'ben' has a line already"),
    ],
)
def test_bad_line(line: str, reason: str) -> None:
    """Any other line is named by file and number, with the reason, and without what stands there."""
    with pytest.raises(ConfigError) as caught:
        read_keys(f"# staff\nben:{VALUE}\n{line}\n".encode(), "users")
    assert str(caught.value).startswith("users:3: ")
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)


def test_bad_octets() -> None:
    """A line that is not UTF-8 is named too."""
    with pytest.raises(ConfigError, match=r"^users:2: is not UTF-8$"):
        read_keys(b"\nann\xe4:x\n", "users")


@pytest.mark.parametrize(("text", "expected"), [("anna", "anna"), ("a@b.example", "a@b.example"), ("\u2168", "IX")])
def test_user(text: str, expected: str) -> None:
    """The name of a user is prepared."""
    assert read_user(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a:b", "#a", " a", "a ", "\u00a0a", "a\nb", "a\0b", "\x1b", "\u2028", "\U0001f600", "x" * 1025, "\udcff"],
)
def test_bad_user(text: str) -> None:
    """A name that could not be read again as itself is refused."""
    with pytest.raises(ValueError, match=r"name"):
        read_user(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", LINE),
        ("# staff\n", f"# staff\n{LINE}"),
        ("# no end", f"# no end\n{LINE}"),
        ("anna:old\nben:x\n", f"{LINE}ben:x\n"),
        ("ben:x\n#anna:old\nanna:old", f"ben:x\n#anna:old\n{LINE}"),
        ("Anna:x\nannabel:x\n", f"Anna:x\nannabel:x\n{LINE}"),
    ],
)
def test_with_keys(before: str, after: str) -> None:
    """The user's line is replaced where it stands or added at the end; comments, order and others stay."""
    assert with_keys(before.encode(), "anna", KEYS) == after.encode()


def test_without_user() -> None:
    """A user is deleted with every line that he has, and nobody else is."""
    before = b"# staff\nanna:1\nben:x\n#anna:1\nannabel:x\nanna:2"
    assert without_user(before, "anna") == b"# staff\nben:x\n#anna:1\nannabel:x\n"


@given(st.binary(), st.text())
def test_round_trip(octets: bytes, text: str) -> None:
    """Whoever can be added can be read again, and deleting him leaves what was there."""
    try:
        user = read_user(text)
    except ValueError:
        return
    assert read_keys(with_keys(b"# staff\n", user, KEYS), "users") == {user: KEYS}
    rest = without_user(octets, user)
    assert without_user(with_keys(rest, user, KEYS), user).rstrip(b"\n") == rest.rstrip(b"\n")
