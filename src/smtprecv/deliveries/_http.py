"""Requests over HTTP, with httpx2: the one module that imports it.

Its one rule: it connects to an address that was checked, and to no other. The name is resolved here, and what is
connected to is the address; TLS is verified against the name. So a name that means another address a moment
later changes nothing. Whoever needs it imports it when it is asked for: httpx2 is optional.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, final

import httpx2
import trio

from smtprecv.deliveries._trouble import NetworkError
from smtprecv.errors import ConfigError
from smtprecv.server import Networks

_TEXT_SIZE: Final = 4096
_TEXT_SECONDS: Final = 2.0
"""Seconds that the text of a response may take, which nothing hangs on."""
_NOT_PUBLIC: Final = Networks.of(
    # Where IPv6 stands for IPv4, perhaps for an address that is not to be reached.
    *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96", "::ffff:0:0:0/96"),
    "fec0::/10",  # site-local once, and still so in some places
)
"""What Python takes for global, and may lead into a private network."""


class HttpError(NetworkError):
    """There is no response; the text says why."""


@final
class HttpRefused(HttpError):
    """There is no address that may be connected to."""


@final
@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response: its status, its header fields by lower-case names, the beginning of its text."""

    status: int
    fields: Mapping[str, str]
    text: str


@final
@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where and how to connect: ``allowed`` are the networks that are not global and may be reached all the same.

    Seconds to connect (name and TLS included), and for each read and write.
    """

    allowed: Networks
    tls: ssl.SSLContext
    connect_timeout: float
    idle_timeout: float


@final
class HttpClient:
    """Requests to one host, ``authority`` (with its port).

    Connections are kept within any block of ``kept``, and closed at the end of the last.
    """

    def __init__(self, url: str, settings: HttpSettings) -> None:
        """Take the settings; ConfigError for a URL that is none."""
        try:
            self.url: Final = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            msg = f"{url!r} is not a URL: {error}"
            raise ConfigError(msg) from None
        is_whole = self.url.host and (self.url.port or 0) < 65536 and not self.url.userinfo
        if self.url.scheme not in _PORTS or not is_whole:
            msg = f"{url!r} is not https://HOST[:PORT]/… without a user"
            raise ConfigError(msg)
        self._host: Final = self.url.raw_host.decode("ascii").strip("[]")
        self._port: Final = self.url.port or _PORTS[self.url.scheme]
        self.authority: Final = f"{self._host}:{self._port}"
        self._settings: Final = settings
        self._users = 0
        self._client: httpx2.AsyncClient | None = None

    async def post(
        self, headers: Mapping[str, str], body: AbstractAsyncContextManager[AsyncIterator[bytes]], path: str | None
    ) -> HttpResponse:
        """Send the body, for which ``headers`` have the size; HttpError if no response comes, what ``body`` raises.

        ``path``: another one than the URL's, with its query.
        """
        addresses = await self._addresses()
        url = self.url if path is None else self.url.copy_with(raw_path=path.encode())
        async with self.kept() as client, body as pieces:
            failure = HttpError("no address")
            for address in addresses:
                request = self._request(client, url, address, headers, pieces)
                try:
                    return await _respond(client, request)
                except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                    # Nothing of the body was read yet: the next address may have it.
                    failure = HttpError(_described(error))
                except httpx2.HTTPError as error:
                    raise HttpError(_described(error)) from None
            raise failure

    def _request(
        self,
        client: httpx2.AsyncClient,
        url: httpx2.URL,
        address: IPv4Address | IPv6Address,
        headers: Mapping[str, str],
        pieces: AsyncIterator[bytes],
    ) -> httpx2.Request:
        return client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            headers={**headers, "Host": url.netloc.decode("ascii")},
            content=pieces,
            extensions={"sni_hostname": url.raw_host.decode("ascii").strip("[]")},
        )

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[httpx2.AsyncClient, None]:
        """Keep connections open for the next request of the block, or of another one at the same time."""
        if self._client is None:
            timeout = httpx2.Timeout(self._settings.idle_timeout, connect=self._settings.connect_timeout, pool=None)
            # Proxies and credentials of our environment are not for the requests of strangers' mail.
            self._client = httpx2.AsyncClient(verify=self._settings.tls, timeout=timeout, trust_env=False)
        client = self._client
        self._users += 1
        try:
            yield client
        finally:
            self._users -= 1
            if not self._users:
                self._client = None
                with trio.CancelScope(shield=True):
                    await client.aclose()

    async def _addresses(self) -> list[IPv4Address | IPv6Address]:
        """Resolve the name; HttpRefused if none of its addresses may be connected to."""
        try:
            with trio.fail_after(self._settings.connect_timeout):
                found = await trio.socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, trio.TooSlowError) as error:
            msg = f"{self._host} cannot be resolved: {_described(error)}"
            raise HttpError(msg) from None
        addresses = [ip_address(str(name[0]).partition("%")[0]) for *_, name in found]
        allowed = [address for address in dict.fromkeys(addresses) if self._may_reach(address)]
        if not allowed:
            msg = f"{self._host} is at {addresses[0]}, which is not a public address"
            raise HttpRefused(msg)
        return allowed

    def _may_reach(self, address: IPv4Address | IPv6Address) -> bool:
        if address in self._settings.allowed:
            return True
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        known = mapped or address
        is_public = known.is_global and not known.is_multicast and known not in _NOT_PUBLIC
        # Without TLS nobody knows who answers, so it is for the networks that were allowed.
        return is_public and self.url.scheme == "https"


_PORTS: Final = {"https": 443, "http": 80}


async def _respond(client: httpx2.AsyncClient, request: httpx2.Request) -> HttpResponse:
    """Send a request, and read no more of the response than is told; its text may stop anywhere."""
    response = await client.send(request, stream=True, follow_redirects=False)
    text = b""
    try:
        # To leave the loop at its head would leave generators open in httpx2; a cancellation goes through them all.
        with suppress(httpx2.HTTPError), trio.move_on_after(_TEXT_SECONDS) as scope:
            async for octets in response.aiter_raw():
                text += octets[: _TEXT_SIZE - len(text)]
                if len(text) >= _TEXT_SIZE:
                    scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await response.aclose()
    fields = {name.lower(): value for name, value in response.headers.items()}
    return HttpResponse(response.status_code, fields, text.decode(errors="replace"))


def _described(error: Exception) -> str:
    return str(error) or type(error).__name__
