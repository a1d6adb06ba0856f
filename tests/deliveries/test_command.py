"""Delivery to a program: what it is given, what its exit status means, and how it is ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.deliveries.test_maildir import BOB, CLIENT, EVE, attempt, recipient

from smtprecv.deliveries import Command
from smtprecv.delivery import Attempt, Delivery
from smtprecv.errors import ConfigError, SpoolError
from smtprecv.protocol import Body, Recipient, Reply, Session

TO_FILES = 'printf "%s\\n" "$@" > argv; env | sort > env; cat > body; echo "$RECIPIENT" >> runs'


def shell(script: str, *arguments: str, folder: Path | None = None, timeout: float = 20) -> Command:
    """Give a delivery to a shell script."""
    return Command("/bin/sh", "-c", script, "sh", *arguments, folder=folder, timeout=timeout, hostname="mx.example.com")


def told(path: Path) -> dict[str, str]:
    """Give the environment that the script has written."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def from_anna() -> Attempt:
    """Give an attempt that knows all there is to know of a client."""
    work = attempt(recipients=(Recipient(BOB.forward_path, EVE.forward_path),))
    session = Session("mail.example.net", is_extended=True, identity="an\nna")
    client = replace(CLIENT, host="mail.example.net", address=IPv4Address("192.0.2.1"), session=session)
    return replace(work, entry=replace(work.entry, client=client))


async def test_what_it_is_given(tmp_path: Path) -> None:
    """It reads the message below its trace fields, with LF, and knows who and where from by its environment."""
    work = from_anna()
    [reply] = await shell(TO_FILES, "{recipient}", "{original_recipient}", "{queue_id}", folder=tmp_path).deliver(work)
    assert str(reply) == "250 2.0.0 delivered"
    assert (tmp_path / "argv").read_text().split() == ["bob@example.com", "eve@example.com", work.queue_id]
    assert (tmp_path / "body").read_bytes().startswith(b"Return-Path: <>\nDelivered-To: bob@example.com\nReceived: ")
    assert (tmp_path / "body").read_bytes().endswith(b"\nSubject: x\n\n.dot\nlast\n")
    known = told(tmp_path / "env")
    assert known.pop("DELIVERY_ID").startswith(work.queue_id)
    assert {name: known[name] for name in known if name not in os.environ} == {
        "SENDER": "",
        "QUEUE_ID": work.queue_id,
        "RECIPIENT": "bob@example.com",
        "RECIPIENTS": "bob@example.com",
        "ORIGINAL_RECIPIENT": "eve@example.com",
        "CLIENT_ADDRESS": "192.0.2.1",
        "CLIENT_HOSTNAME": "mail.example.net",
        "CLIENT_HELO": "mail.example.net",
        "CLIENT_PROTOCOL": "ESMTPA",
        "SASL_USERNAME": "an?na",
    }


