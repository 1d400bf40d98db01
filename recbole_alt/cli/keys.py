"""``recbole-alt keys``: what each key of the configuration may be, and its default."""

import json
import textwrap
from argparse import ArgumentParser, Namespace

from recbole_alt.cli.command import Command
from recbole_alt.key_table import KEYS


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("part", nargs="?", default="", help="only keys with this in their names")
    parser.add_argument("--model", default="ALT_DCN", help="whose defaults to show (default %(default)s)")


def _work(options: Namespace, _: list[str]) -> None:
    from recbole_alt.config import ALTConfig

    names = [name for name in KEYS if options.part in name]
    if not names:
        raise ValueError(f"no key has {options.part!r} in its name: `recbole-alt keys` lists all")
    defaults = ALTConfig(options.model, "your-data").final_config_dict | {"data_path": "dataset/"}
    for name in names:
        key = KEYS[name]
        may_be = f"must be {key.kind.says}{' or empty' if key.empty else ''}"
        print(f"{name}: {json.dumps(defaults.get(name), ensure_ascii=False, default=str)}")
        print(textwrap.fill(f"{key.about}; {may_be}", 100, initial_indent="    ", subsequent_indent="    "))


COMMAND = Command("list the keys of the configuration: what each does, may be, and is by default", _add_options, _work)
