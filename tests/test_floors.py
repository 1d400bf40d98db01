"""The package's floors: who may import whom, and who may read the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import recbole_alt

PACKAGE = Path(recbole_alt.__file__).parent
CONTRACTS = PACKAGE.parent / "pyproject.toml"


def test_imports_run_downwards(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """See the contracts in ``pyproject.toml``."""
    monkeypatch.setattr("logging.config.dictConfig", lambda *_: None)  # it would switch all our loggers off
    status = lint_imports(config_filename=str(CONTRACTS), no_cache=True)
    assert status == 0, capsys.readouterr().out


def reads_command_line(source: str) -> bool:
    """True if ``source`` mentions ``sys.argv``, by attribute or by import."""
    tree = ast.walk(ast.parse(source))
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ("argv", "orig_argv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "sys" and "argv" in {name.name for name in node.names})
        for node in tree
    )


def test_only_the_command_line_reads_its_words() -> None:
    assert reads_command_line("import sys; sys.argv[1:]") and reads_command_line("from sys import argv")
    readers = {
        str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if reads_command_line(file.read_text("utf-8"))
    }
    assert readers == {"cli/dispatch.py"}
