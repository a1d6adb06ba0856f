r"""Chunks: their size says where they end, whatever their octets are (RFC 3030 section 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import Bdat, Config, EndOfChunk, EndOfMailData, MailData, Reply
from smtprecv.protocol._chunks import ChunkReader, skip
from smtprecv.protocol._refusal import BARE_CR_OR_LF, MESSAGE_TOO_BIG, TOO_MANY_HOPS

CONFIG = Config("mx.example.com", max_message_size=65536, max_hops=3)
BEHIND = b"\r\n.\r\nQUIT\r\n"

End = EndOfChunk | EndOfMailData


def read(chunks: Sequence[bytes], reads: Iterable[bytes], *, is_binary: bool = False) -> tuple[bytes, list[End], bytes]:
    """Read a message in chunks of these sizes: what was passed on, the end of each chunk, and what is left."""
    buffer = bytearray()
    reader = ChunkReader(buffer, CONFIG, is_binary=is_binary)
    left = [Bdat(len(chunk), is_last=index == len(chunks)) for index, chunk in enumerate(chunks, 1)]
    reader.begin(left.pop(0))
    message = b""
    ends: list[End] = []
    for piece in (b"", *reads):
        buffer += piece
        while not (ends and isinstance(ends[-1], EndOfMailData)) and (event := reader.next_event()) is not None:
            if isinstance(event, MailData):
                message += event.octets
                continue
            ends.append(event)
            if left:
                reader.begin(left.pop(0))
    return message, ends, bytes(buffer)


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """Cut a stream in every way that matters: whole, by octet, and in two and three anywhere near an octet."""
    yield [stream]
    yield [bytes([octet]) for octet in stream]
    for cut in range(1, len(stream)):
        yield [stream[:cut], stream[cut:]]
        yield [stream[:cut], stream[cut : cut + 1], stream[cut + 1 :]]


SOUND = (
    [b""],
    [b"", b"", b""],
    [b"a\r\n"],
    [b"no line end"],
    [b"a\r\n", b""],
    [b"a\r", b"\nb\r\n"],
    [b"a\r", b"", b"\n"],
    [b"\r", b"\n"],
    [b"\r\n.\r\n", b".\r\n..\r\n"],
    [b"MAIL FROM:<a@example.com>\r\n", b"BDAT 3 LAST\r\n"],
    [b"\x00\xff\x80", b"\x1a"],
)


@pytest.mark.parametrize("chunks", SOUND, ids=repr)
@pytest.mark.parametrize("is_binary", [False, True])
def test_a_sound_message(chunks: Sequence[bytes], is_binary: bool) -> None:  # noqa: FBT001 - parametrized
    """Chunks are one message, put together as they are; a line end may be divided between two of them."""
    message = b"".join(chunks)
    for reads in cuts(message + BEHIND):
        passed, ends, behind = read(chunks, reads, is_binary=is_binary)
        assert (message, BEHIND) == (passed, behind)
        assert [type(end) for end in ends] == [EndOfChunk] * (len(chunks) - 1) + [EndOfMailData]
        assert ends[-1] == EndOfMailData(len(message), None)
        assert all(end.defect is None for end in ends)


UNSOUND = (
    [b"a\n"],
    [b"a\r"],
    [b"\r"],
    [b"a\rb"],
    [b"\n", b"a\r\n"],
    [b"a\r", b"b\r\n"],
    [b"a\r", b"\r\n"],
    [b"a\r", b""],
    [b"a\r\n\r", b"", b"a"],
    [b"a\r\n", b"\n"],
)


@pytest.mark.parametrize("chunks", UNSOUND, ids=repr)
def test_a_bare_cr_or_lf_is_a_defect_but_in_binary(chunks: Sequence[bytes]) -> None:
    """A line ends in CR LF, in one chunk or in two; in BODY=BINARYMIME octets are octets (RFC 3030 section 3)."""
    message = b"".join(chunks)
    for reads in cuts(message + BEHIND):
        _, ends, behind = read(chunks, reads)
        assert (EndOfMailData(len(message), BARE_CR_OR_LF), BEHIND) == (ends[-1], behind)
        passed, ends, behind = read(chunks, reads, is_binary=True)
        assert (message, EndOfMailData(len(message), None), BEHIND) == (passed, ends[-1], behind)


def test_a_defect_is_told_at_the_end_of_its_chunk() -> None:
    """The client need not send the rest of a message that is refused already, and no octet of it comes out."""
    message, ends, _ = read([b"a\nb\r\n", b"c\r\n", b"d\r\n"], [b"a\nb\r\n", b"c\r\n", b"d\r\n"])
    assert message == b""
    assert [BARE_CR_OR_LF] * 3 == [end.defect for end in ends]


@pytest.mark.parametrize(("sizes", "defect"), [((65536,), None), ((65535, 1), None), ((65535, 2), MESSAGE_TOO_BIG)])
@pytest.mark.parametrize("step", [63, 4096, 70000])
@pytest.mark.parametrize("is_binary", [False, True])
def test_too_big(sizes: Sequence[int], defect: Reply | None, step: int, is_binary: bool) -> None:  # noqa: FBT001
    """The size is that of all chunks, and it is binary mail's limit too (RFC 1870 section 4)."""
    chunks = [b"x" * size for size in sizes]
    stream = b"".join(chunks)
    reads = [stream[start : start + step] for start in range(0, len(stream), step)]
    message, ends, _ = read(chunks, reads, is_binary=is_binary)
    assert EndOfMailData(len(stream), defect) == ends[-1]
    assert len(message) <= CONFIG.max_message_size


