"""`python -m mooring` is the command `mooring`."""

import gc
import signal


def main() -> None:
    """Run the command. Ctrl-C ends it without a traceback from the first moment on, imports included."""
    gc.disable()  # a twelfth of the imports' time; workers and supervisor turn it on when theirs are done
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mooring.cli import main as command

    command(prog_name="mooring")


if __name__ == "__main__":
    main()
