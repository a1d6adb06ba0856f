"""HAProxy in front of a server: the clients connect to it, and it connects to the server."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from tests.e2e import programs
from tests.e2e.peers.daemon import Daemon

_CONFIGURATION: Final = """\
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    log stdout format raw local0
    option tcplog
listen smtp
    bind fd@{listener}
    server smtprecv {to} source {source} {announce}
"""


class HAProxy:
    """A proxy in TCP mode that listens when the constructor returns.

    It connects to the server from `source`, an address of the loopback network: so the server can tell the proxy
    from the client. `announce` is how the proxy tells who the client is: by version 1 or 2 of its protocol, or not.
    """

    def __init__(
        self,
        folder: Path,
        to: str,
        announce: Literal["", "send-proxy", "send-proxy-v2"] = "",
        source: str = "127.0.0.2",
    ) -> None:
        """Start a proxy to a server (HOST:PORT); `folder` is for its configuration and log."""
        self.host: Final = "127.0.0.1"
        configuration = folder / "haproxy.cfg"
        with socket.create_server((self.host, 0), backlog=512) as listener:
            self.port: Final = int(listener.getsockname()[1])
            configuration.write_text(
                _CONFIGURATION.format(listener=listener.fileno(), to=to, source=source, announce=announce)
            )
            haproxy = [programs.find("haproxy"), "-db", "-f", str(configuration)]
            # Were the tests killed, the kernel would end it.
            guarded = ["setpriv", "--pdeathsig", "KILL", *haproxy]
            self._daemon: Final = Daemon(folder / "haproxy.log", *guarded, inherited=[listener])

    @property
    def address(self) -> str:
        """Where it listens, HOST:PORT."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote: a line for each connection that has ended."""
        return self._daemon.log

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the proxy."""
        self._daemon.end()
