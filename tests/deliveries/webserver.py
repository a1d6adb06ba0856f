"""A real HTTP server of the tests' own, which answers as it is told and keeps what it was sent.

Its one rule: it takes a message only where it answers 2xx, and once for each idempotency key.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """What is answered: a status, fields and a text; or nothing, for the connection is reset or hangs."""

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


OK = Answer(200)
RESET = Answer(-1)
HANG = Answer(-2)


@dataclass
class Request:
    """What was sent."""

    path: str
    fields: Mapping[str, str]
    body: bytes


@dataclass
class Web:
    """A server: its port, the answers that are still to be given (then it is `OK`), and what it was sent."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    taken: dict[str, bytes] = field(default_factory=dict)
    connections: int = 0
    port: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str = "/hook?x=1", scheme: str = "http", host: str = "127.0.0.1") -> str:
        """Give a URL of the server."""
        return f"{scheme}://{host}:{self.port}{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def setup(self) -> None:
        super().setup()
        with self.web.lock:
            self.web.connections += 1

    def do_POST(self) -> None:
        web = self.web
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        if len(body) != size:
            self.close_connection = True
            return
        with web.lock:
            answer = web.answers.pop(0) if web.answers else OK
            web.requests.append(Request(self.path, {n.lower(): v for n, v in self.headers.items()}, body))
            if 200 <= answer.status < 300:
                web.taken.setdefault(self.headers["Idempotency-Key"], body)
        if answer == HANG:
            web.is_over.wait(60)
        if answer in (HANG, RESET):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.fields.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.fields:
            self.send_header("Content-Length", str(len(answer.text.encode())))
        self.end_headers()
        self.wfile.write(answer.text.encode())

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  # its name there
        """Keep quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""


@contextmanager
def web(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Serve on loopback while the block lasts."""
    state = Web([*answers])
    handler = type("Handler", (_Handler,), {"web": state})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        state.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()
