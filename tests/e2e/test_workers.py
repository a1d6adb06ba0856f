"""`serve --workers`: several processes behind one set of sockets, which die, drain and come again together."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from tests.e2e import programs
from tests.e2e.peers.certificates import Authority, Certificate, serving
from tests.e2e.served import COMMAND, Served, smtprecv, until
from tests.e2e.test_listeners import LAUNCHER
from tests.e2e.wire import Wire
from tests.e2e.workers import is_over, serving_by, stopped, workers

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ANNA = "anna@example.com"
BEN = "ben@example.org"


def has_worker(pid: int) -> bool:
    """Say whether a process has a child that is a worker."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError):
            if "--worker" in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
                return True
    return False


def opened(served: Served) -> Wire:
    """Give a session up to the 354."""
    wire = Wire(served)
    wire.ask("EHLO client.example.com", 250)
    wire.begin(BEN)
    return wire


@contextmanager
def with_each(served: Served, begin: Callable[[Served], Wire]) -> Iterator[list[Wire]]:
    """Begin a session with each of two workers, while the other one stands still."""
    first, second = workers(served)[1], workers(served)[2]
    with ExitStack() as stack:
        wires: list[Wire] = []
        for other in (second, first):
            with stopped(other):
                wires.append(stack.enter_context(begin(served)))
        yield wires


def finish(wire: Wire) -> None:
    """End a transaction, which is accepted, and hear the server hang up."""
    wire.ask("hello\r\n.", 250)
    assert wire.reply()[0] == 421
    assert wire.rest() == b""


def test_load(tmp_path: Path) -> None:
    """Of 2000 messages to two workers each is delivered once, by the one queue that both run, and both took some."""
    with serving_by(tmp_path) as served:
        load = ["-s", "20", "-m", "2000", "-l", "4096", "-f", ANNA, "-t", BEN]
        programs.run("smtp-source", *load, served.address)
        served.await_files(2000, seconds=120)
        served.await_empty_queue()
        served.terminate()
        took = Counter(re.findall(r"worker (\d): \w+: from=.* queued as ", served.log))
        assert (sorted(took), took.total()) == (["1", "2"], 2000)
        assert re.findall(r"listening on .*", served.log) == [f"listening on {served.address}"]
        assert "Traceback" not in served.log


def test_a_death_is_its_own_clients_alone(tmp_path: Path) -> None:
    """SIGKILL of a worker cuts its sessions off and no other; another one takes its place."""
    with serving_by(tmp_path) as served, with_each(served, opened) as (lost, kept):
        killed = workers(served)[1]
        os.kill(killed, signal.SIGKILL)
        served.await_log("worker 1 was killed by SIGKILL, the next one starts in 0 s")
        with suppress(ConnectionResetError):
            assert lost.rest() == b""
        kept.ask("hello\r\n.", 250)
        until(lambda: workers(served)[1] != killed, "another worker")
        served.await_files(1)
        with with_each(served, opened) as wires:
            for wire in wires:
                wire.ask("hello\r\n.", 250)
        served.await_files(3)
        served.terminate()


def test_a_backlog_outlives_the_workers(tmp_path: Path) -> None:
    """Who waits to be accepted when all workers die is served by the next ones, and reset by nobody."""
    with serving_by(tmp_path) as served, ExitStack() as stack:
        pids = workers(served)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        waiting = [socket.create_connection((served.host, served.port), timeout=30) for _ in range(100)]
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        for each in waiting:
            stack.enter_context(Wire(each)).ask("NOOP", 250)
        served.terminate()


def test_a_worker_that_cannot_begin_again(tmp_path: Path, certificate: Certificate) -> None:
    """A setting that breaks later ends nothing: the others serve on, and the worker comes when it is mended."""
    key = tmp_path / "key.pem"
    key.write_bytes(Path(serving(certificate)[-1]).read_bytes())
    with serving_by(tmp_path, *serving(certificate)[:-1], str(key)) as served:
        killed = workers(served)[1]
        good = key.read_bytes()
        key.write_text("nothing\n")
        os.kill(killed, signal.SIGKILL)
        served.await_log("worker 1 ended with status 2, the next one starts in 1 s")
        with Wire(served) as wire:
            wire.ask("EHLO client.example.com", 250)
        key.write_bytes(good)
        until(lambda: workers(served)[1] != killed, "another worker")
        served.terminate()


