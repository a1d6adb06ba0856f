"""The Trio shell around the protocol core: sockets, tasks, limits, and where accepted mail goes."""

from smtprecv.server._direct import DirectIntake
from smtprecv.server._ident import Ident
from smtprecv.server._intake import Incoming, Intake, SpoolIntake
from smtprecv.server._limits import Limits, raise_file_limit
from smtprecv.server._listen import INHERITED, Listener, address_of, host_in, listen, parse_address
from smtprecv.server._networks import Network, Networks, parse_network
from smtprecv.server._peer import ClientLookup
from smtprecv.server._rates import Rate
from smtprecv.server._reverse_dns import ReverseDns
from smtprecv.server._role import Role
from smtprecv.server._server import Server
from smtprecv.server._tls import TlsFiles, TlsSource
from smtprecv.server._unix import UnixListener

__all__ = [
    "INHERITED",
    "ClientLookup",
    "DirectIntake",
    "Ident",
    "Incoming",
    "Intake",
    "Limits",
    "Listener",
    "Network",
    "Networks",
    "Rate",
    "ReverseDns",
    "Role",
    "Server",
    "SpoolIntake",
    "TlsFiles",
    "TlsSource",
    "UnixListener",
    "address_of",
    "host_in",
    "listen",
    "parse_address",
    "parse_network",
    "raise_file_limit",
]
