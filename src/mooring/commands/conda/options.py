"""The options of the commands that install, as Dockerfiles give them."""

from __future__ import annotations

import argparse
from typing import NoReturn

from mooring.errors import ConfigurationError

# What is so here anyway, or has no meaning without conda's own solver and caches.
_NOTHING = (
    *("-y --yes", "-v --verbose", "-k --insecure", "-C --use-index-cache", "-S --satisfied-skip-solve"),
    *(
        "--freeze-installed --no-update-deps",
        "--strict-channel-priority",
        "--copy",
        "--no-pin",
        "--no-py-pin",
    ),
    *("--no-default-packages", "--show-channel-urls", "--no-show-channel-urls", "--clobber", "--update-deps"),
    *("-m --mkdir", "--no-channel-notices", "--no-lock", "--no-rc", "--update-specs", "--force"),
)
_NOTHING_WITH_VALUE = (
    "--solver",
    "--experimental-solver",
    "--repodata-fn",
    "--env-spec",
    "--environment-specifier",
    "--format",
)
_REFUSED = {
    "--clone": "conda list --explicit writes what another environment can be made of",
    "--download-only": "install in the stage that needs it",
    "--offline": "name a channel in a folder: -c file:///... --override-channels",
    "--use-local": "name the folder as a channel: -c file:///...",
    "--revision": "make the environment anew",
    "--platform": "build the image for that platform",
    "--subdir": "build the image for that platform",
}


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigurationError instead of printing the usage."""
        raise ConfigurationError(
            f"{self.prog.partition(' ')[2]}: {message}; this is mooring's for images, not conda itself "
            "(a miniforge base has that)"
        )


class _Refuse(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option: str | None = None
    ) -> NoReturn:
        parser.error(f"{option} is not done here: {_REFUSED[str(option)]}")


class _Nothing(argparse.Action):
    def __call__(self, *_: object) -> None:
        """Take it, and do nothing."""


def parser(command: str) -> Parser:
    """A parser with what every command takes."""
    made = Parser(prog=f"conda {command}", usage=argparse.SUPPRESS)
    made.add_argument("-n", "--name", default="")
    made.add_argument("-p", "--prefix", default="")
    made.add_argument("-q", "--quiet", action="store_true")
    made.add_argument("--json", action="store_true")
    return made


def installing(command: str) -> Parser:
    """The parser of install, create, update, remove, and those of `conda env`."""
    made = parser(command)
    made.add_argument("-c", "--channel", action="append", default=[])
    made.add_argument("-O", "--override-channels", action="store_true")
    made.add_argument("-d", "--dry-run", action="store_true")
    made.add_argument("-f", "--file", action="append", default=[])
    made.add_argument("--no-channel-priority", action="store_true")
    made.add_argument("--channel-priority", default="")
    for options in _NOTHING:
        made.add_argument(*options.split(), action=_Nothing, nargs=0)
    for option in _NOTHING_WITH_VALUE:
        made.add_argument(option, action=_Nothing)
    for option in _REFUSED:
        made.add_argument(option, action=_Refuse, nargs="?")
    return made


def packages(command: str) -> Parser:
    """The same, with specs."""
    made = installing(command)
    made.add_argument("--all", "--update-all", action="store_true")
    made.add_argument("--no-deps", action="store_true")
    made.add_argument("--only-deps", action="store_true")
    made.add_argument("--force-reinstall", action="store_true")
    made.add_argument("--dev", action=_Nothing, nargs=0)
    made.add_argument("specs", nargs="*", default=[])
    return made
