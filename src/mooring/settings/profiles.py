"""The profiles: named sets of an image's defaults, so that mooring can replace the older images. Data only.

The facts come from the older images' documentation and launchers, as collected in docs/profiles.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

PROCESS_MANAGERS = {"gunicorn": False, "uvicorn": True}
"""The values of PROCESS_MANAGER in the newer inboard images: whether each is one process."""

_APP_FIRST = ("app.main", "main")
_MAIN_FIRST = ("main", "app.main")

_GUNICORN_DUMP = ("loglevel", "workers", "bind", "workers_per_core", "host", "port")
_TWELVE_DUMP = (
    *("loglevel", "workers", "bind", "graceful_timeout", "timeout", "keepalive", "errorlog", "accesslog"),
    *("workers_per_core", "use_max_workers", "host", "port"),
)
_HYPERCORN_DUMP = (
    *("loglevel", "workers", "bind", "graceful_timeout", "worker_class", "keepalive", "errorlog"),
    *("accesslog", "workers_per_core", "use_max_workers", "host", "port"),
)
_POETRY_DUMP = (
    *("bind", "workers", "timeout", "graceful_timeout", "keepalive", "loglevel", "errorlog", "accesslog"),
    *("reload", "worker_tmp_dir"),
)


class Profile(NamedTuple):
    """One image's defaults and rules.

    - `modules`: an older image's search order for the application (empty: mooring's own, wider order)
    - `floor`: the minimum of the tuned number of workers
    - `conf_kind`, `conf_names`, `shipped_conf`: the server whose configuration files are looked for below the
      application root, their names, and the default that the image carries
    - `prestart_names`: the pre-start hooks that are looked for in the application root
    - `prestart_sourced`: whether a shell script's exports count
    - `prestart_exported`: variables that such a script need not export
    - `prestart_messages`: the older images (inboard, tiangolo) whose messages about the hook are printed
    - `access_format`: the form of an access log line (logs/access/line.py)
    - `dump`: the keys of the JSON object that the image's configuration printed at the start
    - `worker_line`: the worker class that gunicorn named in the image's log (empty: no such line)
    - `first_variable`: for a setting, the bare variable that wins over the others
    - `any_text_is_true`: variables of flags for which every text that is not empty means true
    - `ignored`: variables without effect
    - `demo`: the application in mooring.demo that is served as long as there is no Python file (empty: none)
    - `reloading`: the profile that is used instead with live reload
    - `one_process`: the profile that is used instead where PROCESS_MANAGER=uvicorn asks for one process
    - `ignored_with`: what makes the variables in `ignored` have no effect
    """

    name: str
    defaults: Mapping[str, Any] = MappingProxyType({})
    modules: tuple[str, ...] = ()
    floor: int = 1
    conf_kind: str = ""
    conf_names: tuple[str, ...] = ()
    shipped_conf: str = ""
    prestart_names: tuple[str, ...] = ("prestart.sh",)
    prestart_sourced: bool = True
    prestart_exported: tuple[str, ...] = ()
    prestart_messages: str = ""
    access_format: str = "common"
    dump: tuple[str, ...] = ()
    worker_line: str = ""
    first_variable: Mapping[str, str] = MappingProxyType({})
    any_text_is_true: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    demo: str = ""
    reloading: Profile | None = None
    one_process: Profile | None = None
    ignored_with: str = "live reload"

    @property
    def older(self) -> bool:
        """Whether the profile stands for an older image, whose users expect its messages."""
        return bool(self.modules)


_IMAGE: dict[str, Any] = {"app_root": "/app", "host": "0.0.0.0", "port": 80}

_GUNICORN_CONF = ("gunicorn_conf.py", "app/gunicorn_conf.py")


def _with_plain_reload(profile: Profile, access_log: str | None, access_format: str) -> Profile:
    """The profile with its variant for live reload.

    With live reload, most of the older images ran a server without its configuration file and without BIND.
    """
    ignored = {
        "gunicorn": ("BIND", "GUNICORN_CONF", "GUNICORN_CMD_ARGS", "WORKER_CLASS"),
        "hypercorn": ("BIND", "HYPERCORN_CONF"),
    }
    reloading = profile._replace(
        defaults={**profile.defaults, "access_log": access_log},
        conf_names=(),
        shipped_conf="",
        access_format=access_format,
        dump=(),
        worker_line="",
        ignored=ignored[profile.conf_kind],
    )
    return profile._replace(reloading=reloading)


def _inboard(name: str, demo: str) -> Profile:
    profile = Profile(
        name=name,
        defaults={
            **_IMAGE,
            "engine": "uvicorn",
            "timeout": 120.0,
            "graceful_timeout": 120.0,
            "keep_alive": 2.0,
        },
        modules=_MAIN_FIRST,
        floor=2,
        conf_kind="gunicorn",
        conf_names=_GUNICORN_CONF,
        shipped_conf="/gunicorn_conf.py",
        prestart_names=("prestart.py", "prestart.sh"),
        prestart_sourced=False,
        prestart_messages="inboard",
        access_format="uvicorn",
        dump=_TWELVE_DUMP,
        first_variable={"logging_conf": "LOGGING_CONF"},
        demo=demo,
    )
    # That image's PROCESS_MANAGER=uvicorn ran uvicorn without gunicorn, so without gunicorn's configuration.
    alone = profile._replace(
        defaults={**profile.defaults, "workers": 1},
        conf_names=(),
        shipped_conf="",
        ignored=("GUNICORN_CONF", "GUNICORN_CMD_ARGS", "WORKER_CLASS"),
        ignored_with="PROCESS_MANAGER=uvicorn",
    )
    return _with_plain_reload(profile, "-", "uvicorn-reload")._replace(one_process=alone)


def _uvicorn_gunicorn(name: str, demo: str) -> Profile:
    profile = Profile(
        name=name,
        defaults={
            **_IMAGE,
            "engine": "uvicorn",
            "timeout": 120.0,
            "graceful_timeout": 120.0,
            "keep_alive": 5.0,
        },
        modules=_APP_FIRST,
        floor=2,
        conf_kind="gunicorn",
        conf_names=_GUNICORN_CONF,
        shipped_conf="/gunicorn_conf.py",
        prestart_exported=("APP_MODULE", "GUNICORN_CONF", "WORKER_CLASS"),
        prestart_messages="tiangolo",
        access_format="uvicorn",
        dump=_TWELVE_DUMP,
        worker_line="uvicorn.workers.UvicornWorker",
        demo=demo,
    )
    return _with_plain_reload(profile, "-", "uvicorn-reload")


_CONDA = Profile(
    name="conda-starlette",
    defaults={
        **_IMAGE,
        "engine": "uvicorn",
        "graceful_timeout": 30.0,
        "keep_alive": 120.0,
        "access_log": "/dev/stderr",
    },
    modules=_APP_FIRST,
    floor=2,
    conf_kind="gunicorn",
    conf_names=_GUNICORN_CONF,
    shipped_conf="/gunicorn_conf.py",
    prestart_exported=("APP_MODULE", "GUNICORN_CONF", "RELOAD"),
    prestart_messages="tiangolo",
    access_format="uvicorn-0.9",
    dump=_GUNICORN_DUMP,
    any_text_is_true=("RELOAD",),
    demo="json_app",
)

_HYPERCORN = Profile(
    name="hypercorn",
    defaults={
        **_IMAGE,
        "engine": "hypercorn",
        "worker_class": "asyncio",
        "timeout": 0.0,
        "graceful_timeout": 120.0,
        "keep_alive": 2.0,
    },
    modules=_APP_FIRST,
    floor=2,
    conf_kind="hypercorn",
    conf_names=("hypercorn_conf.py", "app/hypercorn_conf.py"),
    shipped_conf="/hypercorn_conf.py",
    prestart_exported=("APP_MODULE", "HYPERCORN_CONF", "WORKER_CLASS"),
    prestart_messages="tiangolo",
    access_format="hypercorn",
    dump=_HYPERCORN_DUMP,
    demo="app",
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="none"),
        Profile(name="image", defaults={"host": "0.0.0.0", "port": 80}, demo="app"),
        Profile(name="image-nonroot", defaults={"host": "0.0.0.0", "port": 8080}, demo="app"),
        _with_plain_reload(_HYPERCORN, None, "hypercorn"),
        _with_plain_reload(_CONDA, "-", "uvicorn-reload"),
        _inboard("inboard-base", "app"),
        _inboard("inboard-starlette", "json_app"),
        _inboard("inboard-fastapi", "json_app"),
        _uvicorn_gunicorn("uvicorn-gunicorn", "app"),
        _uvicorn_gunicorn("uvicorn-gunicorn-starlette", "json_app"),
        _uvicorn_gunicorn("uvicorn-gunicorn-fastapi", "json_app"),
        Profile(
            name="poetry",
            defaults={
                **_IMAGE,
                "app_root": "/application_root",
                "engine": "uvicorn",
                "workers": 1,
                "graceful_timeout": 30.0,
                "keep_alive": 2.0,
                "worker_tmp_dir": "/dev/shm",  # noqa: S108
            },
            modules=("app.main",),
            conf_kind="gunicorn",
            shipped_conf="/application_server/gunicorn_configuration.py",
            prestart_names=(),
            access_format="uvicorn",
            dump=_POETRY_DUMP,
            first_variable={"workers": "WORKERS"},
        ),
        Profile(
            name="meinheld-flask",
            defaults={
                **_IMAGE,
                "workers_per_core": 2.0,
                "graceful_timeout": 30.0,
                "keep_alive": 120.0,
                "access_log": None,
            },
            modules=_APP_FIRST,
            conf_kind="gunicorn",
            conf_names=_GUNICORN_CONF,
            shipped_conf="/gunicorn_conf.py",
            prestart_exported=("APP_MODULE", "GUNICORN_CONF"),
            prestart_messages="tiangolo",
            access_format="combined",
            dump=_GUNICORN_DUMP,
            demo="wsgi_app",
        ),
    )
}
