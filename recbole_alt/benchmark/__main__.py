"""Compare plain and aligned: ``python -m recbole_alt.benchmark --models=DCN --datasets=ml-100k --out=DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_alt.cli.parser import Parser
from recbole_alt.yaml_files import parse_yaml


def _list(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def read(text: str) -> list[Any]:
        return [kind(part.strip()) for part in text.strip("[]").split(",") if part.strip()]

    read.__name__ = "list"
    return read


def _yaml(text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _seeds(text: str) -> int | list[int]:
    return int(text) if text.isdigit() and int(text) < 1000 else _list(int)(text)


def main() -> int:
    """Run; exit statuses as of :func:`recbole_alt.console.run`."""
    parser = Parser(
        description="Plain backbones against aligned ones, over datasets and seeds, with the statistics.",
        epilog="Any key of the YAML files, for every run: --key=value. docs/campaigns.md explains the rest.",
    )
    parser.add_argument("--out", required=True, help="folder of the campaign; one that exists goes on where it was")
    parser.add_argument("--campaign", help="YAML file with any of the following")
    parser.add_argument("--models", type=_list(str), help="RecBole's CTR models: DCN,DeepFM, or all")
    parser.add_argument("--datasets", type=_list(str), help="name, name:keys.yaml, either with @random or @time")
    parser.add_argument("--split", type=_list(str), help="random, time or both, for datasets that name none")
    parser.add_argument("--language_models", type=_list(str), help="default: the one the configuration names")
    parser.add_argument("--seeds", type=_seeds, help="how many (from 2020), or a list (default 3)")
    parser.add_argument("--modes", type=_list(str), help="ctr,lm,joint (default all)")
    parser.add_argument("--ablations", type=_list(str), help="names of recbole_alt.study.ABLATIONS")
    parser.add_argument("--variants", type=_yaml, help="YAML: {name: {key: value}, ...}")
    parser.add_argument("--budgets", type=_list(int), help="further pretrain_steps")
    parser.add_argument("--tuned_alone", type=_list(str), help="ablations to tune for themselves, or all")
    parser.add_argument("--train_shares", type=_list(float), help="of the training interactions (default 1.0)")
    parser.add_argument("--params_file", help="ranges tuned on validation, or none (default compatibility)")
    parser.add_argument("--tuning_trials", type=int, help="most combinations of these (default 6)")
    parser.add_argument("--tuning_seeds", type=int, help="seeds each is tried with; their mean chooses (default 1)")
    parser.add_argument("--report", action="store_true", help="make tables and plots of what is there, and end")
    parser.add_argument("--join", type=_list(Path), help="make one report of these campaigns or reports, and end")
    arguments, others = parser.parse_with_keys()
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]

    from recbole_alt import console
    from recbole_alt.benchmark.report import join_reports, write_report
    from recbole_alt.study import Campaign, run_campaign
    from recbole_alt.study.plan import read_campaign

    folder = Path(arguments.out)

    def work() -> None:
        if arguments.join or arguments.report:
            for file in join_reports(arguments.join, folder) if arguments.join else write_report(folder):
                print(file)
        else:
            given = read_campaign(arguments.campaign) if arguments.campaign else {}
            own = {"out", "campaign", "report", "join"}
            given |= {key: value for key, value in vars(arguments).items() if key not in own and value is not None}
            keys = dict(other.removeprefix("--").split("=", 1) for other in others)
            run_campaign(Campaign.from_mapping({**given, "keys": {**given.get("keys", {}), **keys}}), folder, command)
        print((folder / "report" / "tables.md").read_text(encoding="utf-8"))

    return console.run(work)


if __name__ == "__main__":
    sys.exit(main())
