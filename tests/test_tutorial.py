"""The tutorial and the other pages' programs, executed as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest
from pages import DOCS, ROOT, Block, blocks
from recbole.data import create_dataset, data_preparation

from recbole_alt.config import ALTConfig


def shell(folder: Path, command: str) -> str:
    """Run ``command`` by bash in ``folder``, with this Python and this checkout's ``recbole-alt``; what it prints."""
    programs = folder / ".bin"
    programs.mkdir(exist_ok=True)
    for name, words in {"python": "", "recbole-alt": "-m recbole_alt"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(words, cwd=folder, env={**os.environ, **path}, text=True, stdout=PIPE, stderr=STDOUT)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
    return done.stdout


def follow(folder: Path, steps: list[Block]) -> dict[str, str]:
    """Save and run ``steps`` as a reader does; what each block of commands printed."""
    printed = {}
    for step in steps:
        if step.file:
            (folder / step.file).write_text(step.text, encoding="utf-8")
        elif step.language == "bash":
            printed[step.text] = shell(folder, step.text)
    return printed


def tutorial() -> list[Block]:
    """The blocks of the tutorial, but for the first, which installs."""
    return blocks(DOCS / "tutorial.md")[1:]


def test_data_of_the_tutorial_are_read(tmp_path: Path) -> None:
    steps = tutorial()
    configuration = next(number for number, step in enumerate(steps) if step.file == "shop.yaml")
    printed = follow(tmp_path, steps[: configuration + 1])
    assert any("user_id:token\titem_id:token\tlabel:float" in text for text in printed.values())
    config = ALTConfig("ALT_DCN", "shop", [str(tmp_path / "shop.yaml")], {"data_path": str(tmp_path / "dataset")})
    train, valid, test = data_preparation(config, create_dataset(config))
    assert [len(part._dataset) for part in (train, valid, test)] == [4800, 600, 600]
    assert not train._dataset.left_out
    user, item = train._dataset.prompts.texts(train._dataset[:1])[0]
    assert "a customer whose age is" in user and "a product whose title is" in item


@pytest.mark.slow
def test_the_tutorial_ends_with_a_served_model(tmp_path: Path) -> None:
    printed = follow(tmp_path, tutorial())
    (table,) = (text for command, text in printed.items() if "recbole-alt run" in command)
    assert all(name in table for name in ("| plain ", "| ctr ", "| joint "))
    (ranked,) = (text for command, text in printed.items() if "serve.py" in command)
    scores = [float(line.split()[-1]) for line in ranked.splitlines()[-4:]]
    assert scores == sorted(scores, reverse=True) and 0 < scores[-1] < scores[0] < 1
    (encoded,) = (text for command, text in printed.items() if "encode.py" in command)
    assert "torch.Size([2, " in encoded

    (folder,) = (tmp_path / "saved").glob("ALT_DCN-shop-*")
    follow(tmp_path, [block for block in blocks(DOCS / "faq.md") if block.file])
    for mode in ("plain", "ctr", "joint"):
        shell(tmp_path, f"python score_rows.py {folder}/{mode}.pth")
        assert len((tmp_path / "scores.csv").read_text().splitlines()) == 601
    reached = json.loads((folder / "result.json").read_text())["results"]["ctr"]["test"]["auc"]
    (evaluate,) = (block for block in blocks(DOCS / "export.md") if "model_file=" in block.text)
    shell(tmp_path, f"recbole-alt export {folder}/ctr.pth --recbole=dcn.pth")
    (tmp_path / "evaluate.py").write_text(f"import recbole_alt\n{evaluate.text}")
    assert f"'auc', {reached:.4f}"[:-1] in shell(tmp_path, "python evaluate.py")


@pytest.mark.slow
def test_the_program_of_the_first_pages_runs(tmp_path: Path) -> None:
    (program,), (same,) = (
        [block.text for block in blocks(page) if block.language == "python"]
        for page in (ROOT / "README.md", DOCS / "index.md")
    )
    assert program == same
    (tmp_path / "first.py").write_text(program)
    assert "\n| joint |" in shell(tmp_path, "python first.py")
