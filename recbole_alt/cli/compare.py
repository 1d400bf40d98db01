"""``recbole-alt compare``: plain backbones against aligned ones."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_alt.arguments import parse_arguments
from recbole_alt.cli.command import Command


def _list(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def read(text: str) -> list[Any]:
        from recbole_alt.study.axis_values import split_list  # late, as all of the study: it is slow

        return [kind(part) for part in split_list(text)]

    read.__name__ = "list"
    return read


def _yaml(text: str) -> Any:
    from recbole_alt.yaml_files import parse_yaml

    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from None


def _seeds(text: str) -> int | list[int]:
    return int(text) if text.isdigit() else _list(int)(text)


def _add_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, help="folder of the campaign; one that exists goes on where it was")
    add("--campaign", help="YAML file with any of the following")
    add("--models", type=_list(str), help="RecBole's CTR models: DCN,DeepFM, or all")
    add("--datasets", type=_list(str), help="name, name:keys.yaml, either with @random or @time")
    add("--split", type=_list(str), help="random, time or both, for datasets that name none")
    add("--language_models", type=_list(str), help="default: the one the configuration names")
    add("--seeds", type=_seeds, help="how many (from 2020), or a list such as [2020] (default 5)")
    add("--modes", type=_list(str), help="ctr,lm,joint (default all)")
    add("--ablations", type=_list(str), help="see docs/campaigns.md")
    add("--variants", type=_yaml, help="YAML: {name: {key: value}, ...}")
    add("--budgets", type=_list(int), help="further pretrain_steps")
    add("--controls", type=_list(str), help="ALT, ablations, variants to make with others' texts, too, or all")
    add("--tuned_alone", type=_list(str), help="ablations to tune for themselves, or all")
    add("--train_shares", type=_list(float), help="of the training interactions (default 1.0)")
    add("--params_file", help="ranges tuned on validation, or none (default compatibility)")
    add("--tuning_trials", type=int, help="draws from these to try (default 10)")
    add("--tuning_seeds", type=int, help="seeds each is tried with; their mean chooses (default 2)")
    add("--widenings", type=int, help="times ranges are made wider where a value at an end is chosen (default 2)")
    add("--report", action="store_true", help="make tables and plots of what is there, and end")
    add("--join", type=_list(Path), help="make one report of these campaigns or reports, and end")


def _work(options: Namespace, keys: list[str]) -> None:
    from recbole_alt.kinds import TEXT
    from recbole_alt.reporting.report import join_reports, write_report
    from recbole_alt.study import Campaign, run_campaign
    from recbole_alt.study.axis_values import read_axes
    from recbole_alt.yaml_files import read_yaml

    TEXT.refuse("out", options.out)
    folder = Path(options.out)
    if options.join or options.report:
        for file in join_reports(options.join, folder) if options.join else write_report(folder):
            print(file)
    else:
        given = read_yaml(options.campaign, "campaign") if options.campaign else {}
        own = {"out", "campaign", "report", "join", "command", "words"}
        given |= {name: value for name, value in vars(options).items() if name not in own and value is not None}
        given = read_axes(given)
        given["keys"] = {**given.get("keys", {}), **parse_arguments(keys)}
        run_campaign(Campaign.from_mapping(given), folder, ["run_compatibility.py", *options.words])
    print((folder / "report" / "tables.md").read_text(encoding="utf-8"))


COMMAND = Command(
    "compare plain backbones with aligned ones, over datasets and seeds, with the statistics", _add_options, _work, True
)
