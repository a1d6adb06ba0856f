"""When to try again. Pure: ``now`` is a parameter."""

from smtprecv.retry._policy import RetryPolicy

__all__ = ["RetryPolicy"]
