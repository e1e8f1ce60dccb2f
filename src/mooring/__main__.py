"""`python -m mooring` is the command `mooring`."""

import gc
import os
import signal
import sys
from types import FrameType

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_SERVING = ("run", "demo", "dev")


def main() -> None:
    """Run the command. A stop counts from the first moment on, imports included."""
    _end_at_stops()
    gc.disable()  # a twelfth of the imports' time; workers and supervisor turn it on when theirs are done
    from mooring.cli import main as command

    command(prog_name="mooring")


def _end_at_stops() -> None:
    """Handle the signals that stop, before anything that takes time.

    The kernel drops what process 1 has no handler for. What came before Python was there is pending where the
    signals were blocked, as the images have it: it is handled now.
    """
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def _end(number: int, _frame: FrameType | None) -> None:
    """End at once, since nothing has begun that would have to be ended: 0 where it was to serve."""
    if sys.argv[1:2] and sys.argv[1] in _SERVING:
        os._exit(0)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # process 1 does not end by a signal of its own


if __name__ == "__main__":
    main()
