"""SASLprep (RFC 4013): one spelling for each name and password, and none for what could deceive."""

from __future__ import annotations

import stringprep
from typing import Final
from unicodedata import ucd_3_2_0

_PROHIBITED: Final = (
    # RFC 4013 section 2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str, *, is_stored: bool = False) -> str:
    """Prepare a name or password for comparison; ValueError for one that SASLprep does not allow.

    ``is_stored``: it is to be kept, so that code points that Unicode 3.2 does not know are refused (RFC 4013
    section 2.5); in what is only compared they may stand.
    """
    if text.isascii() and text.isprintable():
        return text
    # RFC 4013 section 2.1
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    # RFC 4013 section 2.2
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    tables = (*_PROHIBITED, stringprep.in_table_a1) if is_stored else _PROHIBITED
    if any(table(c) for c in prepared for table in tables) or not _is_of_one_direction(prepared):
        msg = "there is a character that a name or password may not have there (RFC 4013)"
        raise ValueError(msg)
    return prepared


def _is_of_one_direction(text: str) -> bool:
    """Say whether text that runs from right to left does so as a whole (RFC 4013 section 2.4, RFC 3454 section 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(map(stringprep.in_table_d2, text))
