"""`python /start.py`, as the older image was started."""

import os
import signal
import sys

# Process 1 loses a signal that it does not handle: blocked, it waits until mooring does.
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
os.execvp("mooring", ["mooring", "run", *sys.argv[1:]])  # noqa: S606, S607