async def test_our_secrets_stay_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of our environment it has what every program needs, and no more; what was set for it comes on top."""
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    command = Command("/bin/sh", "-c", TO_FILES, folder=tmp_path, environment={"MODE": "test"})
    await command.deliver(attempt())
    known = told(tmp_path / "env")
    assert (known.get("SECRET"), known["LANG"], known["MODE"]) == (None, "C.UTF-8", "test")


async def test_per_message(tmp_path: Path) -> None:
    """Once for a message: all recipients are told, none is named in the copy, and the reply is for all."""
    command = Command("/bin/sh", "-c", TO_FILES, "sh", "{recipients}", per="message", folder=tmp_path)
    replies = await command.deliver(attempt(recipients=(BOB, EVE, BOB)))
    assert [str(reply) for reply in replies] == ["250 2.0.0 delivered"] * 3
    assert (tmp_path / "argv").read_text().split() == ["bob@example.com", "eve@example.com"]
    assert b"@example.com" not in (tmp_path / "body").read_bytes()
    assert "RECIPIENT" not in told(tmp_path / "env")
    assert (tmp_path / "runs").read_text() == "\n"


async def test_per_recipient(tmp_path: Path) -> None:
    """Each recipient has a run and a reply of its own; who stands in the envelope twice has one run."""
    script = f'{TO_FILES}; case "$RECIPIENT" in eve*) exit 75;; esac'
    replies = await shell(script, folder=tmp_path).deliver(attempt(recipients=(BOB, EVE, BOB)))
    assert [reply.code for reply in replies] == [250, 451, 250]
    assert (tmp_path / "runs").read_text().split() == ["bob@example.com", "eve@example.com"]


async def test_line_ends(tmp_path: Path) -> None:
    """Lines keep their CRLF where that is asked for, and binary octets are never changed."""
    crlf = Command("/bin/sh", "-c", TO_FILES, folder=tmp_path, keeps_crlf=True, envelope_to=True)
    await crlf.deliver(attempt())
    assert (
        (tmp_path / "body")
        .read_bytes()
        .endswith(b"X-Envelope-To: bob@example.com\r\nSubject: x\r\n\r\n.dot\r\nlast\r\n")
    )
    await shell(TO_FILES, folder=tmp_path).deliver(attempt(b"\0\r", b"\n", body=Body.BINARY_MIME))
    assert (tmp_path / "body").read_bytes().endswith(b"\r\n\0\r\n")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", "250 2.0.0 delivered"),
        ("cat > /dev/null; echo one; echo ' two '; echo", "250 2.0.0 delivered: two"),
        ("exit 75", "451 4.3.0 not now"),
        ("exit 67", "550 5.1.1 there is no such user"),
        ("exit 64", "554 5.3.0 the program was used wrongly"),
        ("exit 73", "452 4.3.0 a file cannot be made"),
        ("echo no room >&2; exit 73", "452 4.3.0 a file cannot be made: no room"),
        ("exit 1", "451 4.3.0 the program ended with status 1"),
        ("nothing-of-this-name", "451 4.3.0 the program ended with status 127: sh: 1: nothing-of-this-name: not found"),
        ("kill -SEGV $$", "451 4.3.0 the program was killed by SIGSEGV"),
        ("kill -40 $$", "451 4.3.0 the program was killed by signal 40"),
        ("printf '\\033[31m\\377'; exit 69", "554 5.3.0 the service is not available: ?[31m\ufffd"),
        ("head -c 100000 /dev/zero | tr '\\0' x", "250 2.0.0 delivered: " + "x" * 200),
    ],
)
async def test_outcomes(script: str, expected: str) -> None:
    """The exit status decides, by the table; the last line that the program wrote is told, made safe and short."""
    [reply] = await shell(script).deliver(attempt())
    assert str(reply) == expected


async def test_it_need_not_read(tmp_path: Path) -> None:
    """A program that ends before it has read a large message has decided; one that writes much is read."""
    large = attempt(*[b"x" * 200_000] * 20)
    [reply] = await shell("exit 67").deliver(large)
    assert reply.code == 550
    [reply] = await shell("head -c 3000000 /dev/zero; cat > body; head -c 3000000 /dev/zero", folder=tmp_path).deliver(
        large
    )
    assert (reply.code, (tmp_path / "body").stat().st_size > 4_000_000) == (250, True)


async def test_it_cannot_be_started(tmp_path: Path) -> None:
    """A program or a folder that is not there is our fault: 451."""
    [reply] = await Command(str(tmp_path / "none")).deliver(attempt())
    assert str(reply) == "451 4.3.0 No such file or directory"
    [reply] = await shell("exit 0", folder=tmp_path / "none").deliver(attempt())
    assert reply.code == 451


async def test_a_child_that_stays_is_not_waited_for() -> None:
    """A program that leaves something running which holds its output has ended all the same."""
    with trio.fail_after(10):
        [reply] = await shell("echo $$; sleep 60 & exit 0").deliver(attempt())
    assert reply.code == 250
    os.killpg(int(reply.text.rpartition(" ")[2]), signal.SIGKILL)


@pytest.mark.parametrize("address", ["-oQ/tmp", "--help"])
async def test_no_options_from_outside(address: str, tmp_path: Path) -> None:
    """An address that a program could take for an option does not become an argument; the environment has any."""
    [reply] = await shell(TO_FILES, "{recipient}", folder=tmp_path).deliver(attempt(recipients=(recipient(address),)))
    assert str(reply).startswith("553 5.1.3 ")
    assert list(tmp_path.iterdir()) == []
    [reply] = await shell(TO_FILES, folder=tmp_path).deliver(attempt(recipients=(recipient(address),)))
    assert (reply.code, told(tmp_path / "env")["RECIPIENT"]) == (250, f"{address}@example.com")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ((), "a command needs a program"),
        (("",), "a command needs a program"),
        (("x", "--to={recipient}"), "'--to={recipient}': {recipient} must be the whole argument"),
        (("x", "{user}"), "'{user}': {user} is unknown where it runs per recipient, there are {original_recipient}"),
    ],
)
def test_wrong(argv: tuple[str, ...], text: str) -> None:
    """What cannot be meant is a ConfigError that says why."""
    with pytest.raises(ConfigError, match=text.replace("{", r"\{")):
        Command(*argv)


def test_wrong_per_message() -> None:
    """A message has not one recipient."""
    with pytest.raises(ConfigError, match="unknown where it runs per message"):
        Command("x", "{recipient}", per="message")
    assert isinstance(Command("awk", "{print $1}"), Delivery)


# ---------------------------------------------------------------- how it is ended


def is_alive(pid: int) -> bool:
    """Say whether a process lives: one that was ended and is not reaped by its parent does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def assert_dead(path: Path) -> None:
    """Require that the processes whose ids stand in a file are gone soon."""
    deadline = time.monotonic() + 5
    while any(is_alive(int(pid)) for pid in path.read_text().split()):
        assert time.monotonic() < deadline


