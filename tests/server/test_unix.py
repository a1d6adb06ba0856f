"""Unix sockets: who may connect, whose file is replaced, and who takes it away."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.server.harness import CONFIG, Memory, Peer
from tests.server.test_server import Who

from smtprecv.errors import ConfigError
from smtprecv.server import Server, UnixListener, address_of, listen
from smtprecv.server._unix import UnixAddress, open_unix_listener, parse_unix_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/run/smtp", UnixAddress(Path("/run/smtp"))),
        ("/run/a:b c?mode=1", UnixAddress(Path("/run/a:b c?mode=1"))),
        ("/run/smtp,mode=0660", UnixAddress(Path("/run/smtp"), 0o660)),
        ("/run/smtp,mode=666", UnixAddress(Path("/run/smtp"), 0o666)),
        ("/run/smtp,group=mail,mode=660,owner=1000", UnixAddress(Path("/run/smtp"), 0o660, "1000", "mail")),
    ],
)
def test_addresses_are_read(text: str, address: UnixAddress) -> None:
    """A path, and behind commas, in any order, mode, owner and group."""
    assert parse_unix_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run/smtp",
        "@smtp",
        "/run/\0smtp",
        "/run/smtp,",
        "/run/smtp,mode=",
        "/run/smtp,mode=rw",
        "/run/smtp,mode=0o660",
        "/run/smtp,mode=1777",
        "/run/smtp,mode=680",
        "/run/smtp,mode=660,mode=666",
        "/run/smtp,owner=",
        "/run/smtp,user=anna",
        "/run/smtp,Mode=660",
    ],
)
async def test_anything_else_is_refused(text: str) -> None:
    """The error names the text; nothing is made."""
    with pytest.raises(ConfigError, match=r"is not /PATH\[,mode=MODE\]"):
        await listen(f"unix:{text}")


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    """A client of a Unix socket is served like any other, and has no address; the file goes with the server."""
    path, who, memory = tmp_path / "smtp", Who(), Memory()
    server = Server(memory, config=CONFIG, policy=who)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(server.serve, await listen(f"unix:{path}"))
        assert address_of(listener) == str(path)
        async with await trio.open_unix_socket(path) as stream:
            peer = Peer(stream)
            await peer.reply()
            await peer.open_transaction()
            assert (await peer.ask("DATA")).startswith("354")
            assert (await peer.ask("hello", ".")).startswith("250")
        server.drain()
    assert [client.address for client in who.clients] == [None]
    assert len(memory.taken) == 1
    assert not path.exists()


@pytest.mark.parametrize(("option", "mode"), [("", 0o600), (",mode=0666", 0o666), (",mode=660", 0o660)])
async def test_the_mode_is_set(tmp_path: Path, option: str, mode: int) -> None:
    """The mode is the one asked for, whatever the umask; by default only this user may connect."""
    path = tmp_path / "smtp"
    before = os.umask(0o077 if mode == 0o666 else 0)
    try:
        [listener] = await listen(f"unix:{path}{option}")
    finally:
        os.umask(before)
    async with listener:
        assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_nobody_can_connect_before_the_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the mode is about to be set the socket does not listen yet."""
    path, refused = tmp_path / "smtp", []
    chmod = Path.chmod

    def connect_first(self: Path, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            refused.append(client.connect_ex(str(path)))
        chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", connect_first)
    [listener] = await listen(f"unix:{path}")
    await listener.aclose()
    assert refused == [errno.ECONNREFUSED]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_the_owner_is_set(tmp_path: Path) -> None:
    """Owner and group, by name or by number, are those asked for."""
    nobody = pwd.getpwnam("nobody")
    path = tmp_path / "smtp"
    [listener] = await listen(f"unix:{path},owner=nobody,group=mail,mode=660")
    async with listener:
        assert path.stat().st_uid == nobody.pw_uid
        assert path.group() == "mail"


@pytest.mark.parametrize("option", ["owner=no-such-user", "group=no-such-group"])
async def test_an_unknown_owner_leaves_nothing_behind(tmp_path: Path, option: str) -> None:
    """A name that nobody has is a wrong setting, and no socket is left that nobody listens to."""
    with pytest.raises(ConfigError, match="no such"):
        await listen(f"unix:{tmp_path}/smtp,{option}")
    assert list(tmp_path.iterdir()) == []


async def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    """A file that nobody listens to is what a killed server has left."""
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    [listener] = await listen(f"unix:{path}")
    async with listener, await trio.open_unix_socket(path), await listener.accept() as accepted:
        assert accepted.socket.family == socket.AF_UNIX


@pytest.mark.parametrize("backlog", [0, 5])
async def test_a_living_server_is_left_alone(tmp_path: Path, backlog: int) -> None:
    """While somebody listens, even with as many waiting as may, the path is in use."""
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as waiting:
        living.bind(str(path))
        living.listen(backlog)
        if not backlog:
            waiting.connect(str(path))
        with pytest.raises(OSError, match="in use") as caught:
            await listen(f"unix:{path}")
        assert caught.value.errno == errno.EADDRINUSE
        assert path.is_socket()


async def test_a_server_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """A datagram socket cannot be asked whether it lives, so it is taken for alive."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        with pytest.raises(OSError, match="wrong type"):
            await listen(f"unix:{path}")
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "fifo"])
async def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Nothing but a dead socket is ever removed; a link to one is not one."""
    path, target = tmp_path / "smtp", tmp_path / "target"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(target))
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_text("precious"),
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(target),
        "dangling link": lambda: path.symlink_to(tmp_path / "nothing"),
        "fifo": lambda: os.mkfifo(path),
    }
    makers[kind]()
    before = path.lstat()
    with pytest.raises(OSError, match="no socket is in the way"):
        await listen(f"unix:{path}")
    assert path.lstat() == before
    assert target.is_socket()


