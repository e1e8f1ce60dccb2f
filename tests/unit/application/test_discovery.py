"""What discovery promises: what is named is taken as named, and every order looks where it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mooring
from mooring.application import discovery
from mooring.errors import ApplicationError, ConfigurationError
from mooring.settings import import_string, resolve
from mooring.settings.profiles import PROFILES

APP = "app = object()\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def write(root: Path, *files: str, text: str = APP) -> None:
    for name in files:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if not name.endswith("__init__.py") else "")


def find(root: Path, app: str | None = None, **environ: str) -> discovery.Target:
    root.mkdir(exist_ok=True)
    cli = {} if app is None else {"app": app}
    return discovery.find(resolve.resolve(cli, {"MOORING_APP_ROOT": str(root), **environ}, root))


# What is named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app.main:app", "app.main:app"),
        ("app.main", "app.main"),
        (" main:app ", "main:app"),
        ("main:api.app", "main:api.app"),
        ("main:create_app()", "main:create_app()"),
        ("main:create_app('a:b', debug=False)", "main:create_app('a:b', debug=False)"),
        ("main:create_app('x.py:y')", "main:create_app('x.py:y')"),
        ("my-app:app", "my-app:app"),
        ("main.py", "main"),
        ("./main.py", "main"),
        ("main.py:api", "main:api"),
        ("app/main.py", "app.main"),
        ("app/__init__.py:create_app()", "app:create_app()"),
    ],
)
def test_a_named_application_is_taken_as_named(root: Path, text: str, expected: str) -> None:
    write(root, "main.py", "app/main.py", "app/__init__.py")
    assert str(find(root, text)) == expected
    assert str(find(root, APP_MODULE=text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            ":app",
            "main:",
            "main app",
            "main:app:x",
            "main: app",
            "a..b",
            ".main",
            "a/b",
            "app/main:app",
            ":",
        ),
        *("main:create_app(", "main:create_app(x)", "main:f(*[1])", "main:f(**{})", "main:f()()", "main:1x"),
        *(".py", "a.b.py", "main:f(__import__('os'))", "main:app-x"),
    ],
)
def test_a_malformed_name_is_a_usage_error_that_names_value_and_expectation(root: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find(root, APP_MODULE=text)
    assert str(caught.value).startswith(f"bad settings: APP_MODULE={text!r}: expected ")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_malformed_names_are_called_as_the_user_gave_them(root: Path) -> None:
    with pytest.raises(ConfigurationError, match=r" APP='a b': expected MODULE:ATTRIBUTE"):
        find(root, "a b")
    with pytest.raises(ConfigurationError, match=r" MODULE_NAME='a:b': expected a dotted module name"):
        find(root, MODULE_NAME="a:b")
    with pytest.raises(ConfigurationError, match=r" MODULE_NAME='main.py': expected a dotted module name"):
        find(root, MODULE_NAME="main.py")
    with pytest.raises(ConfigurationError, match=r" VARIABLE_NAME='a b': expected a name in the module"):
        find(root, VARIABLE_NAME="a b")
    write(root, "mooring.toml", text='app = ":x"\n')
    with pytest.raises(ConfigurationError, match=r"/mooring\.toml: app=':x': expected"):
        find(root)


def test_module_and_variable_name(root: Path) -> None:
    write(root, "main.py", "custom/main.py")
    assert str(find(root, MODULE_NAME="custom.main", VARIABLE_NAME="api")) == "custom.main:api"
    assert find(root, MODULE_NAME="custom.main").origin == "env:MODULE_NAME"
    assert find(root, MODULE_NAME="custom.main").attribute is None
    assert str(find(root, MODULE_NAME="custom.main", APP_MODULE="main:app")) == "main:app"
    assert str(find(root, APP_MODULE="main", VARIABLE_NAME="api")) == "main:api"
    assert str(find(root, APP_MODULE="main:app", VARIABLE_NAME="api")) == "main:app"
    assert str(find(root, MODULE_NAME="main", VARIABLE_NAME="create_app()")) == "main:create_app()"


def test_a_stronger_origin_beats_app_module(root: Path) -> None:
    write(root, "mooring.toml", text='app = "main:app"\n')
    assert str(find(root)) == "main:app"
    assert str(find(root, MODULE_NAME="other")) == "other"
    assert str(find(root, VARIABLE_NAME="api")) == "main:api"
    assert str(find(root, "cli:app", MODULE_NAME="other", VARIABLE_NAME="api")) == "cli:app"


def test_origin_and_reason_say_who_named_it(root: Path) -> None:
    target = find(root, "main:app")
    assert (target.origin, target.reason) == ("cli", "named on the command line")
    target = find(root, APP_MODULE="main:app")
    assert (target.origin, target.reason) == ("env:APP_MODULE", "named by APP_MODULE")
    target = find(root, MODULE_NAME="main", VARIABLE_NAME="api")
    assert target.reason == "named by MODULE_NAME and VARIABLE_NAME"


def test_search_is_the_root_and_src_before_it_where_the_module_is_only_there(root: Path) -> None:
    write(root, "src/pkg/main.py", "main.py")
    assert find(root, "main:app").search == (root,)
    assert find(root, "pkg.main:app").search == (root / "src", root)
    assert find(root, "installed.elsewhere:app").search == (root,)
    write(root, "pkg/main.py")
    assert find(root, "pkg.main:app").search == (root,)


def test_a_file_is_imported_so_that_relative_and_sibling_imports_work(root: Path, tmp_path: Path) -> None:
    write(root, "pkg/__init__.py", "pkg/main.py", "plain/main.py", "src/x/main.py", "odd-name/main.py")
    assert find(root, "pkg/main.py").search == (root,)
    target = find(root, "plain/main.py")
    assert (target.module, target.search) == ("plain.main", (root, root / "plain"))
    target = find(root, "src/x/main.py")
    assert (target.module, target.search) == ("x.main", (root / "src", root, root / "src/x"))
    target = find(root, "odd-name/main.py")
    assert (target.module, target.search) == ("main", (root / "odd-name", root))
    write(tmp_path / "elsewhere", "p/__init__.py", "p/q.py")
    target = find(root, str(tmp_path / "elsewhere/p/q.py"))
    assert (target.module, target.search) == ("p.q", (tmp_path / "elsewhere", root))


def test_a_file_is_looked_for_in_the_root_and_then_in_the_working_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "here.py")
    assert find(root, "here.py").search == (tmp_path, root)
    with pytest.raises(ApplicationError) as caught:
        find(root, "gone.py:app")
    assert str(caught.value) == (
        f"no application found: there is no file {root}/gone.py or {tmp_path}/gone.py"
    )
    assert caught.value.exit_code == 3


# The profiles' orders


@pytest.mark.parametrize(
    ("profile", "files", "expected"),
    [
        ("hypercorn", ["app/main.py", "main.py"], "app.main"),
        ("hypercorn", ["main.py"], "main"),
        ("conda-starlette", ["app/main.py", "main.py"], "app.main"),
        ("meinheld-flask", ["app/main.py", "main.py"], "app.main"),
        ("inboard-base", ["app/main.py", "main.py"], "main"),
        ("inboard-fastapi", ["app/main.py"], "app.main"),
        ("uvicorn-gunicorn", ["app/main.py", "main.py"], "app.main"),
        ("uvicorn-gunicorn-fastapi", ["main.py"], "main"),
        ("poetry", ["app/main.py", "main.py"], "app.main"),
    ],
)
def test_a_profile_looks_exactly_where_its_image_did(
    root: Path, profile: str, files: list[str], expected: str
) -> None:
    write(root, *files, text="")
    target = find(root, MOORING_PROFILE=profile)
    assert (str(target), target.origin, target.search) == (expected, f"profile:{profile}", (root,))
    assert target.reason == f"found {expected.replace('.', '/')}.py in {root}"
    assert str(find(root, MOORING_PROFILE=profile, VARIABLE_NAME="api")) == f"{expected}:api"


@pytest.mark.parametrize(
    ("profile", "looked"),
    [("inboard-base", ["main.py", "app/main.py"]), ("poetry", ["app/main.py"])],
)
def test_a_profile_that_finds_nothing_lists_where_it_looked(
    root: Path, profile: str, looked: list[str]
) -> None:
    write(root, "wsgi.py", "src/main.py")
    with pytest.raises(ApplicationError) as caught:
        find(root, MOORING_PROFILE=profile)
    assert f": looked for {', '.join(str(root / file) for file in looked)}; name it" in str(caught.value)


# The wider order

ORDER = [
    *("app/main.py", "main.py", "app.py", "app/app.py", "asgi.py", "wsgi.py", "application.py", "server.py"),
    *("src/app/main.py", "src/main.py", "src/app.py", "src/app/app.py", "src/asgi.py", "src/wsgi.py"),
    *("src/application.py", "src/server.py"),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_wider_order(root: Path, first: int) -> None:
    write(root, *ORDER[first:])
    target = find(root)
    expected = ORDER[first]
    module = expected.removesuffix(".py").removeprefix("src/").replace("/", ".")
    search = (root / "src", root) if expected.startswith("src/") else (root,)
    assert (target.module, target.attribute, target.search) == (module, None, search)
    assert (target.origin, target.reason) == ("default", f"found {expected} in {root}")


@pytest.mark.parametrize(
    ("files", "expected", "below_src"),
    [
        (["pkg/main.py", "pkg/asgi.py", "pkg/wsgi.py"], "pkg.main", False),
        (["pkg/__init__.py", "pkg/asgi.py", "pkg/wsgi.py"], "pkg.asgi", False),
        (["pkg/__init__.py", "pkg/app.py", "tests/__init__.py", "docs/main.py"], "pkg.app", False),
        (["pkg/settings.py", "pkg/asgi.py", "pkg/wsgi.py"], "pkg.wsgi", False),
        (["src/pkg/main.py", "other/main.py"], "pkg.main", True),
        (["src/pkg/__init__.py", "src/pkg/wsgi.py"], "pkg.wsgi", True),
        (["src/__init__.py", "src/main.py"], "src.main", False),
        (["src/__init__.py", "src/pkg/app.py"], "src.pkg.app", False),
    ],
)
def test_packages(root: Path, files: list[str], expected: str, below_src: bool) -> None:
    write(root, *files)
    target = find(root)
    assert (target.module, target.search[0]) == (expected, root / "src" if below_src else root)


def test_a_package_may_hold_the_application_itself(root: Path) -> None:
    write(root, "flaskr/__init__.py", "flaskr/db.py")
    (root / "flaskr/__init__.py").write_text("def create_app(test_config=None): ...\n")
    assert str(find(root)) == "flaskr"


def test_two_packages_are_not_guessed_between(root: Path) -> None:
    write(root, "one/main.py", "two/main.py")
    with pytest.raises(ApplicationError, match="no application found"):
        find(root)


def test_forcing_wsgi_prefers_wsgi(root: Path) -> None:
    write(root, "asgi.py", "wsgi.py")
    assert str(find(root)) == "asgi"
    assert str(find(root, MOORING_INTERFACE="wsgi")) == "wsgi"


def test_an_interface_that_is_given_counts_as_a_forced_one(root: Path) -> None:
    write(root, "asgi.py", "wsgi.py")
    resolved = resolve.resolve({}, {"MOORING_APP_ROOT": str(root)}, root)
    assert [str(discovery.find(resolved, each)) for each in ("auto", "asgi", "wsgi")] == [
        "asgi",
        "asgi",
        "wsgi",
    ]


MANAGE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")\n'


@pytest.mark.parametrize(
    ("settings", "files", "text", "interface", "expected"),
    [
        ("mysite.settings", ["mysite/asgi.py", "mysite/wsgi.py"], "", "auto", "mysite.wsgi:application"),
        ("mysite.settings", ["mysite/asgi.py", "mysite/wsgi.py"], "", "asgi", "mysite.asgi:application"),
        ("mysite.settings", ["mysite/asgi.py"], "", "auto", "mysite.asgi:application"),
        ("conf.settings.prod", ["conf/asgi.py", "conf/wsgi.py"], "", "auto", "conf.wsgi:application"),
        ("settings", ["wsgi.py"], "", "auto", "wsgi:application"),
        (
            *("mysite.settings", ["mysite/asgi.py", "mysite/wsgi.py"]),
            *('ASGI_APPLICATION = "mysite.asgi.application"\n', "auto", "mysite.asgi:application"),
        ),
        (
            *("mysite.settings", ["mysite/routing.py", "mysite/wsgi.py"]),
            *('ASGI_APPLICATION = "mysite.routing.app"\n', "wsgi", "mysite.wsgi:application"),
        ),
        (
            *("mysite.settings", ["mysite/routing.py", "mysite/wsgi.py"]),
            *('ASGI_APPLICATION = "mysite.routing.channels"\n', "auto", "mysite.routing:channels"),
        ),
    ],
)
@pytest.mark.parametrize("base", [".", "src"])
def test_a_django_project(
    root: Path, settings: str, files: list[str], text: str, interface: str, expected: str, base: str
) -> None:
    write(root / base, *files)
    write(root / base, settings.replace(".", "/") + ".py", text=text)
    write(root / base, "manage.py", text=MANAGE.format(settings))
    target = find(root, MOORING_INTERFACE=interface)
    assert (str(target), target.search[0]) == (expected, root / base)


# What a file holds


@pytest.mark.parametrize(
    "text",
    [
        *("app = 1", "application: object = 1", "x, api = 1, 2", "def create_app(): ...", "class app: ..."),
        *("async def asgi(scope, receive, send): ...", "from x import app", "from x import y as wsgi"),
        *(
            "import x as application",
            "from x import *",
            "if 1:\n  app = 1",
            "try:\n  import x\nexcept E:\n  app = 1",
        ),
        *(
            "server = FastAPI()",
            "web = falcon.asgi.App()",
            "x: Any = Flask(__name__)",
            "def __getattr__(n): ...",
        ),
        *("def broken(:", "with a:\n  app = 1", "\0", "app = other = 1", "# -*- coding: nonsense -*-"),
    ],
)
def test_a_file_that_may_hold_an_application_is_found(root: Path, text: str) -> None:
    write(root, "main.py", text=text + "\n")
    write(root, "server.py")
    assert str(find(root)) == "main"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "def main():\n  app = 1",
            "import app.x",
            "x = 1",
            "from app import x",
            "app: object",
            "app.x = y()",
        ),
        *("class C:\n  app = 1", "print('app')", "x['app'] = 1", "router = APIRouter()"),
    ],
)
def test_a_file_that_clearly_holds_none_is_passed_over(root: Path, text: str) -> None:
    write(root, "main.py", text=text + "\n")
    write(root, "server.py")
    assert str(find(root)) == "server"


def test_the_only_file_is_found_whatever_it_holds(root: Path) -> None:
    write(root, "main.py", "app/__init__.py", text="")
    assert str(find(root)) == "main"


def test_the_variable_name_is_what_a_file_must_hold(root: Path) -> None:
    write(root, "main.py")
    write(root, "server.py", text="mine = 1\n")
    assert str(find(root, VARIABLE_NAME="mine.inner")) == "server:mine.inner"


def test_finding_nothing_lists_every_place_in_one_line(root: Path) -> None:
    write(root, "main.py", "server.py", text="")
    with pytest.raises(ApplicationError) as caught:
        find(root)
    line = str(caught.value)
    assert line.startswith(f"no application found in {root}: looked for app/main.py, main.py (binds none of ")
    for place in ORDER:
        assert f"{place}" in line
    assert line.endswith("; name it: mooring run MODULE:ATTRIBUTE, or APP_MODULE=MODULE:ATTRIBUTE")
    assert "\n" not in line
    assert caught.value.exit_code == 3


def test_a_root_that_is_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ApplicationError, match="gone, which is no folder: looked for"):
        discovery.find(resolve.resolve({}, {"MOORING_APP_ROOT": str(tmp_path / "gone")}, tmp_path))


def test_importing_discovery_imports_neither_the_loader_nor_an_engine() -> None:
    code = (
        "import sys, mooring.application.discovery\n"
        "print(*(name for name in sys.modules if name.startswith('mooring.')))"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(mooring.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert set(done.stdout.split()) == {
        *("mooring.application", "mooring.errors", "mooring.settings", "mooring.settings.import_string"),
        *(f"mooring.application.{name}" for name in ("discovery", "search_order", "source_scan")),
    }


def test_literal_arguments_are_parsed_and_nothing_is_evaluated() -> None:
    parsed = import_string.parse_attribute("a.create_app('prod', [1, {'x': None}], debug=False)")
    assert parsed.names == ("a", "create_app")
    assert parsed.call == (("prod", [1, {"x": None}]), {"debug": False})


# The demo's file


@pytest.mark.parametrize("profile", ["hypercorn", "inboard-fastapi", "meinheld-flask", "image"])
def test_the_demos_own_file_is_no_application(root: Path, profile: str) -> None:
    """It lies where the application may lie, and is known by its content; the profile says what is served."""
    write(root, "main.py", text=discovery.demo_file("json_app"))
    found = find(root, MOORING_PROFILE=profile)
    assert str(found) == f"mooring.demo:{PROFILES[profile].demo}"
    assert "holds no other Python file" in found.warning
    write(root, "app/main.py")
    assert str(find(root, MOORING_PROFILE=profile)).startswith("app.main")


def test_a_demo_that_was_changed_is_the_users(root: Path) -> None:
    write(root, "main.py", text=discovery.demo_file("app") + "# mine\n")
    found = find(root, MOORING_PROFILE="hypercorn")
    assert found.module == "main"


def test_no_demo_beside_another_file(root: Path) -> None:
    write(root, "main.py", text=discovery.demo_file("app"))
    write(root, "shop.py")
    with pytest.raises(ApplicationError, match="no application found"):
        find(root, MOORING_PROFILE="hypercorn")


def test_a_demo_that_is_named_is_served(root: Path) -> None:
    write(root, "main.py", text=discovery.demo_file("app"))
    assert str(find(root, MOORING_PROFILE="hypercorn", APP_MODULE="main:app")) == "main:app"
