"""The images' `conda`: what Dockerfiles ask of it, on a channel in a folder, without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conda_channel import MINOR, PYTHON
from install_stage import ROOT, Stage

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("conda"))


@pytest.fixture(scope="module")
def channel(stage) -> Path:
    return stage.channel()


class Conda:
    """A root of its own, as layout.py makes it for an image."""

    def __init__(self, stage: Stage, channel: Path) -> None:
        self.root = stage.folder() / "conda"
        self.folder = stage.folder()
        self.channel = channel.as_uri()
        self.environ = {k: v for k, v in stage.environ.items() if not k.startswith("CONDA")}
        self.environ |= {"HOME": str(self.folder), "PATH": f"{self.root}/bin:/usr/bin:/bin"}
        # no proxy answers there: whatever is asked of a network fails at once
        self.environ |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        layout = [sys.executable, "-m", "mooring.commands.conda.layout", self.root, "--at", self.root]
        libraries = ["--library", ROOT / "src", "--library", stage.rattler()]
        subprocess.run([*layout, *libraries], check=True)

    def __call__(self, text: str, code: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `conda TEXT`; CH stands for the channel's options."""
        words = text.replace("CH", f"-c {self.channel} --override-channels").split(" ")
        return self._done([self.root / "bin/conda", *words], code, environ)

    def shell(self, text: str, shell: str = "bash", code: int = 0, **environ: str) -> str:
        """Run a shell's command, as a RUN line does."""
        return self._done([shell, "-c", text], code, environ).stdout

    def _done(self, command, code: int, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ | environ, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def names(self, where: str = "") -> dict[str, str]:
        """The conda packages of an environment, with their versions; without pip."""
        rows = json.loads(self(f"list --json --no-pip {where}".strip()).stdout)
        return {each["name"]: each["version"] for each in rows if each["name"] != "pip"}

    def imports(self, *names: str, prefix: Path | None = None) -> bool:
        """Whether the environment's Python finds these in itself."""
        prefix = prefix or self.root
        code = f"import {', '.join(names)}; " + "; ".join(f"print({name}.__file__)" for name in names)
        done = subprocess.run([prefix / "bin/python", "-c", code], capture_output=True, text=True)
        return done.returncode == 0 and all(each.startswith(str(prefix)) for each in done.stdout.split())


@pytest.fixture
def conda(stage, channel):
    return Conda(stage, channel)


def test_packages_of_python_files_go_beside_the_images_python(conda):
    """No other Python is fetched, base sees the image's packages, nothing is left of downloads."""
    assert conda.names() == {"python": PYTHON}
    out = conda("install -y -q CH purepkg=1.2").stdout
    assert out == ""
    assert conda.names() == {"python": PYTHON, "purepkg": "1.2"}
    assert conda.imports("purepkg")
    python = conda.root / "bin/python"
    assert subprocess.run([python, "-c", "import mooring, pip"]).returncode == 0
    assert not list((conda.root / "pkgs").iterdir())
    assert list(conda.root.glob("lib/python3.*/site-packages/__pycache__/purepkg.*.pyc"))
    assert "nothing had to change" in conda("install CH purepkg").stdout
    conda("update -y CH purepkg")
    assert conda.names()["purepkg"] == "1.3"


def test_compiled_packages_bring_condas_python(conda):
    """Of the image's minor version; the image's own packages stay importable."""
    out = conda("install --yes CH builtpkg").stdout
    assert f"- python {PYTHON} image_0" in out
    assert f"+ python {PYTHON} 0" in out
    assert conda.imports("builtpkg")
    assert conda.shell("pip") == "pip of the channel\n"
    assert subprocess.run([conda.root / "bin/python", "-c", "import mooring"]).returncode == 0
    conda("install CH purepkg")
    assert conda.names() == {"python": PYTHON, "builtpkg": "2.0", "purepkg": "1.3"}


def test_pip_is_there_already(conda):
    """As many an environment.yml has it; another version takes its place."""
    assert "nothing had to change" in conda("install CH pip python").stdout
    assert "site-packages/pip (python" in conda.shell("pip --version")
    conda("install CH pip=99")
    assert conda.shell("pip") == "pip of the channel\n"
    assert not list(conda.root.rglob("*clobber*"))


def test_base_keeps_its_python_and_says_why(conda):
    done = conda("install -y CH python=3.99", code=1)
    assert f"the constraint python {MINOR}.* cannot be fulfilled" in done.stderr
    assert conda.names() == {"python": PYTHON}
    conda("remove python", code=2)


def test_an_environment_with_a_name_or_a_path(conda):
    conda("create -y --name foo CH python=3.99 purepkg<1.3")
    prefix = conda.root / "envs/foo"
    assert conda.names("-n foo") == {"python": "3.99.0", "purepkg": "1.2"}
    conda(f"install -n foo -c {conda.channel} --override-channels devpkg", code=1)
    conda("install -n foo CH hooked")
    assert (prefix / "linked").read_text().strip() == str(prefix)
    conda(f"create -p {conda.folder}/bar -y")
    assert "nowhere is no conda environment; there are base, foo" in conda("list -n nowhere", code=2).stderr
    envs = conda("env list").stdout.splitlines()
    assert [line.split()[0] for line in envs[2:]] == ["base", "foo"]
    # what was asked for is held to later; a spec that is given anew replaces it
    conda("install -n foo CH python")
    assert conda.names("-n foo")["purepkg"] == "1.2"
    conda("install -n foo CH purepkg=1.3")
    assert conda.names("-n foo")["purepkg"] == "1.3"
    conda("remove -y -n foo purepkg")
    assert "purepkg" not in conda.names("-n foo")
    conda("remove -n foo --all -y")
    assert not prefix.exists()
    conda("env remove -n base", code=2)


def test_channels(conda):
    """In a spec, by `conda config`; the configured ones only where the named ones do not suffice."""
    conda(f"install -y {conda.channel}::purepkg")
    conda("config --set channel_priority strict --set always_yes yes --set ssl_verify false")
    conda(f"config --add channels {conda.channel} --remove channels conda-forge")
    assert conda("config --show channels").stdout == f"channels:\n  - {conda.channel}\n"
    conda("install -y hooked")
    done = conda("install -y nowhere", code=1)
    assert f"No candidates were found for nowhere *.\n(looked in {conda.channel})" in done.stderr
    (conda.folder / ".condarc").unlink()
    done = conda(f"install -c {conda.channel} nowhere", code=1)
    assert "No candidates were found for nowhere" in done.stderr
    assert "conda.anaconda.org" in done.stderr


def test_files_of_specs_and_of_archives(conda):
    (conda.folder / "list.txt").write_text("# two\npurepkg<1.3\n\nhooked  # and this\n")
    conda("create -n one CH --file list.txt python")
    assert conda.names("-n one")["purepkg"] == "1.2"
    explicit = conda("list -n one --explicit --md5").stdout
    assert "@EXPLICIT" in explicit
    (conda.folder / "explicit.txt").write_text(explicit)
    conda("create -n two --file explicit.txt")
    assert conda.names("-n two") == conda.names("-n one")
    (conda.folder / "export.txt").write_text(conda("list -n one --export").stdout)
    conda("create -n three CH --file export.txt")
    assert conda.names("-n three") == conda.names("-n one")
    archive = conda.channel + "/noarch/purepkg-1.3-0.tar.bz2"
    conda(f"install -n two {archive}")
    assert conda.names("-n two")["purepkg"] == "1.3"
    (conda.folder / "explicit.txt").write_text(f"@EXPLICIT\n{archive}#{'0' * 64}\n")
    assert "its hash is" in conda("install -n two --file explicit.txt", code=1).stderr
    assert "no such file" in conda("install --file nowhere.txt", code=2).stderr


ENVIRONMENT = """
name: shop
channels: [CHANNEL, nodefaults]
dependencies:
  - python={minor}.*
  - purepkg 1.2
  - hooked=1=0
  - pip:
      - -r pip.txt
variables:
  SHOP: "open all day"
"""


def wheel(folder: Path) -> Path:
    """A wheel, as small as can be."""
    path, info = folder / "wheeled-1.0-py3-none-any.whl", "wheeled-1.0.dist-info"
    files = {
        "wheeled.py": "VERSION = '1.0'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: wheeled\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}")
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return path


def test_environment_yml(conda):
    """Created, run, updated with and without --prune; into base too, by -n."""
    text = ENVIRONMENT.format(minor=MINOR).replace("CHANNEL", conda.channel)
    sub = conda.folder / "sub"
    sub.mkdir()
    (sub / "pip.txt").write_text(f"{wheel(conda.folder)}\n")
    (sub / "environment.yml").write_text(text)
    conda("env create -f sub/environment.yml")
    prefix = conda.root / "envs/shop"
    assert conda.names("-n shop") == {"python": PYTHON, "purepkg": "1.2", "hooked": "1"}
    assert conda.imports("purepkg", "wheeled", prefix=prefix)
    assert "wheeled " in conda("list -n shop").stdout
    run = "conda run --live-stream -n shop sh -c 'echo $SHOP,$HOOKED; exit 7'"
    assert conda.shell(run, code=7) == "open all day,yes, it is\n"
    fewer = text.replace("  - hooked=1=0\n", "").replace("purepkg 1.2", "purepkg")
    (sub / "environment.yml").write_text(fewer)
    conda("env update --file sub/environment.yml")
    assert "hooked" in conda.names("-n shop")
    conda("env update --file sub/environment.yml --prune")
    assert "hooked" not in conda.names("-n shop")
    conda("env update -n base -f sub/environment.yml")
    assert conda.imports("purepkg", "wheeled")
    exported = conda("env export -n base").stdout
    assert "  - purepkg=1.3=0\n" in exported
    assert "      - wheeled==1.0\n" in exported
    (sub / "environment.yml").write_text("dependencies: {a: b}\n")
    assert "it is no environment" in conda("env create -n x -f sub/environment.yml", code=2).stderr
    assert "no environment.yml here" in conda("env create", code=2).stderr


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("way", ['eval "$(conda shell.SH hook)"', ". ROOT/etc/profile.d/conda.sh"])
def test_activation(conda, shell, way):
    """In each way that Dockerfiles have, under `set -eu` too; nested, and undone."""
    conda("create -n foo CH hooked python=3.99")
    way = way.replace("ROOT", str(conda.root)).replace("SH", "posix" if shell == "sh" else shell)
    shown = 'echo "$CONDA_DEFAULT_ENV ${HOOKED:-none} $(command -v python)"'
    code = f"set -eu; {way}; conda activate foo; {shown}; conda deactivate; conda activate base; {shown}"
    lines = conda.shell(code, shell).splitlines()
    assert lines == [
        f"foo yes, it is {conda.root}/envs/foo/bin/python",
        f"base none {conda.root}/bin/python",
    ]
    failed = conda.shell(f"{way}; conda activate nowhere; echo $?; conda --version", shell)
    assert failed.splitlines()[0] == "2"


def test_activation_by_script_and_by_bashrc(conda):
    conda("create -n foo CH python=3.99")
    expected = f"{conda.root}/envs/foo/bin/python\n"
    assert conda.shell("source activate foo && command -v python") == expected
    nested = (
        "source activate && source activate foo && command -v python && source deactivate && command -v conda"
    )
    assert conda.shell(nested) == f"{expected}conda\n"
    conda("init bash")
    conda("init")
    assert (conda.folder / ".bashrc").read_text().count(">>> conda initialize >>>") == 1
    with (conda.folder / ".bashrc").open("a") as file:
        file.write("conda activate foo\n")
    assert conda.shell(". ~/.bashrc; command -v python; conda info --base") == expected + f"{conda.root}\n"
    assert conda.shell("command -v python", BASH_ENV=str(conda.folder / ".bashrc")) == expected
    # install takes the active environment
    conda.shell(f"source activate foo; conda install -y -c {conda.channel} --override-channels purepkg")
    assert "purepkg" in conda.names("-n foo")


def test_what_fails_leaves_the_environment_as_it_was(conda, stage):
    before = sorted(conda.root.rglob("*"))
    done = conda("install CH broken", code=1)
    assert "broken-1-0.tar.bz2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    shutil.rmtree(conda.root / "pkgs")
    assert sorted(conda.root.rglob("*")) == before
    conda("create -n foo CH purepkg")
    conda("create -n foo CH broken", code=1)
    assert "purepkg" in conda.names("-n foo")
    conda("create -n bar CH broken", code=1)
    assert not (conda.root / "envs/bar").exists()
    assert "Connect" in conda("install -c http://127.0.0.1:9/x --override-channels a", code=1).stderr


def test_a_user_who_cannot_write(conda):
    for folder in (conda.root, conda.root / "envs"):
        folder.chmod(0o555)
    if os.access(conda.root, os.W_OK):  # root is asked as somebody else
        command = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", conda.root / "bin/conda"]
        for folder in (conda.root, *conda.root.parents):
            if folder.owner() == "root" and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o055)
    else:
        command = [conda.root / "bin/conda"]
    done = subprocess.run([*command, "install", "purepkg"], env=conda.environ, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "cannot be written by this user; install as root" in done.stderr


def test_what_it_is_not(conda):
    """One line each; of conda itself nothing is changed, and that is no error."""
    done = conda("update -n base -c defaults conda -y")
    assert "the image's own stays" in done.stderr
    assert "stays" in conda("install -y -n base -c conda-forge mamba").stderr
    for words in (
        "search numpy",
        "frobnicate",
        "install --frob x",
        "install --clone y",
        "env config vars set a=b",
    ):
        done = conda(words, code=2)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "mooring's" in done.stderr
    assert conda("--version").stdout.startswith("conda 25.")
    conda("clean -afy")
    conda("clean -tipsy")
    conda("clean --all --force-pkgs-dirs --yes")
    assert json.loads(conda("info --json").stdout)["root_prefix"] == str(conda.root)
    assert conda.shell("mamba frob 2>&1", code=2).startswith("mamba: frob: this is mooring's mamba")
