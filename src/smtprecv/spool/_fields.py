"""Values out of the database, as the types that they must have: ValueError, TypeError or KeyError where they have not.

What is only kept, and never looked for, is a JSON object with a version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, TypeGuard

JsonValue: TypeAlias = "str | int | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What a field of an object may be."""

_VERSION: Final = 1


def fields_text(fields: Mapping[str, JsonValue]) -> str:
    """Write an object."""
    return json.dumps({"v": _VERSION, **fields})


def read_fields(text: object) -> Mapping[str, object]:
    """Read an object that ``fields_text`` wrote."""
    read: object = json.loads(read_text(text))
    fields = read_mapping(read)
    if fields["v"] != _VERSION:
        msg = f"not of version {_VERSION}: {text!r}"
        raise ValueError(msg)
    return fields


def read_text(value: object) -> str:
    """Give a text as it is."""
    if isinstance(value, str):
        return value
    msg = f"{value!r} is not a text"
    raise TypeError(msg)


def read_number(value: object) -> int:
    """Give a number as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    msg = f"{value!r} is not a number"
    raise TypeError(msg)


def read_flag(value: object) -> bool:
    """Give true or false as it is."""
    if isinstance(value, bool):
        return value
    msg = f"{value!r} is not true or false"
    raise TypeError(msg)


def read_mapping(value: object) -> Mapping[str, object]:
    """Give an object within an object as it is."""
    if _is_mapping(value):
        return value
    msg = f"{value!r} is not an object"
    raise TypeError(msg)


def read_sequence(value: object) -> Sequence[object]:
    """Give an array as it is."""
    if _is_sequence(value):
        return value
    msg = f"{value!r} is not an array"
    raise TypeError(msg)


def read_optional_text(value: object) -> str | None:
    """Give a text or None as it is."""
    return None if value is None else read_text(value)


def read_optional_number(value: object) -> int | None:
    """Give a number or None as it is."""
    return None if value is None else read_number(value)


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list)
