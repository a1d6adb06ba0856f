"""``python -m smtprecv``: the command, where no script is installed."""

import sys

from smtprecv.cli import main

sys.exit(main())
