"""The documentation: the site builds without warnings, its links resolve, and its examples are valid."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pages import PAGES, ROOT, Block, blocks

from recbole_alt import api
from recbole_alt.cli.dispatch import COMMANDS
from recbole_alt.keys import KEYS
from recbole_alt.study import Campaign
from recbole_alt.yaml_files import parse_yaml

#: What the checkout's scripts mean.
SCRIPTS = {"run_recbole_alt.py": "run", "run_hyper_alt.py": "tune", "run_compatibility.py": "compare"}
#: Programs that are not ours; their options are not checked.
OTHERS = {"pip", "source", "head", "tail", "python3.11", "torchrun", "curl", "tensorboard"}
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


class Page(HTMLParser):
    """The anchors, the links and what else is loaded of one page of the site."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag in ("link", "script", "img", "iframe"):
            self.loaded |= {given[name] for name in ("href", "src") if name in given}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` does; any warning is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def site_pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}


def test_links_and_anchors_of_the_site_resolve(site_pages: dict[Path, Page]) -> None:
    for file, page in site_pages.items():
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{file.name}: {link}"
            assert not parts.fragment or target not in site_pages or parts.fragment in site_pages[target].anchors, (
                f"{file.name}: {link}"
            )


def test_the_site_asks_no_other_server(site_pages: dict[Path, Page]) -> None:
    asked = {link for page in site_pages.values() for link in page.loaded if urlsplit(link).netloc}
    assert not asked


def test_every_public_name_is_on_the_site(site_pages: dict[Path, Page]) -> None:
    (reference,) = (page for file, page in site_pages.items() if file.name == "api.html")
    public = {f"recbole_alt.{name}" for name in api.__all__}
    assert public <= reference.anchors


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@by_name
def test_python_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, str(page), "exec")


@by_name
def test_yaml_has_known_keys_of_the_right_kind(page: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            given = parse_yaml(block.text)
            if "models" in given:
                check_keys(Campaign.from_mapping(given).keys)
            else:
                check_keys(given)


@by_name
def test_commands_exist_and_take_their_options(page: Path) -> None:
    saved = {block.file for block in blocks(page)}
    for block in blocks(page):
        if block.language in ("", "bash"):
            for words in block.commands():
                check_command(words, saved)


def check_command(words: list[str], saved: set[str]) -> None:
    """Fail unless the command exists and takes these options; ``saved`` are scripts of the page itself."""
    if words[0] in OTHERS or "=" in words[0]:  # NAME=value
        return
    program, *rest = words
    if program == "make":
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), rest[0]
    elif program == "recbole-alt":
        check_options(*rest)
    elif program == "python" and rest[0] in SCRIPTS:
        check_options(SCRIPTS[rest[0]], *rest[1:])
    elif program == "python" and rest[0] == "-m":
        module = importlib.util.find_spec(rest[1])
        if module and module.submodule_search_locations:
            module = importlib.util.find_spec(f"{rest[1]}.__main__")
        assert module and module.origin and '"__main__"' in Path(module.origin).read_text(), f"{rest[1]} does nothing"
    else:
        assert program == "python", f"{program} is not known here: add it to OTHERS"
        assert rest[0] in saved or (ROOT / rest[0]).is_file(), rest[0]


def check_options(name: str, *words: str) -> None:
    """Fail unless the subcommand ``name`` takes ``words``, keys of the configuration among them."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False, exit_on_error=False)
    command.add_options(parser)
    if words == ("--help",):
        return
    _, keys = parser.parse_known_args(list(words))
    assert command.takes_keys or not keys, f"{name}: {keys}"
    given = dict(word.removeprefix("--").split("=", 1) for word in keys if word.startswith("--"))
    assert len(given) == len(keys), f"{name}: {keys}"
    check_keys({key: parse_yaml(value) for key, value in given.items()})


def check_keys(given: dict[str, object]) -> None:
    """Fail unless every key exists and may have its value."""
    for key, value in given.items():
        assert key in KEYS, key
        KEYS[key].kind.refuse(key, value, empty=KEYS[key].empty)


@pytest.mark.parametrize(
    "text",
    [
        "recbole-alt run --epoch=3",
        "recbole-alt run --epochs=many",
        "recbole-alt tune --stages=ctr",
        "recbole-alt export RUN/ctr.pth --epochs=3",
        "recbole-alt serve",
        "python -m recbole_alt.result",
        "python no_such_script.py",
        "make coffee",
    ],
)
def test_a_wrong_command_is_found(text: str) -> None:
    (words,) = Block("bash", "", text).commands()
    with pytest.raises((AssertionError, KeyError, ValueError, argparse.ArgumentError)):
        check_command(words, set())