def open_files() -> set[str]:
    """Give the open files of this process that are pipes or processes."""
    names = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return {name for name in names if "pipe" in name or "pidfd" in name}


STUBBORN = (
    "trap '' TERM; (trap '' TERM; sleep 60) & echo $$ $! > pids.tmp; mv pids.tmp pids; cat > body; touch read; wait"
)


@pytest.mark.slow
@pytest.mark.parametrize("script", [STUBBORN, STUBBORN.replace("trap '' TERM;", "", 1)])
async def test_timeout(script: str, tmp_path: Path) -> None:
    """At the timeout the whole process group is ended, by SIGKILL what does not heed SIGTERM; nothing is left of it."""
    before = open_files()
    [reply] = await shell(script, folder=tmp_path, timeout=0.5).deliver(attempt())
    assert str(reply) == "451 4.3.0 the program did not end in time"
    assert_dead(tmp_path / "pids")
    assert open_files() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222  # there is nobody to wait for


@pytest.mark.slow
async def test_cancelled(tmp_path: Path) -> None:
    """Cancellation ends it likewise, before it can have taken the end of its input for the end of the message."""
    async with trio.open_nursery() as nursery:
        endless = attempt(*[b"x" * 200_000] * 1000)
        script = STUBBORN.replace("cat > body", "sleep 0.1; dd of=body count=1 2> /dev/null; sleep 60; cat > /dev/null")
        nursery.start_soon(shell(script, folder=tmp_path).deliver, endless)
        while not (tmp_path / "body").exists():  # noqa: ASYNC110  # a file is no event
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert_dead(tmp_path / "pids")
    assert not (tmp_path / "read").exists()


async def test_cancelled_behind_an_answer(tmp_path: Path) -> None:
    """Whom the program has served stays served when the attempt is cancelled; who comes behind him is put off."""
    script = 'test "$RECIPIENT" = bob@example.com || { touch begun; exec sleep 60; }'
    replies: Sequence[Reply] = ()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                while not (tmp_path / "begun").exists():  # noqa: ASYNC110  # a file is no event
                    await trio.sleep(0.01)
                scope.cancel()

            nursery.start_soon(cancel)
            replies = await shell(script, folder=tmp_path).deliver(attempt(recipients=(BOB, EVE)))
    assert [str(reply) for reply in replies] == ["250 2.0.0 delivered", "451 4.3.2 the attempt was broken off"]


@pytest.mark.slow
async def test_the_end_is_known(tmp_path: Path) -> None:
    """The exit status counts also where time is over before those who hold the output open have let go of it."""
    [reply] = await shell("sleep 5 & echo $! > pid; exit 0", folder=tmp_path, timeout=0.3).deliver(attempt())
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert str(reply) == "250 2.0.0 delivered"


async def test_a_message_that_cannot_be_read(tmp_path: Path) -> None:
    """When the queue fails in the middle, the program never sees an end of its input."""
    [reply] = await shell("cat > body; touch read", folder=tmp_path).deliver(
        attempt(b"x", SpoolError("cannot read it"))
    )
    assert str(reply) == "451 4.3.0 cannot read it"
    assert not (tmp_path / "read").exists()


@pytest.mark.slow
async def test_concurrency(tmp_path: Path) -> None:
    """No more run at a time than was set."""
    script = "mkdir $$; ls -d [0-9]* | wc -l >> counts; sleep 0.05; rmdir $$"
    command = Command("/bin/sh", "-c", script, folder=tmp_path, concurrency=2)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(command.deliver, attempt())
    assert {int(count) for count in (tmp_path / "counts").read_text().split()} <= {1, 2}
