"""The errors that end a mooring command, each with its documented exit code.

Not for exceptions that the application raises while it serves requests.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_CONFIGURATION = 2
EXIT_APPLICATION = 3
EXIT_BIND = 4


class MooringError(Exception):
    """Base of all errors that end a command; its text is the one line the user reads."""

    exit_code: int = 1


class ConfigurationError(MooringError):
    """Bad configuration or usage; an engine that is missing or wrong for the interface (exit code 2)."""

    exit_code = EXIT_CONFIGURATION


class ApplicationError(MooringError):
    """The application failed to boot: not found, not importable, not callable, lifespan failed (exit 3)."""

    exit_code = EXIT_APPLICATION


class EngineEndedError(MooringError):
    """An engine has ended without being ordered to; its worker ends too, and is replaced."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class BindError(MooringError):
    """A listener could not be bound (exit code 4)."""

    exit_code = EXIT_BIND


class HookError(MooringError):
    """The pre-start hook failed; the exit code is the hook's own (1 to 255)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ToolError(MooringError):
    """A tool that `mooring install` runs failed; the exit code is the tool's own, 128 + N for signal N."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
