"""The command line: `mooring run` and the other commands. The options derive from the settings table."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from mooring import __version__
from mooring.errors import ConfigurationError, MooringError
from mooring.settings.table import ROWS, Setting, default_text
from mooring.system import standard

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = {"reload"}
_LONGEST_PATH = 200


class _Command(click.Command):
    """A command with an option for each setting. The options are made only when this command is invoked."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not getattr(self, "filled", False):
            self.params.extend(_option(row) for row in ROWS.values() if row.name != "app")
            self.filled = True
        return super().get_params(ctx)


def _option(row: Setting) -> click.Option:
    help_text = f"{row.help}. [{', '.join(row.variables)}; default: {default_text(row)}]"
    if row.name in _FLAGS:
        return click.Option([f"{row.option}/--no-{row.name}"], default=None, help=help_text)
    hidden = row.secret  # refused on a command line, with a text that says what to do instead
    return click.Option([row.option], metavar="VALUE", help=help_text, hidden=hidden)


def _given(values: dict[str, Any]) -> dict[str, str]:
    """The settings given on the command line, as text."""
    return {name: str(value) for name, value in values.items() if value is not None and name in ROWS}


def _end(call: Callable[[], int]) -> None:
    """Run a command and exit. A MooringError becomes one line on stderr and its documented exit code."""
    try:
        code = call()
    except MooringError as error:
        from mooring.logs.log import last_words, show_traceback

        show_traceback(getattr(error, "traceback", ""))
        last_words(str(error))
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else flushing stdout at exit prints an error
        code = 1
    except OSError as error:
        if error.filename is None and error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        code = _refused(error)
    sys.exit(code)


def _refused(error: OSError) -> int:
    """Report a refused path (too long, not allowed) or a lack of descriptors in one line. Returns 2."""
    from mooring.logs.log import last_words

    path = str(error.filename or "")
    path = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
    hint = "; raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
    last_words(f"{path}{': ' if path else ''}{error.strerror}{hint}")
    return ConfigurationError.exit_code


def _folder() -> Path:
    """The working folder. Raises ConfigurationError if it has been removed."""
    from pathlib import Path  # imported here: 6 ms, and `--help` does not need it

    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigurationError(
            "the working folder does not exist any more; change to one that does"
        ) from None


def _serve(values: dict[str, Any]) -> None:
    """The work of `run`, `demo` and `dev`. Signals are queued before any slow import, until the end."""
    from mooring.system.signals import SignalQueue

    queue = SignalQueue()

    def start() -> int:
        from mooring.commands.run.start import run

        return run(_given(values), dict(os.environ), _folder(), queue)

    _end(start)


def _open_standard_descriptors() -> None:
    """Open /dev/null as 0, 1 and 2 if they are closed: else a listener gets that number, and log lines."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
        standard.closed.add(fd)
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mooring")
def main() -> None:
    """Run a Python web application in production: planned from its container, supervised, explained."""
    _open_standard_descriptors()


@main.command(cls=_Command)
@click.argument("app", required=False)
def run(**values: Any) -> None:
    """Serve APP (module:attribute) in production; with no APP, find it."""
    _serve(values)


@main.command(cls=_Command)
def demo(**values: Any) -> None:
    """Serve the built-in demo application."""
    values["app"] = "mooring.demo:app"
    _serve(values)


@main.command(cls=_Command)
@click.argument("app", required=False)
def dev(**values: Any) -> None:
    """Serve APP with one worker that restarts when a file changes."""
    values["reload"] = True
    _serve(values)


@main.command(cls=_Command)
@click.argument("app", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(as_json: bool, **values: Any) -> None:
    """Resolve everything, import APP, serve nothing, and say what `run` would do and why."""
    from mooring.commands.check import check as look

    _end(lambda: look(_given(values), dict(os.environ), _folder(), as_json=as_json))


@main.command()
@click.option("--markdown", is_flag=True, help="As the page docs/settings.md.")
def settings(markdown: bool) -> None:
    """Print the reference of all settings."""
    from mooring.commands.settings import as_markdown, as_text

    click.echo(as_markdown() if markdown else as_text(), nl=False)


def _instance_options(command: Callable[..., None]) -> Callable[..., None]:
    for row in (ROWS["name"], ROWS["runtime_dir"]):
        command = click.option(row.option, metavar="VALUE", help=f"{row.help}.")(command)
    return command


@main.command()
@_instance_options
@click.option("--json", "as_json", is_flag=True, help="Print /status as JSON.")
def status(as_json: bool, **values: Any) -> None:
    """Say what the running instance is doing."""
    from mooring.commands.control import show_status

    _end(lambda: show_status(_given(values), dict(os.environ), as_json=as_json))


@main.command()
@_instance_options
@click.option("--interval", type=float, default=1.0, help="Seconds between two looks, at least 0.2.")
@click.option("--once", is_flag=True, help="Print one plain snapshot, as where stdout is no terminal.")
def top(interval: float, once: bool, **values: Any) -> None:
    """Show the running instance live: its plan, its workers, their rates and latencies; q quits."""
    from mooring.commands.top.screen import top as show

    _end(lambda: show(_given(values), dict(os.environ), interval=interval, once=once))


@main.command()
@_instance_options
def reload(**values: Any) -> None:
    """Roll the running instance to a new generation, and wait for the outcome."""
    from mooring.commands.control import reload as roll

    _end(lambda: roll(_given(values), dict(os.environ)))


@main.command()
@_instance_options
@click.option("--if-started", is_flag=True, help="0 too where no mooring was started here: for images.")
def health(if_started: bool, **values: Any) -> None:
    """Exit with 0 where the running instance is ready to serve, else with 1 and the reason."""
    from mooring.commands.control import health as ask

    _end(lambda: ask(_given(values), dict(os.environ), if_started=if_started))


@main.command()
@click.argument("folder", required=False)
@click.option(
    "--from", "source", metavar="FILE", help="The file to install from, instead of the first in the order."
)
@click.option("--group", "groups", metavar="NAME", multiple=True, help="A further group of dependencies.")
@click.option("--extra", "extras", metavar="NAME", multiple=True, help="An extra (optional dependencies).")
@click.option("--prefix", metavar="PATH", help="The environment to install into. [default: mooring's own]")
@click.option(
    "--cache-dir", metavar="PATH", help="Keep downloads here. [default: ~/.cache where that is a mount]"
)
@click.option(
    "--any-version", is_flag=True, help="Only warn where mooring cannot work with what is installed."
)
@click.option("--dry-run", is_flag=True, help="Say what was found and what would be run, and run nothing.")
def install(
    folder: str | None, source: str | None, prefix: str | None, cache_dir: str | None, **more: Any
) -> None:
    """Install what the application's folder declares, for production: the step of a Dockerfile."""
    from mooring.commands.install.command import Asked
    from mooring.commands.install.command import install as work
    from mooring.commands.install.plans import Selection

    wanted = Selection(more.pop("groups"), more.pop("extras"))
    asked = Asked(folder or "", source or "", prefix or "", cache_dir or "", wanted, **more)
    _end(lambda: work(asked, dict(os.environ), _folder()))


if __name__ == "__main__":
    main()