async def test_a_path_that_cannot_be_is_an_os_error(tmp_path: Path) -> None:
    """A missing folder and a path that is longer than sockets may have are told apart from wrong settings."""
    with pytest.raises(OSError, match="No such file"):
        await listen(f"unix:{tmp_path}/no/smtp")
    with pytest.raises(OSError, match="too long"):
        await listen(f"unix:{tmp_path}/{'x' * 120}")
    assert list(tmp_path.iterdir()) == []


async def test_only_ones_own_file_is_removed(tmp_path: Path) -> None:
    """What somebody else has put in its place stays, and so does what comes after it is closed."""
    path = tmp_path / "smtp"
    [first] = await listen(f"unix:{path}")
    path.unlink()
    [second] = await listen(f"unix:{path}")
    await first.aclose()
    assert path.is_socket()
    await second.aclose()
    assert not path.exists()
    [third] = await listen(f"unix:{path}")
    await second.aclose()
    assert path.is_socket()
    await third.aclose()
    path.mkdir()
    await third.aclose()
    assert path.is_dir()


async def test_the_file_may_go_first(tmp_path: Path) -> None:
    """Without its file a socket goes on listening for those who have connected; a closed one removes nothing more."""
    path = tmp_path / "smtp"
    [listener] = await listen(f"unix:{path}")
    assert isinstance(listener, UnixListener)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.remove_file()
        assert not path.exists()
        await (await listener.accept()).aclose()
    path.touch()
    listener.close()
    listener.remove_file()
    assert path.exists()


async def test_closing_is_done_when_cancelled(tmp_path: Path) -> None:
    """A cancelled close has closed, and removed the file."""
    path = tmp_path / "smtp"
    [listener] = await listen(f"unix:{path}")
    assert isinstance(listener, UnixListener)
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    assert scope.cancelled_caught
    assert listener.socket.fileno() == -1
    assert not path.exists()


async def test_servers_that_start_together_take_turns(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """While another looks at what is at the path, the folder is locked; nobody removes what the other has just made."""
    path = tmp_path / "smtp"
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with trio.move_on_after(1) as scope:
        await open_unix_listener(UnixAddress(path), 5)
    assert scope.cancelled_caught
    assert not path.exists()
    async with trio.open_nursery() as nursery:
        opened = []

        async def open_it() -> None:
            opened.append(await open_unix_listener(UnixAddress(path), 5))

        nursery.start_soon(open_it)
        await trio.testing.wait_all_tasks_blocked()
        assert opened == []
        os.close(descriptor)
    await opened[0].aclose()
