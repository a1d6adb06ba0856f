"""Addresses as people write them, and the sockets they become."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from smtprecv.errors import ConfigError
from smtprecv.server import address_of, listen, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("mx-1.example.com:2525", ("mx-1.example.com", 2525)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    """HOST:PORT, with an IPv6 address in brackets."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "25", ":25", "::1:25", "[::1]", "host:", "host:65536", "host:-1", "a b:25", "host:٢٥"]
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    """The error names the text that can't be read."""
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_port_zero_is_a_free_port(host: str) -> None:
    """The system chooses the port, and `address_of` tells it in the form that `listen` reads."""
    [listener] = await listen(f"{host}:0")
    address = address_of(listener)
    async with listener:
        name, port = parse_address(address)
        stream = await trio.open_tcp_stream(name, port)
        await stream.aclose()

    assert address.startswith(f"{host}:")
    assert port > 0


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
async def test_a_name_that_no_resolver_takes_is_refused_by_name(host: str) -> None:
    """A label that is empty or too long is a ConfigError, like every other address that can't be read."""
    with pytest.raises(ConfigError, match="is not a host name"):
        await listen(f"{host}:25")


async def test_a_port_in_use_is_an_os_error() -> None:
    """Two servers cannot silently share a port."""
    [listener] = await listen("127.0.0.1:0")
    async with listener:
        with pytest.raises(OSError, match=r"in use"):
            await listen(address_of(listener))


async def test_what_is_no_socket_is_refused_and_costs_no_descriptor(tmp_path: Path) -> None:
    """A program that tries another address after this one has not lost anything."""
    with (tmp_path / "file").open("w") as file:
        await trio.lowlevel.checkpoint()
        before = os.listdir("/dev/fd")  # noqa: PTH208  # the names alone
        with pytest.raises(OSError, match="non-socket"):
            await listen(f"fd:{file.fileno()}")
        assert os.listdir("/dev/fd") == before  # noqa: PTH208
