"""The runner of the queue, and what a pass of it has done."""

from smtprecv.queue._report import Report
from smtprecv.queue._runner import run_once, run_queue

__all__ = ["Report", "run_once", "run_queue"]
