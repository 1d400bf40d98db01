"""The tutorial notebook: kept without outputs, of public names only; executed as a reader does, its cells hold."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT
from test_site import check_keys

from recbole_alt import api

NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = {cell["id"]: "".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"}
PROSE = "\n\n".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
FOR_ONNX, FOR_HTTP = ("onnx", "onnxscript", "onnxruntime"), ("fastapi", "httpx")

#: Executes a notebook as a kernel does; what each cell printed and showed, by its id, is the last line.
KERNEL = """
import ast, contextlib, io, json, sys
names, shown = {"__name__": "__main__"}, {}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] != "code":
        continue
    body = ast.parse("".join(cell["source"])).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), cell["id"], "exec"), names)
        value = eval(compile(last, cell["id"], "eval"), names) if last else None
        if value is not None:
            kinds = ("_repr_markdown_", "_repr_html_", "__repr__")
            print(getattr(value, next(kind for kind in kinds if hasattr(value, kind)))())
    shown[cell["id"]] = printed.getvalue()
print(json.dumps(shown))
"""


def absent(*packages: str) -> str:
    return " ".join(package for package in packages if importlib.util.find_spec(package) is None)


def test_it_is_a_notebook_of_short_cells_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}  # no version of a machine's Python
    for cell in CELLS:
        of_code = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | of_code and cell["cell_type"] != "raw"
        assert not cell.get("outputs") and cell.get("execution_count") is None and cell["metadata"] == {}, cell["id"]
        assert re.fullmatch(r"[\w-]{1,64}", cell["id"]) and 1 <= len(cell["source"]) <= 30
        assert all(line.endswith("\n") for line in cell["source"][:-1]) and cell["source"][-1].strip()
    assert len({cell["id"] for cell in CELLS}) == len(CELLS) and 15 <= len(CODE) <= 25


def test_its_prose_has_no_measured_figure_and_it_names_no_place_of_a_machine() -> None:
    assert not re.search(r"\d[.,]\d|\d ?%", PROSE)
    assert not re.search(r"(?<![\w.`])/(?:home|root|work|tmp|mnt|Users)\b|\b[A-Z]:\\", NOTEBOOK.read_text())
    for page in re.findall(r"`((?:docs|examples)/[\w./]+)`", PROSE):
        assert (ROOT / page).is_file(), page


@pytest.mark.parametrize("cell", CODE)
def test_only_public_names_are_used(cell: str) -> None:
    for node in ast.walk(ast.parse(CODE[cell])):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "recbole_alt":
            assert node.attr in api.__all__
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any(str(name).startswith("recbole_alt.") for name in modules)
        if modules == ["recbole_alt"] and isinstance(node, ast.ImportFrom):
            assert {alias.name for alias in node.names} <= set(api.__all__)


def test_its_keys_exist_and_may_have_these_values() -> None:
    (given,) = (
        node.value
        for node in ast.parse(CODE["plan"]).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "keys"
    )
    check_keys(ast.literal_eval(given))


def test_cells_whose_packages_are_missing_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*FOR_ONNX, *FOR_HTTP):
        monkeypatch.setitem(sys.modules, name, None)
    names = {"importlib": importlib}
    for cell in ("onnx", "serve"):
        exec(CODE[cell], names)
    told = [line.partition("pip install ")[2].split() for line in capsys.readouterr().out.splitlines()]
    assert told == [list(FOR_ONNX), list(FOR_HTTP)]


@pytest.mark.slow
def test_it_is_executed(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "examples", tmp_path / "temporary"
    temporary.mkdir()
    shutil.copytree(NOTEBOOK.parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = set(folder.iterdir())
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    surroundings = {"PYTHONPATH": path, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", KERNEL, NOTEBOOK.name]
    done = subprocess.run(words, cwd=folder, env={**os.environ, **surroundings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert set(folder.iterdir()) == before  # all files are in the temporary folder
    shown: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert shown["plan"].startswith("Plan of ALT_DCN on frames-") and "| joint " in shown["plan"]
    assert "title is " in shown["texts"] and "works as " in shown["texts"]
    assert all(f"\n| {mode} " in shown["run"] for mode in ("plain", "ctr", "joint"))
    assert "One seed proves nothing" in shown["run"] and "new_items" in shown["record"]
    assert shown["compare"].count("2020 2021 2022") == 2 and "vs_plain_auc_low" in shown["compare"]
    assert "{'film': {'rows': 1, 'values': 1}}" in shown["predict"]
    assert "1 item added" in shown["extend"] and "before" in shown["predict-again"]
    missing = absent(*FOR_ONNX)
    assert (f"pip install {missing}" if missing else "differs from PyTorch by") in shown["onnx"]
    missing_for_http = absent(*FOR_HTTP)
    assert f"pip install {missing_for_http}" in shown["serve"] if missing_for_http else True
    assert missing or missing_for_http or "'new': {}" in shown["serve"]
    assert shown["huggingface"].startswith("torch.Size([2, ")
