"""A socket as a stream: what one task may expect of it, and accepting."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from smtprecv.server._accepting import accept_all
from smtprecv.server._transport import SocketTransport, close_at_once


@pytest.fixture
def ends() -> Iterator[tuple[SocketTransport, socket.socket]]:
    """Give a transport and the other end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as far:
        near, _ = server.accept()
        near.settimeout(0)
        far.settimeout(5)
        with near:
            yield SocketTransport(near), far


def reset(far: socket.socket) -> None:
    """Break a connection, so that the other end sees a reset."""
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()


async def test_octets_go_both_ways_and_end(ends: tuple[SocketTransport, socket.socket]) -> None:
    """What is sent arrives; the end of the other side's octets is no octets."""
    near, far = ends
    await near.wait_send_all_might_not_block()
    await near.send_all(memoryview(b"220 ok"))
    await near.send_eof()
    assert (far.recv(10), far.recv(10)) == (b"220 ok", b"")
    far.sendall(b"QUIT")
    assert await near.receive_some(3) == b"QUI"
    assert await near.receive_some() == b"T"
    far.shutdown(socket.SHUT_WR)
    assert await near.receive_some() == b""


async def test_more_than_the_kernel_takes_is_sent_as_it_is_read(ends: tuple[SocketTransport, socket.socket]) -> None:
    """``send_at_once`` says how much the kernel takes, nothing at last, and ``send_all`` waits for its turn."""
    near, far = ends
    octets = bytes(range(256)) * 4096 * 16
    rest = octets
    while taken := near.send_at_once(rest):
        rest = rest[taken:]
    assert 0 < len(rest) < len(octets)
    heard = bytearray()

    async def read() -> None:
        while len(heard) < len(octets):
            heard.extend(await trio.to_thread.run_sync(far.recv, 1 << 20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, rest)
        nursery.start_soon(read)
    assert heard == octets


async def test_waiting_to_send_and_to_receive_is_cancelled(
    ends: tuple[SocketTransport, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    """Both end with their scope."""
    near, _ = ends
    with trio.move_on_after(1) as scope:
        await near.receive_some()
    assert scope.cancelled_caught
    with trio.move_on_after(1) as scope:
        await near.send_all(bytes(1 << 26))
    assert scope.cancelled_caught
    assert trio.current_time() == 2


async def test_what_is_there_is_left_there_by_who_is_cancelled(ends: tuple[SocketTransport, socket.socket]) -> None:
    """To receive is a checkpoint though there are octets, and who is cancelled there loses none of them."""
    near, far = ends
    far.sendall(b"NOOP")
    with trio.move_on_after(0) as scope:
        await near.receive_some()
    assert scope.cancelled_caught
    assert await near.receive_some() == b"NOOP"


async def test_what_has_come_is_taken_without_asking_for_it_to_be_told(
    ends: tuple[SocketTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have had their turn, and so the octets are there as a rule: the event loop need not watch for them."""
    near, far = ends
    waits: list[object] = []
    monkeypatch.setattr(trio.lowlevel, "wait_readable", waits.append)

    far.sendall(b"NOOP")
    assert await near.receive_some() == b"NOOP"
    assert not waits


async def test_closing_ends_a_wait(ends: tuple[SocketTransport, socket.socket]) -> None:
    """Who waits for a stream that another task closes is told; nothing is kept meanwhile, not even an exception."""
    near, _ = ends

    async def close() -> None:
        await trio.testing.wait_all_tasks_blocked()
        near.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        with pytest.raises(trio.ClosedResourceError) as told:
            await near.receive_some()
    assert told.value.__context__ is None


async def test_a_reset_is_a_broken_stream(ends: tuple[SocketTransport, socket.socket]) -> None:
    """Whatever is tried after a reset: BrokenResourceError, and the reason."""
    near, far = ends
    reset(far)
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await near.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await near.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await near.send_eof()


async def test_a_closed_stream_says_so(ends: tuple[SocketTransport, socket.socket]) -> None:
    """Closing may be done twice; all else is a ClosedResourceError then."""
    near, _ = ends
    await near.aclose()
    await close_at_once(near)
    for attempt in (near.receive_some(), near.send_all(b"x"), near.send_eof(), near.wait_send_all_might_not_block()):
        with pytest.raises(trio.ClosedResourceError):
            await attempt


async def test_nothing_there_after_all_is_waited_for(
    ends: tuple[SocketTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket may be told to be readable and have nothing."""
    near, far = ends
    waits: list[object] = []
    wait_readable = trio.lowlevel.wait_readable

    async def overhasty(ready: socket.socket) -> None:
        waits.append(ready)
        if len(waits) > 1:
            far.sendall(b"NOOP")
            await wait_readable(ready)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", overhasty)
    assert await near.receive_some() == b"NOOP"
    assert len(waits) == 2


async def test_all_who_wait_are_let_in_at_one_turn() -> None:
    """Connections that wait together are accepted together."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(5)]
    seen: list[SocketTransport] = []

    async def handle(stream: SocketTransport) -> None:
        seen.append(stream)
        await trio.lowlevel.checkpoint()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept_all, listener.socket, handle, nursery)
        with trio.fail_after(5):
            while not seen:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    names = {stream.socket.getpeername() for stream in seen}
    expected = {client.getsockname() for client in clients}
    for client in clients:
        client.close()
    for stream in seen:
        stream.close()
    assert names == expected


async def test_a_want_of_memory_pauses(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system has too little of is waited for a tenth of a second, and told; a client that left is nothing."""
    faults: list[OSError] = [OSError(12, "no memory"), ConnectionAbortedError()]

    def fail(_: socket.socket) -> tuple[socket.socket, object]:
        raise faults.pop(0) if faults else OSError(22, "not listening")

    async def ready(_: socket.socket) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(socket.socket, "accept", fail)
    monkeypatch.setattr(trio.lowlevel, "wait_readable", ready)
    caplog.set_level(logging.ERROR)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener, trio.open_nursery() as nursery:
        with pytest.raises(OSError, match="not listening"):
            await accept_all(listener.socket, close_at_once, nursery)
    assert trio.current_time() == pytest.approx(0.1)
    assert caplog.messages == ["accepting connections pauses: Cannot allocate memory"]
