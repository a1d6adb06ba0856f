"""The runner of the queue, the reports that it makes, and what a pass of it has done."""

from smtprecv.queue._bounces import Bounces
from smtprecv.queue._circuit import DestinationLimits
from smtprecv.queue._report import Report
from smtprecv.queue._runner import run_once, run_queue

__all__ = ["Bounces", "DestinationLimits", "Report", "run_once", "run_queue"]