@pytest.mark.parametrize("is_for_all", [False, True], ids=["supervisor", "everybody"])
def test_drain(tmp_path: Path, *, is_for_all: bool) -> None:
    """SIGTERM lets the transactions of every worker finish; so it is if systemd sends it to all processes."""
    with serving_by(tmp_path, "--listen", f"unix:{tmp_path}/s") as served, with_each(served, opened) as wires:
        for pid in (served.pid, *workers(served).values()) if is_for_all else (served.pid,):
            os.kill(pid, signal.SIGTERM)
        for number in workers(served):
            served.await_log(f"worker {number}: SIGTERM: no new mail")
        until(lambda: not (tmp_path / "s").exists(), "the end of the Unix socket")
        for wire in wires:
            finish(wire)
        assert served.wait() == 0
        assert len(served.files()) <= 2
        assert all(map(is_over, workers(served).values()))
    with Served(tmp_path, port=served.port) as again:
        again.await_files(2)
        again.terminate()


def test_second_signal(tmp_path: Path) -> None:
    """A second signal cuts all transactions off, and the exit status is 0 as well."""
    with serving_by(tmp_path, "--grace", "1h") as served, with_each(served, opened) as wires:
        served.signal(signal.SIGTERM)
        for number in workers(served):
            served.await_log(f"worker {number}: SIGTERM: no new mail")
        served.signal(signal.SIGINT)
        assert [wire.reply()[0] for wire in wires] == [421, 421]
        assert served.wait() == 0


