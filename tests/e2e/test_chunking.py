"""Messages in chunks (RFC 3030), as Perl's Net::SMTP sends them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from tests.e2e import programs
from tests.e2e.messages import HEAD
from tests.e2e.served import Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PROGRAM: Final = """
use strict;
use warnings;
use Net::SMTP;

my ($host, $port, $to, @files) = @ARGV;
my $smtp = Net::SMTP->new($host, Port => $port, Hello => "client.example.com", Timeout => 30) or die "no connection";
$smtp->mail('anna@example.com', Bits => "binary") or die $smtp->message;
$smtp->to($to) or die $smtp->message;
my $last = pop @files;
for my $file (@files, $last) {
    open my $handle, "<:raw", $file or die "$file: $!";
    my $octets = do { local $/; <$handle> };
    my $sent = $file eq $last ? $smtp->bdatlast($octets) : $smtp->bdat($octets);
    $sent or die $smtp->message;
}
print $smtp->message;
$smtp->quit;
"""
CHUNKS: Final[list[bytes]] = [
    HEAD.replace(b"\n", b"\r\n"),
    b"bare \r and bare \n, dots:\r",
    b"\n.\r\n.\r\nMAIL FROM:<eve@example.com>\r\n",
    bytes(range(256)) * 4096,
    b"no line end",
]


def test_net_smtp(shared: Served, tmp_path: Path) -> None:
    """Chunks that are cut anywhere and hold any octet arrive as one message, to the octet, line ends included.

    RFC 3030 sections 2 and 3.
    """
    program = tmp_path / "send.pl"
    program.write_text(PROGRAM)
    files = [tmp_path / str(number) for number in range(len(CHUNKS))]
    for file, octets in zip(files, CHUNKS, strict=True):
        file.write_bytes(octets)
    where = [shared.host, str(shared.port), "chunks@example.org"]
    assert "queued as " in programs.run("perl", str(program), *where, *map(str, files))
    (stored,) = shared.await_files(1, "chunks/new")
    assert stored.read_bytes().endswith(b"".join(CHUNKS))