@pytest.mark.parametrize("is_binary", [False, True])
def test_hops(is_binary: bool) -> None:  # noqa: FBT001 - parametrized
    """Received fields are counted, wherever chunks and reads divide them (RFC 5321 section 6.3)."""
    header = b"Received: a\r\n" * 4 + b"\r\n"
    for cut in range(len(header)):
        chunks = [header[:cut], header[cut:]]
        for reads in ([header], chunks, [bytes([octet]) for octet in header]):
            assert TOO_MANY_HOPS == read(chunks, reads, is_binary=is_binary)[1][-1].defect
    sound = header.removeprefix(b"Received: a\r\n") + b"Received: b\r\n"
    assert read([sound], [sound], is_binary=is_binary)[1][-1].defect is None


def test_a_chunk_is_not_kept() -> None:
    """What comes out at once is what came in at once, however long the chunk is."""
    buffer = bytearray()
    reader = ChunkReader(buffer, CONFIG, is_binary=True)
    reader.begin(Bdat(10**19, is_last=True))
    for _ in range(8):
        buffer += b"x" * 1000 + b"\r"
        event = reader.next_event()
        assert isinstance(event, MailData)
        assert len(event.octets) <= 1002
        assert not buffer
        assert reader.next_event() is None


def test_skipping_takes_no_more_than_there_is() -> None:
    """Octets are taken from the front, at most as many as are asked for."""
    buffer = bytearray(b"abc")
    assert [b"", b"ab", b"c", b""] == [skip(buffer, size) for size in (0, 2, 10**20, 1)]


@given(
    st.lists(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"Received:"])).map(b"".join), min_size=1),
    st.integers(1, 5),
    st.booleans(),
)
def test_the_reads_do_not_matter(chunks: list[bytes], step: int, is_binary: bool) -> None:  # noqa: FBT001 - drawn
    """Any chunks in any reads have the same ends, and a sound message has the same octets."""
    stream = b"".join(chunks) + BEHIND
    whole = read(chunks, [stream], is_binary=is_binary)
    pieces = read(chunks, [stream[n : n + step] for n in range(0, len(stream), step)], is_binary=is_binary)
    assert whole[1:] == pieces[1:]
    assert whole[2] == BEHIND
    assert whole[0] == pieces[0] or whole[1][-1].defect is not None