def test_interrupt_from_a_terminal(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group, and is one signal for all: transactions finish."""
    group = ["setsid", "--wait"]
    with Served(tmp_path, "--workers", "2", prefix=group) as served:
        until(lambda: len(workers(served)) == 2, "the workers")
        supervisor = int(Path(f"/proc/{workers(served)[1]}/stat").read_text().rpartition(")")[2].split()[1])
        with with_each(served, opened) as wires:
            os.killpg(supervisor, signal.SIGINT)
            for number in workers(served):
                served.await_log(f"worker {number}: SIGINT: no new mail")
            for wire in wires:
                finish(wire)
        assert served.wait() == 0


def test_a_failed_drain(tmp_path: Path) -> None:
    """A worker that dies while it drains makes the exit status 1."""
    with serving_by(tmp_path, "--grace", "1h") as served, with_each(served, opened) as wires:
        served.signal(signal.SIGTERM)
        served.await_log("worker 2: SIGTERM: no new mail")
        os.kill(workers(served)[2], signal.SIGKILL)
        finish(wires[0])
        assert served.wait() == 1
        assert "worker 2 was killed by SIGKILL" in served.log


def test_death_of_the_supervisor(tmp_path: Path) -> None:
    """If the supervisor dies, its workers notice, finish what has begun, and leave the port free."""
    with serving_by(tmp_path) as served, with_each(served, opened) as wires:
        served.kill()
        for number in workers(served):
            served.await_log(f"worker {number}: the supervisor has died: no new mail")
        for wire in wires:
            finish(wire)
        until(lambda: all(map(is_over, workers(served).values())), "the end of the workers")
        with serving_by(tmp_path, port=served.port) as again:
            again.await_files(2)
            again.terminate()


def test_two_servers_on_one_port(tmp_path: Path) -> None:
    """The port is in use for another server, with workers or without."""
    with serving_by(tmp_path) as served:
        for count in ("1", "2"):
            other = ["--queue", str(tmp_path / "other"), "--no-runqueue", "--workers", count]
            result = smtprecv("serve", "--listen", served.address, *other)
            assert (result.returncode, result.stderr) == (
                1,
                f"smtprecv serve: cannot listen on {served.address}: Address already in use\n",
            )
        served.terminate()


def test_hangup(tmp_path: Path) -> None:
    """SIGHUP ends nothing, and is one line in the log."""
    with serving_by(tmp_path) as served:
        served.signal(signal.SIGHUP)
        served.await_log("SIGHUP: nothing to do")
        served.terminate()
        assert served.log.count("SIGHUP") == 1


def test_terminal_gone(tmp_path: Path) -> None:
    """Workers that log to a terminal end with it."""
    controller, terminal = pty.openpty()
    serve = [*COMMAND, "serve", "--workers", "2", "--listen", "127.0.0.1:0", "--no-runqueue"]
    with (
        subprocess.Popen([*serve, "--queue", str(tmp_path / "queue")], stderr=terminal) as process,
        os.fdopen(controller, "rb", buffering=0) as screen,
    ):
        os.close(terminal)
        seen = b""
        while b"worker 2 is process" not in seen:
            seen += screen.read(1000)
        process.send_signal(signal.SIGHUP)
        while b"worker 2: SIGHUP: no new mail" not in seen:
            seen += screen.read(1000)
        assert process.wait(30) == 0


def test_the_first_worker_cannot_begin(tmp_path: Path) -> None:
    """What one worker cannot do at the start none can: the command ends with its status, and tries nothing again."""
    queue = tmp_path / "queue"
    queue.write_text("")
    where = ["--listen", "127.0.0.1:0", "--lmtp-listen", f"unix:{tmp_path}/s"]
    result = smtprecv("serve", *where, "--workers", "3", "--queue", queue, "--no-runqueue")
    said, meaning = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (1, "")
    assert said.startswith(f"smtprecv serve: the queue {queue} cannot be opened")
    assert meaning.endswith(" worker 1 ended with status 1 before it took mail")
    assert list(tmp_path.iterdir()) == [queue]


def test_a_bad_setting(tmp_path: Path) -> None:
    """A certificate that cannot be read is exit status 2 and one line, before anything is listened on."""
    (tmp_path / "cert.pem").write_text("nothing\n")
    files = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "cert.pem")]
    listen = ["--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path}/s", *files]
    result = smtprecv("serve", *listen, "--workers", "2", "--queue", tmp_path / "queue", "--no-runqueue")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["cert.pem"]


def test_end_before_the_beginning(tmp_path: Path) -> None:
    """A signal before the first worker takes mail ends the command in good order, too."""
    log = tmp_path / "log"
    serve = [*COMMAND, "serve", "--workers", "2", "--listen", f"unix:{tmp_path}/s", "--no-runqueue"]
    with log.open("wb") as said, subprocess.Popen([*serve, "--queue", str(tmp_path / "q")], stderr=said) as process:
        until(lambda: has_worker(process.pid), "the first worker")
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    assert not (tmp_path / "s").exists()
    assert "worker 2" not in log.read_text()


def test_all_kinds_of_listeners(tmp_path: Path, certificate: Certificate, authority: Authority) -> None:
    """Each worker serves each listener in its role, and the log, here as JSON, tells each one once."""
    options = ["--tls-listen", "127.0.0.1:0", "--lmtp-listen", f"unix:{tmp_path}/lmtp", *serving(certificate)]
    with serving_by(tmp_path, *options) as served:
        host, _, port = served.listener("TLS").rpartition(":")

        def tls(_: Served) -> Wire:
            plain = socket.create_connection((host, int(port)), timeout=30)
            return Wire(authority.context.wrap_socket(plain, server_hostname="mx.example.com"))

        def lmtp(_: Served) -> Wire:
            local = socket.socket(socket.AF_UNIX)
            local.settimeout(30)
            local.connect(served.listener("LMTP"))
            return Wire(local)

        for begin, hello in ((tls, "EHLO"), (lmtp, "LHLO")):
            with with_each(served, begin) as wires:
                for wire in wires:
                    wire.ask(f"{hello} client.example.com", 250)
                    wire.mail(BEN)
        served.await_files(4)
        served.terminate()
        assert served.log.count("listening on") == 3


def test_sockets_of_systemd(tmp_path: Path) -> None:
    """Sockets that systemd has passed are passed on to the workers; the log may be JSON."""
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as smtp:
        serve = [*COMMAND[1:], "serve", "--workers", "2", "--listen", "systemd:mx", "--log", "json"]
        where = ["--queue", str(tmp_path / "queue"), "--deliver", f"maildir:{tmp_path}/Maildir"]
        launch = [sys.executable, "-c", LAUNCHER, str(smtp.fileno()), "mx", *serve, *where]
        with log.open("wb") as said, subprocess.Popen(launch, pass_fds=[smtp.fileno()], stderr=said) as process:
            try:
                until(lambda: "worker 2 is process" in log.read_text(), "the workers")
                with Wire(socket.create_connection(smtp.getsockname(), timeout=30)) as wire:
                    wire.ask("EHLO client.example.com", 250)
                    wire.mail(BEN)
                until(lambda: len(list((tmp_path / "Maildir/new").glob("*"))) == 1, "the message")
                process.terminate()
                assert process.wait(30) == 0, log.read_text()
            finally:
                process.kill()
        # The socket is systemd's: clients wait in it for the next start.
        socket.create_connection(smtp.getsockname(), timeout=30).close()
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert {record.get("worker") for record in records} == {None, 1, 2}
