"""Write docs/keys.md from the table of keys: what each may be, its default, and who may change it.

``python docs/list_keys.py``
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from recbole_alt.config import ALTConfig
from recbole_alt.key_table import ALIGNMENT, DATA, EVALUATION, FINETUNING, KEYS, REPORTING, RUN, TOWERS
from recbole_alt.markdown import markdown_table

HEAD = """# Keys

Every key may be given in a YAML file, in a dictionary, or on the command line as `--key=value`; later ones in this
order override earlier ones. A key that is not listed here is refused, unless a CTR model of your own declares it (a
class attribute `keys`) or `--allow_unknown_keys=true` accepts it. `recbole-alt keys` prints this list, and `~` means
empty.

"By mode" lists the modes whose value `finetune: {mode: {key: value}}` may change. Keys marked "tunable" can be
searched by `recbole-alt tune`. For keys that name fields, see [Your own data](data.md#keys-that-name-fields).

This page is made by `python docs/list_keys.py`.
"""


GROUPS = {
    RUN: "What to run",
    DATA: "Data and prompts",
    TOWERS: "Models",
    ALIGNMENT: "Alignment",
    FINETUNING: "Finetuning and the plain model",
    EVALUATION: "Evaluation",
    REPORTING: "Reporting (changes neither weights nor scores)",
}

_YAML = re.compile(r"ALT_<backbone>|\{.*\}|\[[^\]]*[a-z\d][^\]]*\]|\[\]")


def key_row(name: str, default: Any) -> list[str]:
    """One line of the table."""
    key = KEYS[name]
    meaning = _sentence(key.about)
    if key.kind.says not in ("anything", "text"):
        meaning += f" Must be {_code(key.kind.says)}{' or empty' if key.empty else ''}."
    if key.stages:
        meaning += f" By mode: {', '.join(key.stages)}."
    if key.tunable:
        meaning += " Tunable."
    return [f"`{name}`", f"`{_yaml(default)}`", meaning]


def page() -> str:
    """The whole page; defaults are those of any dataset without a property file."""
    defaults = ALTConfig("ALT_DCN", "your-data").final_config_dict | {"data_path": "dataset/"}
    lines = [HEAD]
    for group, title in GROUPS.items():
        rows = [
            key_row(name, defaults.get(name))
            for name, key in KEYS.items()
            if key.belongs == group and not key.about.startswith("of RecBole's")
        ]
        lines.append(f"\n## {title}\n\n{markdown_table(('key', 'default', 'meaning'), rows, pad=False)}")
    return "\n".join(lines) + "\n"


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


def _sentence(text: str) -> str:
    upper = text if text.startswith(("ALT", "{")) else text[0].upper() + text[1:]
    return f"{_code(upper)}."


def _code(text: str) -> str:
    """YAML in ``text`` as code."""
    return _YAML.sub(lambda match: f"`{match[0]}`", text)


if __name__ == "__main__":
    (Path(__file__).parent / "keys.md").write_text(page(), encoding="utf-8")
