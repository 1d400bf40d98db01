"""What a run says of its language model to those who load it: a model card, in the format of Hugging Face."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from recbole_alt.config import base_model_name
from recbole_alt.data.identity import IDENTITY_KEY
from recbole_alt.data.template import SLOT, SegmentTemplate
from recbole_alt.data.wording import read_template
from recbole_alt.files import read_json
from recbole_alt.markdown import markdown_table

#: The name of the file.
CARD = "README.md"

_TAG = "recbole_alt"

_MODES = ("plain", "ctr", "lm", "joint")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_POOLING = {
    "mean": 'mask = given["attention_mask"].unsqueeze(-1)\n    return (states * mask).sum(1) / mask.sum(1)',
    "cls": "return states[:, 0]",
    "last": 'return states[torch.arange(len(texts)), given["attention_mask"].sum(1) - 1]',
}
#: What alignment cost, by the names of ``result.json``.
_BUDGET = {
    "steps": "steps",
    "interactions_seen": "interactions read",
    "texts_encoded": "texts encoded",
    "seconds": "seconds",
}
#: Keys of the configuration that are told.
_TOLD = (
    "pretrain_learning_rate", "pretrain_language_learning_rate", "pretrain_weight_decay", "language_model_layers",
    "lora_rank", "pooling", "precision", "prompt_scope", "mask_ratio", "seed",
)  # fmt: skip
_CODE = '''```python
import torch
from transformers import AutoModel, AutoTokenizer

FOLDER = "."  # this folder, or its id on a hub
tokenizer = AutoTokenizer.from_pretrained(FOLDER, padding_side="right")
model = AutoModel.from_pretrained(FOLDER).eval()


@torch.no_grad()
def encode(texts):
    """Vectors [N, {hidden_size}] of N texts."""
    given = tokenizer(texts, padding=True, truncation=True, max_length={max_text_tokens}, return_tensors="pt")
    states = model(**given).last_hidden_state
    {pooling}


vectors = encode({texts!r})
```'''


def model_card(state: Mapping[str, Any], file: str | os.PathLike[str], *, trained: bool, hidden_size: int) -> str:
    """The card of the language model in the checkpoint ``state``, read from ``file`` in the folder of a run.

    It says what the run recorded, and nothing of what only its owner can know: licences are left to be filled in.

    Args:
        trained: True if the weights are others than those of the base model.
        hidden_size: H, numbers in a vector.
    """
    config = state["config"]
    result = Path(file).with_name("result.json")
    record = read_json(result) if result.is_file() else {}
    name, backbone = _name(config), base_model_name(config["model"])
    segments = _segments(config)
    code = _CODE.format(
        hidden_size=hidden_size,
        max_text_tokens=config["max_text_tokens"],
        pooling=_POOLING[config["pooling"]],
        texts=[one.text({name: f"<{name}>" for name in one.fields}) for one in segments[:2]] or ["..."],
    )
    done = "read, and was not trained" if not trained else "was trained"
    title = f"# {name}, aligned with {backbone} on {config['dataset']}"
    about = (
        f"A language model that {done} beside {backbone}, a model of clicks, by recbole_alt (alignment of language and "
        f"CTR models, arXiv 2310.19453). These are the weights of `{Path(file).name}`."
    )
    if not trained:
        about += " They are those of the base model, as the run kept the language model as it was (`frozen_layers`)."
    parts = [
        _front_matter(config),
        title,
        about,
        f"## Data\n\n{_data(state)}",
        f"## Texts\n\n{_texts(config, segments)}",
        f"## Training\n\n{_training(config, record)}",
        f"## Results\n\n{_results(record, Path(file).stem)}",
        f"## How to load it\n\n{code}",
        f"## What it is not good for\n\n{_limits(config, backbone)}",
    ]
    return "\n\n".join(parts) + "\n"


def check_card(file: Path) -> None:
    """Refuse to write a card where ``file`` is something else: it has no front matter, or one without our tag."""
    if not file.exists():
        return
    front = re.match(r"---\n(.*?\n)---\n", file.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL)
    if not front or f"- {_TAG}\n" not in front[1]:
        raise ValueError(f"{str(file)!r} is no model card of {_TAG}, and is kept: give another folder, or move it away")


def _name(config: Any) -> str:
    """The base model, without the folders of this machine."""
    given = str(config["language_model"])
    return given if _HUB_ID.fullmatch(given) and not Path(given).exists() else Path(given).name


def _front_matter(config: Any) -> str:
    known: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["recbole", _TAG, "click-through-rate-prediction", str(base_model_name(config["model"]))],
        "datasets": [config["dataset"]],
    }
    missing = ["# license: fill in, minding those of the base model and of the data"]
    if _HUB_ID.fullmatch(_name(config)):
        known["base_model"] = _name(config)
    else:
        missing.append(f"# base_model: fill in the hub id of {_name(config)!r}")
    return "\n".join(["---", yaml.safe_dump(known, sort_keys=False, allow_unicode=True).rstrip(), *missing, "---"])


def _data(state: Mapping[str, Any]) -> str:
    config, identity = state["config"], state.get(IDENTITY_KEY) or {}
    sizes = identity.get("vocabularies", {})
    lines = [f"- data set: {config['dataset']}"]
    for what, key in (("users", "USER_ID_FIELD"), ("items", "ITEM_ID_FIELD")):
        if config[key] in sizes:
            lines.append(f"- {what}: {sizes[config[key]]['size']:,}")
    for part, of in identity.get("parts", {}).items():
        lines.append(f"- {part} interactions: {of['rows']:,}")
    label = f"`{config['LABEL_FIELD']}`"
    for name, least in (config["threshold"] or {}).items():
        label = f"`{name}` of {least:g} or more"
    lines += [f"- a click: {label}", f"- split: `{config['eval_args']}`"]
    return "\n".join(lines)


def _segments(config: Any) -> Sequence[SegmentTemplate]:
    """How the texts are worded; empty where the data are gone."""
    with suppress(ValueError):
        return read_template(config).segments
    return []


def _texts(config: Any, segments: Sequence[SegmentTemplate]) -> str:
    said = f"At most {config['max_text_tokens']} tokens each; the longest values are cut at their ends."
    if not segments:
        return f"{said} Their wording is in the run's configuration (`template`)."
    rows = [[one.name, f"`{one.text(dict.fromkeys(one.fields, SLOT))}`"] for one in segments]
    return f"{markdown_table(['of', 'text'], rows)}\n\n{said}"


def _training(config: Any, record: Mapping[str, Any]) -> str:
    aligned = record.get("stages", {}).get("pretrain", {})
    lines = [f"- objectives: {', '.join(config['objectives'])}"]
    if config["objective_weights"]:
        lines.append(f"- weights of the objectives: `{config['objective_weights']}`")
    lines += [f"- alignment, {what}: {aligned[key]:,.0f}" for key, what in _BUDGET.items() if key in aligned]
    lines += [f"- `{key}`: {config[key]}" for key in _TOLD if config[key] is not None]
    return "\n".join(lines)


def _results(record: Mapping[str, Any], stage: str) -> str:
    """A table of what the run's models reached, and their differences from the plain CTR model."""
    results = record.get("results", {})
    modes = [mode for mode in _MODES if results.get(mode, {}).get("test")]
    if not modes:
        return "The run has left no result."
    names = list(dict.fromkeys(name for mode in modes for name in results[mode]["test"]))
    plain = results.get("plain", {}).get("test", {})
    header, rows = ["mode"], [[mode] for mode in modes]
    for name in names:
        header += [f"test {name}", "less plain"]
        for mode, row in zip(modes, rows, strict=True):
            reached, base = results[mode]["test"].get(name), plain.get(name)
            row.append("" if reached is None else f"{reached:.4f}")
            row.append("" if reached is None or base is None or mode == "plain" else f"{reached - base:+.4f}")
    of = "the start of `ctr`, `lm` and `joint`" if stage == "pretrain" else f"that of `{stage}`"
    said = (
        f"The model in this folder is {of}; `plain` is the CTR model without it. All are of one seed, and differences "
        "vary with it: a single run proves none."
    )
    return f"{markdown_table(header, rows, 'lr')}\n\n{said}"


def _limits(config: Any, backbone: str | None) -> str:
    return "\n".join(
        [
            f"- It recommends nothing by itself: clicks were predicted together with {backbone}, which is not in here.",
            "- It has seen texts of the wording above and of these fields; on others, nothing is known of it.",
            f"- It was made from the clicks in {config['dataset']}, and may hold what is skewed in them; nothing about "
            "people should be decided by it.",
            "- Texts that tell of persons may be told from its vectors: mind the data's terms before you publish it.",
        ]
    )
