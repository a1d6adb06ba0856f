"""The URLs of next hops: ``smtp://HOST:PORT``, ``smtps://HOST:PORT``, ``lmtp://HOST:PORT``, ``lmtp+unix:/PATH``.

One rule: a password is never part of a URL, which stands in process lists and shell histories; ``auth=FILE`` names
a file that has it. What is wrong is a ConfigError, whose text repeats no password that was written all the same.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from smtprecv.deliveries import Relay
from smtprecv.errors import ConfigError
from smtprecv.protocol import Dialect, parse_host
from smtprecv.relay import TlsMode
from smtprecv.sasl import Password

_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True)
class _Scheme:
    port: int
    dialect: Dialect = Dialect.SMTP
    is_implicit: bool = False


_SCHEMES: Final[Mapping[str, _Scheme]] = {
    "smtp": _Scheme(25),
    "smtps": _Scheme(465, is_implicit=True),
    "lmtp": _Scheme(24, Dialect.LMTP),
}


def relay_to(scheme: str, rest: str, *, hostname: str, envelope_to: bool = False) -> Relay:
    """Make the delivery of ``SCHEME://HOST[:PORT][?tls=…][&ca=FILE][&auth=FILE]``."""
    _refuse_envelope_to(wanted=envelope_to)
    text = f"{scheme}:{rest}"
    url = _split(text)
    options = _options(url)
    kind = _SCHEMES[scheme]
    host, port = _host(url, text)
    return Relay(
        host,
        port or kind.port,
        dialect=kind.dialect,
        tls=_tls(options, is_implicit=kind.is_implicit),
        is_implicit=kind.is_implicit,
        tls_context=_file(options, "ca", lambda path: ssl.create_default_context(cafile=path)),
        credentials=_file(options, "auth", _credentials),
        hostname=hostname,
    )


def relay_to_unix(path: str, *, hostname: str, envelope_to: bool = False) -> Relay:
    """Make the delivery of ``lmtp+unix:/PATH``."""
    _refuse_envelope_to(wanted=envelope_to)
    if not path.startswith("/") or "\0" in path:
        msg = f"'lmtp+unix:{path}' is not lmtp+unix:/PATH"
        raise ConfigError(msg)
    return Relay(Path(path), dialect=Dialect.LMTP, hostname=hostname)


def _refuse_envelope_to(*, wanted: bool) -> None:
    if wanted:
        msg = "--envelope-to is for maildir:PATH; a next hop gets one copy for several recipients"
        raise ConfigError(msg)


def _split(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    if url.username is not None or url.password is not None or "@" in url.netloc:
        msg = "user and password do not belong in a URL: name a file that has them, ?auth=FILE"
        raise ConfigError(msg)
    if not text.partition(":")[2].startswith("//") or url.path not in {"", "/"} or url.fragment:
        raise _not_a_url(text)
    return url


def _host(url: SplitResult, text: str) -> tuple[str, int | None]:
    try:
        host, port = url.hostname or "", url.port
        # An address in brackets is written without them where it is connected to.
        name = str(parse_host(host if ":" not in host else f"[IPv6:{host}]"))
    except ValueError:
        raise _not_a_url(text) from None
    if port == 0:
        raise _not_a_url(text)
    return (host if ":" in host else name), port


def _not_a_url(text: str) -> ConfigError:
    return ConfigError(f"{text!r} is not smtp://HOST:PORT, smtps://HOST:PORT or lmtp://HOST:PORT")


def _options(url: SplitResult) -> Mapping[str, str]:
    options = parse_qsl(url.query, keep_blank_values=True)
    names = [name for name, _ in options]
    unknown = sorted({*names} - _OPTIONS)
    if unknown or len(names) > len({*names}):
        msg = f"{url.geturl()!r}: the options are tls=none|required|verify, ca=FILE and auth=FILE, each once"
        raise ConfigError(msg)
    return dict(options)


_OPTIONS: Final = frozenset({"tls", "ca", "auth"})


def _tls(options: Mapping[str, str], *, is_implicit: bool) -> TlsMode | None:
    """Read what TLS must be; inside TLS from the start it is verified unless something else is said."""
    text = options.get("tls")
    if text is None:
        return TlsMode.VERIFIED if is_implicit or "ca" in options else None
    try:
        return TlsMode(text)
    except ValueError:
        msg = f"tls={text} is not tls=none, tls=opportunistic, tls=required or tls=verify"
        raise ConfigError(msg) from None


def _file(options: Mapping[str, str], name: str, read: Callable[[str], _T]) -> _T | None:
    """Read what a file has that an option names; None without the option."""
    if name not in options:
        return None
    try:
        return read(options[name])
    except OSError as error:  # ssl.SSLError is one
        msg = f"{name}={options[name]}: {error.strerror or error}"
        raise ConfigError(msg) from None


def _credentials(path: str) -> Password:
    """Read the file of a user: the name on the first line, the password on the second."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        lines = []
    match lines:
        case [user, password] if user and password and "\0" not in user + password:
            return Password(user, password)
        case _:
            msg = f"auth={path}: it must have two lines, the user and the password"
            raise ConfigError(msg)
