# ruff: noqa: T201
"""`.condarc` files, as far as they matter here: read for channels and a few switches, written by `config`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mooring.commands.conda import options
from mooring.commands.conda.places import Places
from mooring.errors import ConfigurationError

FORGE = "conda-forge"
_USED = (
    *("channels", "default_channels", "channel_alias", "channel_priority"),
    *("auto_activate_base", "auto_activate", "changeps1"),
)
# Said in many Dockerfiles, and true here anyway, or without a meaning here.
_HARMLESS = (
    *("always_yes", "add_pip_as_python_dependency", "allow_softlinks", "auto_stack", "auto_update_conda"),
    *(
        "channel_notices",
        "default_threads",
        "envs_dirs",
        "experimental",
        "fetch_threads",
        "local_repodata_ttl",
    ),
    *(
        "notify_outdated_conda",
        "number_channel_notices",
        "pip_interop_enabled",
        "pkgs_dirs",
        "plugins",
        "quiet",
    ),
    *("remote_backoff_factor", "remote_connect_timeout_secs", "remote_max_retries"),
    *("remote_read_timeout_secs", "repodata_threads", "report_errors", "rollback_enabled", "safety_checks"),
    *("show_channel_urls", "solver", "unsatisfiable_hints", "use_only_tar_bz2", "verbosity"),
)
_INSTEAD = {
    "ssl_verify": "a certificate authority of your own belongs into the system's bundle, or SSL_CERT_FILE",
    "proxy_servers": "set HTTPS_PROXY",
    "create_default_packages": "name them in each conda create",
    "pinned_packages": "say the version in each conda install",
    "custom_channels": "name channels by their URLs",
}
_LISTS = ("channels", "default_channels")


class Configuration:
    """What all `.condarc` files say together."""

    def __init__(self, at: Places) -> None:
        self._at = at
        self.content: dict[str, Any] = {}
        for file in self.files():
            for key, value in _read(file).items():
                weaker = self.content.get(key)
                if key in _LISTS and isinstance(weaker, list) and isinstance(value, list):
                    self.content[key] = [*value, *(each for each in weaker if each not in value)]
                else:
                    self.content[key] = value

    def files(self) -> list[Path]:
        """The files that are there, the strongest last."""
        active = self._at.environ.get("CONDA_PREFIX")
        named = self._at.environ.get("CONDARC")
        usual = [Path("/etc/conda/.condarc"), self._at.root / ".condarc", self._at.root / "condarc"]
        usual += [self._at.home / ".conda/.condarc", self._at.home / ".condarc"]
        usual += [Path(active) / ".condarc"] if active and not self._at.is_root(Path(active)) else []
        usual += [Path(named)] if named else []
        return [each for each in dict.fromkeys(usual) if each.is_file()]

    @property
    def channels(self) -> list[str]:
        """The configured channels; conda-forge where there are none."""
        asked = self._at.environ.get("CONDA_CHANNELS")
        found = asked.split(",") if asked else self.content.get("channels") or [FORGE]
        return [str(each) for each in found]

    def sources(self, names: Iterable[str]) -> list[str]:
        """The addresses of channels; `defaults` stands for several."""
        found: list[str] = []
        for name in names:
            if name == "nodefaults":
                continue
            several = self.content.get("default_channels") if name == "defaults" else None
            found += [str(each) for each in several] if several else [name]
        alias = str(self.content.get("channel_alias") or "").rstrip("/")
        plain = (each for each in dict.fromkeys(found))
        return [f"{alias}/{each}" if alias and _is_name(each) else each for each in plain]

    @property
    def strict(self) -> bool:
        """Whether a package comes only from the first channel that has it."""
        return str(self.content.get("channel_priority", "strict")).lower() not in ("disabled", "false")

    @property
    def activates_base(self) -> bool:
        """Whether the hook activates base."""
        environ = self._at.environ.get("CONDA_AUTO_ACTIVATE_BASE", "true")
        said = self.content.get("auto_activate_base", self.content.get("auto_activate", environ))
        return str(said).lower() not in ("false", "0", "no")

    @property
    def changes_prompt(self) -> bool:
        """Whether activation changes the prompt."""
        return str(self.content.get("changeps1", True)).lower() not in ("false", "0", "no")


def _is_name(channel: str) -> bool:
    return channel != "defaults" and "://" not in channel and not channel.startswith(("/", ".", "~"))


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise ConfigurationError(f"{file}: it has no keys")
    return content or {}


def config(at: Places, configuration: Configuration, words: Sequence[str]) -> int:
    """`conda config`."""
    parser = options.Parser(prog="conda config")
    for option in ("add", "append", "prepend", "remove", "set"):
        parser.add_argument(f"--{option}", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"))
    parser.add_argument("--remove-key", action="append", default=[])
    parser.add_argument("--get", nargs="*")
    parser.add_argument("--show", nargs="*")
    parser.add_argument("--show-sources", action="store_true")
    parser.add_argument("--system", action="store_true")
    parser.add_argument("--env", action="store_true")
    parser.add_argument("--file", type=Path)
    for option in ("--json", "--force", "--quiet", "--verbose", "--validate"):
        parser.add_argument(option, action="store_true")
    given = parser.parse_args(words)
    if given.show_sources:
        for each in configuration.files():
            print(f"==> {each} <==\n{each.read_text()}")
        return 0
    wanted = given.show if given.show is not None else given.get
    if wanted is not None:
        _show(configuration, wanted, given.json)
        return 0
    folder = at.root if given.system else at.prefix() if given.env else at.home
    _change(given.file or folder / ".condarc", given)
    return 0


def _show(configuration: Configuration, keys: Sequence[str], as_json: bool) -> None:
    shown = {**configuration.content, "channels": configuration.channels}
    shown = {key: value for key, value in shown.items() if not keys or key in keys}
    if as_json:
        print(json.dumps(shown, indent=2))
        return
    for key, value in shown.items():
        print(
            f"{key}:\n" + "\n".join(f"  - {each}" for each in value)
            if isinstance(value, list)
            else f"{key}: {value}"
        )


def _change(file: Path, given: Any) -> None:
    import yaml

    content = _read(file) if file.is_file() else {}
    for key, value in given.set:
        _tell(key)
        content[key] = yaml.safe_load(value)
    for key, value in [*given.add, *given.prepend]:
        _tell(key)
        content[key] = [value, *(each for each in _list(content, key) if each != value)]
    for key, value in given.append:
        _tell(key)
        content[key] = [*(each for each in _list(content, key) if each != value), value]
    for key, value in given.remove:
        left = [each for each in _list(content, key) if each != value]
        if left or key in content:
            content[key] = left
        if not left:
            content.pop(key, None)
    for key in given.remove_key:
        content.pop(key, None)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False) if content else "")


def _list(content: dict[str, Any], key: str) -> list[Any]:
    """A key's list; the channels are conda-forge at first, so that an added one stands beside it."""
    found = content.get(key) or ([FORGE] if key == "channels" else [])
    return list(found) if isinstance(found, list) else [found]


def _tell(key: str) -> None:
    """Say so where a key is written that has no effect here."""
    plain = key.partition(".")[0]
    if plain in _USED or plain in _HARMLESS:
        return
    instead = f": {_INSTEAD[plain]}" if plain in _INSTEAD else ""
    print(f"conda: config {key} is written, but has no effect here{instead}", file=sys.stderr)
