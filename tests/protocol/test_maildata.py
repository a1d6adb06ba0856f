r"""Mail data: only ``CRLF . CRLF`` ends it, wherever the reads are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import (
    Config,
    Connection,
    Data,
    EndOfMailData,
    EnhancedStatus,
    Event,
    Mail,
    MailData,
    Rejected,
    Reply,
    Signal,
)
from smtprecv.protocol._inspection import MAX_HEADER_SIZE
from smtprecv.protocol._maildata import DotReader
from smtprecv.protocol._refusal import BARE_CR_OR_LF, MESSAGE_TOO_BIG, TOO_MANY_HOPS

CONFIG = Config("mx.example.com", max_message_size=65536, max_hops=3)


def read(pieces: Iterable[bytes], config: Config = CONFIG) -> tuple[bytes, EndOfMailData | None, bytes]:
    """Read a message that comes in these pieces: what was passed on, its end, and what is left behind it."""
    buffer = bytearray()
    reader = DotReader(buffer, config)
    message = b""
    end: EndOfMailData | None = None
    for piece in pieces:
        buffer += piece
        while end is None and (event := reader.next_event()) is not None:
            match event:
                case MailData(octets):
                    message += octets
                case EndOfMailData():
                    end = event
        assert end or not buffer
    return message, end, bytes(buffer)


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """Cut a stream in every way that matters: whole, by octet, and in two and three anywhere near an octet."""
    yield [stream]
    yield [bytes([octet]) for octet in stream]
    for cut in range(1, len(stream)):
        yield [stream[:cut], stream[cut:]]
        yield [stream[:cut], stream[cut : cut + 1], stream[cut + 1 :]]


SOUND = {
    b".\r\n": b"",
    b"\r\n.\r\n": b"\r\n",
    b"a\r\n.\r\n": b"a\r\n",
    b"..\r\n.\r\n": b".\r\n",
    b".a\r\n.\r\n": b"a\r\n",
    b"a\r\n..\r\nb\r\n.\r\n": b"a\r\n.\r\nb\r\n",
    b"a\r\n...\r\n.\r\n": b"a\r\n..\r\n",
    b"a\r\n. \r\n.\r\n": b"a\r\n \r\n",
    b"a\r\n.\x00\r\n.\r\n": b"a\r\n\x00\r\n",
    b"a.\r\n.\r\n": b"a.\r\n",
    b"a\r\n\r\n\r\n.\r\n": b"a\r\n\r\n\r\n",
    b"\xff\x00\x80\r\n.\r\n": b"\xff\x00\x80\r\n",
}


@pytest.mark.parametrize(("stream", "message"), SOUND.items())
def test_a_sound_message(stream: bytes, message: bytes) -> None:
    """The dot before a dot is removed, and nothing else; what follows the end is left (RFC 5321 section 4.5.2)."""
    for behind in (b"", b"QUIT\r\n", b"\r\n.\r\n"):
        for pieces in cuts(stream + behind):
            assert (message, EndOfMailData(len(message), None), behind) == read(pieces)


# What some server somewhere has taken for the end of mail data.
ENDINGS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRCRLF.CRLF": b"\r\r\n.\r\r\n",
    "CRLFLF.CRLF": b"\r\n\n.\r\n",
    "LFCR.LFCR": b"\n\r.\n\r",
    "CRLF.NUL CRLF": b"\r\n.\x00\r\n\n",
    "CRLF NUL.CRLF": b"\r\n\x00.\r\n\n",
    "CRLF. CRLF": b"\r\n. \r\n\r",
    "CRLF .CRLF": b"\r\n .\r\n\r",
    "CRLF.TAB CRLF": b"\r\n.\t\r\n\n",
    "NUL": b"\n\x00.\r\n",
    "CR NUL": b"\r\x00\n.\r\x00\n",
}
INJECTED = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\n"
TEXT = b"Subject: hi\r\n\r\ntext"


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("at_start", [False, True])
def test_no_other_ending(ending: bytes, at_start: bool) -> None:  # noqa: FBT001 - parametrized
    """Octets that only look like an end make the message unsound, and it goes on to its true end.

    RFC 5321 section 2.3.8.
    """
    stream = (b"" if at_start else b"text") + ending + INJECTED + b".\r\n"
    _, expected, _ = read([stream + b"QUIT\r\n"])
    assert expected is not None
    assert expected.defect == BARE_CR_OR_LF
    for pieces in cuts(stream + b"QUIT\r\n"):
        assert (expected, b"QUIT\r\n") == read(pieces)[1:]


@pytest.mark.parametrize("ending", [b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n.\x00\r\n", b"\r\n.\t\r\n"])
def test_a_dot_with_company_is_text(ending: bytes) -> None:
    """A line with a dot and something else is a line of a sound message."""
    stream = b"text" + ending + INJECTED + b".\r\nQUIT\r\n"
    message = b"text" + ending.replace(b"\r\n.", b"\r\n") + INJECTED
    for pieces in cuts(stream):
        assert (message, EndOfMailData(len(message), None), b"QUIT\r\n") == read(pieces)


def begin(config: Config) -> Connection:
    """Give a connection that waits for the message."""
    connection = Connection(config)
    connection.receive_data(b"EHLO a.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
    for code in (220, 250, 250, 250, 354):
        connection.next_event()
        connection.send(Reply(code, ""))
    return connection


def dialogue(pieces: Iterable[bytes], config: Config = CONFIG) -> list[Event]:
    """Give all that a client does from its message on, but for the pieces of the message."""
    connection = begin(config)
    events: list[Event] = []
    for piece in filter(None, pieces):
        connection.receive_data(piece)
        while not isinstance(event := connection.next_event(), Signal):
            match event:
                case MailData():
                    continue
                case EndOfMailData(_, defect):
                    connection.send(defect or Reply(250, "", EnhancedStatus(2, 0, 0)))
                case Rejected(_, reply):
                    connection.send(reply)
                case Data():
                    connection.send(Reply(354, ""))
                case _:
                    connection.send(Reply(250, ""))
            events.append(event)
    return events


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("filler", [0, 1640], ids=["small", "too big"])
def test_smuggling(ending: bytes, filler: int) -> None:
    """One message, refused, and the envelope inside it is never seen: in the discarded rest of a big one neither."""
    stream = TEXT + ending + INJECTED + TEXT + b"\r\n.\r\n"
    head = (b"x" * 38 + b"\r\n") * filler
    whole = dialogue([head + stream])
    assert [EndOfMailData] == [type(event) for event in whole]
    assert all(isinstance(event, EndOfMailData) and event.defect == BARE_CR_OR_LF for event in whole)
    for cut in range(len(stream)):
        assert whole == dialogue([head, stream[:cut], stream[cut:]])


def test_the_true_end_is_an_end() -> None:
    """The injected envelope is seen behind a true end: the test above can fail."""
    events = dialogue([TEXT + b"\r\n.\r\n" + INJECTED])
    assert Mail in {type(event) for event in events}


LINE = b"x" * 62 + b"\r\n"


@pytest.mark.parametrize(("lines", "defect"), [(1024, None), (1025, MESSAGE_TOO_BIG)])
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 63, 64, 65, 4096, 70000])
def test_too_big(lines: int, defect: Reply | None, step: int) -> None:
    """A message of the maximum size is sound; no octet of a bigger one comes out after that.

    RFC 1870 section 4, RFC 5321 section 4.5.3.1.9.
    """
    stream = LINE * lines + b".\r\n"
    message, end, _ = read(stream[n : n + step] for n in range(0, len(stream), step))
    assert EndOfMailData(lines * 64, defect) == end
    assert len(message) <= CONFIG.max_message_size
    assert (defect is None) == (len(message) == lines * 64)


@pytest.mark.parametrize("step", [1000, 4096, 70000])
def test_a_line_may_be_long(step: int) -> None:
    """A line of the message may have 1000 octets, CRLF included, and more (RFC 5321 section 4.5.3.1.6)."""
    for size in (998, 65000):
        line = b"x" * size + b"\r\n"
        stream = line + b".\r\n"
        pieces = (stream[n : n + step] for n in range(0, len(stream), step))
        assert read(pieces) == (line, EndOfMailData(size + 2, None), b"")


def test_the_first_defect_that_counts() -> None:
    """A bare LF outweighs the size, and the size the hops, wherever they stand."""
    loop = b"Received: x\r\n" * 4
    assert read([loop + LINE * 1025 + b"\n\r\n.\r\n"])[1] == EndOfMailData(52 + 65600 + 3, BARE_CR_OR_LF)
    assert read([loop + LINE * 1025 + b".\r\n"])[1] == EndOfMailData(52 + 65600, MESSAGE_TOO_BIG)
    assert read([loop + b".\r\n"])[1] == EndOfMailData(52, TOO_MANY_HOPS)


@pytest.mark.parametrize(
    ("header", "is_loop"),
    [
        (b"Received: a\r\n" * 3, False),
        (b"Received: a\r\n" * 4, True),
        (b"RECEIVED: a\r\nreceived:b\r\nrEcEiVeD:\r\nReceived:\tc\r\n", True),
        (b"Subject: a\r\n" + b"Received: a\r\n" * 4, True),
        (b"Received: a\r\n" * 3 + b"\r\nReceived: a\r\n", False),
        (b"\r\n" + b"Received: a\r\n" * 4, False),
        (b"X-Received: a\r\n" * 4, False),
        (b"Subject: Received: a\r\n" * 4, False),
        (b" Received: a\r\n" * 4, False),
        (b"Received-SPF: pass\r\n" * 4, False),
        (b".Received: a\r\n" * 4, True),
    ],
)
def test_hops(header: bytes, is_loop: bool) -> None:  # noqa: FBT001 - parametrized
    """Received fields count at the start of a line, in any case, up to the first empty line (RFC 5321 section 6.3)."""
    for pieces in cuts(header + b"\r\ntext\r\nReceived: no\r\n.\r\n"):
        _, end, _ = read(pieces)
        assert end is not None
        assert (TOO_MANY_HOPS if is_loop else None) == end.defect


def test_a_header_without_end_is_counted_in_bounded_memory() -> None:
    """Of a header nothing is kept but the octets in which the name of a field may have begun."""
    buffer = bytearray()
    reader = DotReader(buffer, CONFIG)
    for _ in range(64):
        buffer += b"X-Filler: x\r\n" * 5000
        reader.next_event()
        kept = [getattr(reader, name) for name in DotReader.__slots__]
        assert sum(len(value) for value in kept if isinstance(value, bytes | bytearray)) < 32


def stuff(message: bytes) -> bytes:
    """Send a message as a client does: a dot before a dot at the start of a line, and the end."""
    return b"".join(b"." * line.startswith(b".") + line for line in message.splitlines(keepends=True)) + b".\r\n"


@given(st.lists(st.text(st.sampled_from("ab.\x00 é"), max_size=6), max_size=8), st.integers(1, 9))
def test_stuffing_round_trips(lines: list[str], step: int) -> None:
    """What a client stuffed comes out as it was, whatever the reads."""
    message = b"".join(line.encode() + b"\r\n" for line in lines)
    stream = stuff(message) + b"\r\n.\r\n"
    pieces = [stream[n : n + step] for n in range(0, len(stream), step)]
    assert (message, EndOfMailData(len(message), None), b"\r\n.\r\n") == read(pieces)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\xff"])), st.integers(1, 5))
def test_a_line_ends_with_cr_lf(tokens: list[bytes], step: int) -> None:
    """Whatever is a CR or an LF and not both, in that order, makes the message unsound (RFC 5321 section 2.3.8)."""
    message = b"".join(tokens) + b"\r\n"
    stream = message + b".\r\n"
    rest = message.replace(b"\r\n", b"a")
    defect = BARE_CR_OR_LF if b"\r" in rest or b"\n" in rest else None
    for pieces in ([stream], [stream[n : n + step] for n in range(0, len(stream), step)]):
        assert read(pieces)[1] == EndOfMailData(len(message), defect)


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"Received:"])), st.integers(1, 5))
def test_any_stream_has_one_end(tokens: list[bytes], step: int) -> None:
    """The end is where CRLF . CRLF first stands, the CRLF of DATA included, and the reads do not matter."""
    stream = b"".join(tokens) + b"\r\n.\r\n"
    end = (b"\r\n" + stream).index(b"\r\n.\r\n") + 3
    whole = read([stream])
    assert stream[end:] == whole[2]
    pieces = read(stream[n : n + step] for n in range(0, len(stream), step))
    assert whole[1:] == pieces[1:]
    assert whole[1] is not None
    assert whole[0] == pieces[0] or whole[1].defect is not None


def test_pieces_are_no_bigger_than_a_read() -> None:
    """What comes out at once is at most what came in at once, and the four octets that were held."""
    buffer = bytearray()
    reader = DotReader(buffer, CONFIG)
    for _ in range(8):
        buffer += b"x" * 1000 + b"\r\n."
        event = reader.next_event()
        assert isinstance(event, MailData)
        assert len(event.octets) <= 1003 + 4


@pytest.mark.parametrize(("before", "is_loop"), [(MAX_HEADER_SIZE - 100, True), (MAX_HEADER_SIZE, False)])
@pytest.mark.parametrize("size", [65536, 65537, 2 * MAX_HEADER_SIZE])
def test_the_scan_of_a_header_is_bounded(before: int, size: int, is_loop: bool) -> None:  # noqa: FBT001 - parametrized
    """Received fields count in the first mebibyte of a header, however it is cut, and cost nothing behind that."""
    stream = b"X: " + b"x" * before + b"\r\nReceived: a" * 4 + b"\r\n.\r\n"
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]

    _, end, _ = read(pieces, Config("mx.example.com", max_hops=3))

    assert end is not None
    assert end.defect == (TOO_MANY_HOPS if is_loop else None)
