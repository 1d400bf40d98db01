"""Write docs/keys.md from the table of keys: what each may be, its default, and who may change it.

``python docs/list_keys.py``
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_alt.config import ALTConfig
from recbole_alt.key_table import ALIGNMENT, DATA, EVALUATION, FINETUNING, KEYS, REPORTING, RUN, TOWERS
from recbole_alt.markdown import markdown_table

HEAD = """# Keys

Made by `python docs/list_keys.py` from `recbole_alt/key_table.py`. Every key may stand in a YAML file, in a dictionary,
or on the command line as `--key=value`, and later ones win in this order. A key that is not in this table is refused,
unless a CTR model of your own declares it (a class attribute `keys`) or `--allow_unknown_keys=true` passes it on.

"By stage" lists the stages whose value `finetune: {stage: {key: value}}` may change; "tunable" are keys in which trials
can be compared.
"""

COLUMNS = ("key", "must be", "what it does", "default", "by stage", "tunable")

GROUPS = {
    RUN: "What runs",
    DATA: "Data and prompts",
    TOWERS: "Both towers, and both stages",
    ALIGNMENT: "Stage 1: alignment",
    FINETUNING: "Stage 2: finetuning",
    EVALUATION: "Evaluation",
    REPORTING: "Reporting: changes neither weights nor scores",
}


def key_row(name: str, default: Any) -> list[str]:
    """One line of the table."""
    key = KEYS[name]
    may_be = key.kind.says + (" or empty" if key.empty else "") if key.kind.says != "anything" else "see docs/data.md"
    by_stage, tunable = ", ".join(key.stages), "yes" if key.tunable else ""
    return [f"`{name}`", may_be, key.about, f"`{_yaml(default)}`", by_stage, tunable]


def page() -> str:
    """The whole page; defaults are those of any dataset without a property file."""
    defaults = ALTConfig("ALT_DCN", "your-data").final_config_dict | {"data_path": "dataset/"}
    parts = [HEAD]
    for group, title in GROUPS.items():
        rows = [
            key_row(name, defaults.get(name))
            for name, key in KEYS.items()
            if key.belongs == group and not key.about.startswith("of RecBole's")
        ]
        parts.append(f"## {title}\n\n{markdown_table(COLUMNS, rows, pad=False)}\n")
    return "\n".join(parts)


def _yaml(value: Any) -> str:
    if value is None:
        return "~"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)


if __name__ == "__main__":
    (Path(__file__).parent / "keys.md").write_text(page(), encoding="utf-8")
