"""The client's side of SMTP and LMTP, sans-IO: what to say to the next hop, and what its answers mean.

A session is led by generators (``opening``, ``transaction``): they yield what is to be done, a ``Step``, are sent the
replies to it, and return what became of it. The one rule: a reply is all they ever see. Whoever does the I/O turns
time that ran out and a connection that was lost into 4yz replies, in the place of those that did not come.
"""

from smtprecv.relay._handover import REFUSALS, Handover, must_inspect
from smtprecv.relay._maildata import BareLineEnd, DotStuffer, bdat
from smtprecv.relay._nexthop import NextHop
from smtprecv.relay._opening import Terms, TlsMode, opening
from smtprecv.relay._replyreader import NOT_A_REPLY, ReplyReader
from smtprecv.relay._step import OUT_OF_STEP, Compute, Exchange, Handshake, Phase, Say, SendMail, SessionFailed, Step
from smtprecv.relay._transaction import transaction

__all__ = [
    "NOT_A_REPLY",
    "OUT_OF_STEP",
    "REFUSALS",
    "BareLineEnd",
    "Compute",
    "DotStuffer",
    "Exchange",
    "Handover",
    "Handshake",
    "NextHop",
    "Phase",
    "ReplyReader",
    "Say",
    "SendMail",
    "SessionFailed",
    "Step",
    "Terms",
    "TlsMode",
    "bdat",
    "must_inspect",
    "opening",
    "transaction",
]
