"""smtprecv."""
