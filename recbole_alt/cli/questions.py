"""``recbole-alt probe`` and ``recbole-alt diagnose``: questions to a finished run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from recbole_alt.cli.command import Command
from recbole_alt.files import check_file, write_json


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("folder", help="of a run: saved/ALT_DCN-ml-100k-...")
    parser.add_argument("--json", metavar="FILE", help="write what was found there, too")


def _ask(options: Namespace, question: Callable[[str], Any], to_markdown: Callable[[Any], str]) -> None:
    if options.json:
        check_file("json", options.json)
    found = question(options.folder)
    print(to_markdown(found))
    if options.json:
        write_json(options.json, [asdict(one) for one in found] if isinstance(found, list) else asdict(found))


def _probe(options: Namespace, _: list[str]) -> None:
    from recbole_alt.questions.probe import probe, to_markdown

    _ask(options, probe, to_markdown)


def _diagnose(options: Namespace, _: list[str]) -> None:
    from recbole_alt.questions.diagnose import diagnose, to_markdown

    _ask(options, diagnose, to_markdown)


PROBE = Command("see if texts hold anything that a trained CTR model does not know", _add_options, _probe)
DIAGNOSE = Command("see why text helps a run, or does not", _add_options, _diagnose)
