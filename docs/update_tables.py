"""Write the tables of README.md and docs/ anew from the result files they name.

A line ``<!-- table: docs/results/NAME.json -->`` is followed by the command that wrote the file and the
table made from it; everything up to ``<!-- end -->`` is replaced. ``python docs/update_tables.py``
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from recbole_alt.report import result_table

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(file: str) -> str:
    """The command that wrote ``file``, and its table."""
    record = json.loads((ROOT / file).read_text())
    command = " ".join(["python", *record["command"]])
    config, pretraining = record["configuration"], record["stages"].get("pretrain")
    layers = config["language_model_layers"]
    facts = [
        config["dataset"],
        " ".join(f"{name} ≥ {value} is a click" for name, value in (config["threshold"] or {}).items())
        or "label as given",
        f"split {config['eval_args']['split']} in order {config['eval_args']['order']}",
        f"{config['language_model']}, {f'first {layers}' if layers else 'all'} layers",
        f"prompt scope {config['prompt_scope']}",
        f"seed {config['seed']}",
    ]
    if pretraining:
        facts.append(
            f"alignment of {pretraining['steps']} steps: {pretraining['interactions_seen']:,} interactions, "
            f"{pretraining['texts_encoded']:,} texts"
        )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"\n```\n{command}\n```\n\n{result_table(record)}\n\n{'; '.join(facts)}. Made from `{file}`: {versions}.\n\n"


def update(text: str) -> str:
    """``text`` with every block replaced."""
    return BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        page.write_text(update(page.read_text()))
