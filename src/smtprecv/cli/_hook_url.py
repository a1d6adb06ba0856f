"""A web hook as it is written on the command line: its URL, and behind ``#`` what is ours and never sent.

``https://hook.example/mail#format=json&per=message&secret-file=PATH&allow=10.0.0.0/8&redirects=1``
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from smtprecv.deliveries import Format, Per, Webhook
from smtprecv.errors import ConfigError
from smtprecv.server import Networks

_FORMATS: Final[Mapping[str, Format]] = {"raw": "raw", "multipart": "multipart", "json": "json"}
_PERS: Final[Mapping[str, Per]] = {"recipient": "recipient", "message": "message"}
_DEFAULTS: Final = {"format": "raw", "per": "recipient", "secret-file": "", "allow": "", "redirects": "0"}


def read_webhook(text: str, *, hostname: str, envelope_to: bool = False) -> Webhook:
    """Make a web hook; ConfigError that names what is wrong. Networks may be several, with commas between them."""
    url, _, fragment = text.partition("#")
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    given = {key: options.pop(key, default) for key, default in _DEFAULTS.items()}
    wrong = [
        *options,
        *["format"] * (given["format"] not in _FORMATS),
        *["per"] * (given["per"] not in _PERS),
        *["redirects"] * (given["redirects"] not in map(str, range(10))),
    ]
    if wrong:
        msg = f"{text!r}: what stands behind # is {', '.join(_DEFAULTS)}, and {wrong[0]!r} is not as it should be"
        raise ConfigError(msg)
    return Webhook(
        url,
        format=_FORMATS[given["format"]],
        per=_PERS[given["per"]],
        secret=_secret(given["secret-file"]) if given["secret-file"] else None,
        redirects=int(given["redirects"]),
        allowed=Networks.of(*filter(None, given["allow"].split(","))),
        hostname=hostname,
        envelope_to=envelope_to,
    )


def _secret(path: str) -> str:
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        msg = f"the secret of a web hook cannot be read from {path!r}: {error}"
        raise ConfigError(msg) from None
