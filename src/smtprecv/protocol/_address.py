"""Mail addresses as values: what a path means, and how it is written.

Parsing is in ``_grammar``; these types hold what was parsed. A local part is held without
its quotes and a domain as its lower-case A-label, so that equal addresses are equal values.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias, final

DOT_STRING: Final = re.compile(
    r"[^\s\x00-\x20\x7f\"(),.:;<>@\[\\\]]+(?:\.[^\s\x00-\x20\x7f\"(),.:;<>@\[\\\]]+)*",
)
"""Atoms divided by dots (RFC 5321 section 4.1.2), non-ASCII included (RFC 6531 section 3.3)."""


@final
@dataclass(frozen=True, slots=True)
class Domain:
    """A domain name, as lower-case A-labels (``xn--bcher-kva.example``)."""

    name: str

    @classmethod
    def from_text(cls, text: str) -> Domain:
        """Take a name as it was written, U-labels included, and make it canonical (RFC 5891 section 4.4)."""
        if text.isascii():
            return cls(text.lower())
        return cls(".".join(_a_label(label) for label in text.split(".")))

    @property
    def unicode(self) -> str:
        """The name with U-labels, for people; a label that does not decode stays as it is."""
        return ".".join(_u_label(label) for label in self.name.split("."))

    def __str__(self) -> str:
        """The name as it stands in a path."""
        return self.name


@final
@dataclass(frozen=True, slots=True)
class AddressLiteral:
    """An address literal in the place of a domain (RFC 5321 section 4.1.3)."""

    address: IPv4Address | IPv6Address

    def __str__(self) -> str:
        """The literal as it stands in a path: ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``."""
        tag = "IPv6:" if self.address.version == 6 else ""
        return f"[{tag}{self.address}]"


Host: TypeAlias = Domain | AddressLiteral
"""What may stand behind the @ of a mailbox, or behind HELO."""


@final
@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox: ``local_part`` (without quotes) at a domain or an address literal."""

    local_part: str
    domain: Host

    def __str__(self) -> str:
        """The mailbox as it stands in a path, the local part quoted where it must be."""
        return f"{quote_local_part(self.local_part)}@{self.domain}"


@final
@dataclass(frozen=True, slots=True)
class ReversePath:
    """Who a bounce goes to; ``mailbox`` is None for the null reverse-path ``<>``."""

    mailbox: Mailbox | None

    @property
    def is_null(self) -> bool:
        """True for ``<>``: nobody is told of a failure (RFC 5321 section 4.5.5)."""
        return self.mailbox is None

    def __str__(self) -> str:
        """The address without angle brackets; empty for the null reverse-path."""
        return "" if self.mailbox is None else str(self.mailbox)


@final
@dataclass(frozen=True, slots=True)
class ForwardPath:
    """Who a message is for. ``<Postmaster>`` without a domain is given the receiver's own name."""

    mailbox: Mailbox

    @property
    def is_postmaster(self) -> bool:
        """True for the local part postmaster in any case (RFC 5321 section 4.5.1)."""
        return self.mailbox.local_part.lower() == "postmaster"

    def __str__(self) -> str:
        """The address without angle brackets."""
        return str(self.mailbox)


def quote_local_part(local_part: str) -> str:
    """Write a local part as a dot-string where it is one, else as a quoted string (RFC 5321 section 4.1.2)."""
    if DOT_STRING.fullmatch(local_part):
        return local_part
    escaped = local_part.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _a_label(label: str) -> str:
    lowered = unicodedata.normalize("NFC", label).lower()
    return lowered if lowered.isascii() else "xn--" + lowered.encode("punycode").decode("ascii")


def _u_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label.removeprefix("xn--").encode("ascii").decode("punycode")
    except UnicodeError:
        return label
