"""``recbole-alt probe``, ``unseen`` and ``diagnose``: questions to a finished run."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from importlib import import_module

from recbole_alt.cli.command import Command
from recbole_alt.files import check_file, write_json


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", help="of a run: saved/ALT_DCN-ml-100k-...; probe and unseen take a .pth file in it, too"
    )
    parser.add_argument("--json", metavar="FILE", help="write what was found there, too")


def _work(options: Namespace, _: list[str]) -> None:
    question = import_module(f"recbole_alt.questions.{options.command}")
    if options.json:
        check_file("json", options.json)
    found = getattr(question, options.command)(options.folder)
    print(question.to_markdown(found))
    if options.json:
        write_json(options.json, [asdict(one) for one in found] if isinstance(found, list) else asdict(found))


PROBE = Command("see if texts hold anything that a trained CTR model does not know", _add_options, _work)
UNSEEN = Command("see what texts tell of users and items without any click", _add_options, _work)
DIAGNOSE = Command("see why text helps a run, or does not", _add_options, _work)
