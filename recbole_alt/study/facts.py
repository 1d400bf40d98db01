"""What the numbers of a table depend on: columns of each row of ``results.json``, and a paragraph below a table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from statistics import fmean

from recbole_alt.study.axes import COMPLETE
from recbole_alt.study.summary import Record, Row

_LISTS = ("commands", "versions")  # JSON lists: seeds of one cell may have come later, by another command
_NOTHING = {"language_model_layers": "all", "frozen_layers": "none"}


def facts_of(records: Sequence[Record]) -> Row:
    """Dataset, label rule, split, language model, commands and versions of one cell's runs, as columns of its row."""
    record = records[0]
    config, rows, evaluation = record["configuration"], record["rows"], record["configuration"]["eval_args"]
    rule = [f"{name} ≥ {value} is a click" for name, value in (config["threshold"] or {}).items()]
    rule += [f"only {name} within {value}" for name, value in (config["val_interval"] or {}).items()]
    layers, frozen = (nothing if config[key] is None else config[key] for key, nothing in _NOTHING.items())
    aligned = record["run"]["stage"] != "plain"
    return {
        "dataset": config["dataset"],
        "label_rule": "; ".join(rule) or "label as given",
        "split": f"{evaluation['split']} in order {evaluation['order']}, drawn with seed {config['split_seed']}",
        **{f"{part}_rows": rows[part] for part in ("train", "valid", "test")},
        "encoder": f"{config['language_model']}, layers: {layers}, of these not aligned: {frozen}" if aligned else None,
        "prompt_scope": config["prompt_scope"] if aligned else None,
        "tuning_seeds": record.get("tuning_seeds"),  # older campaigns lack it
        "commands": json.dumps(_distinct(shlex.join(["python", *run["command"]]) for run in records)),
        "versions": json.dumps(_distinct(", ".join(map(" ".join, run["versions"].items())) for run in records)),
    }


def tell(rows: Sequence[Row]) -> str:
    """The facts that ``rows`` of one dataset and share of it have in common, as a paragraph."""
    aligned = [row for row in rows if row["stage"] != "plain"]
    complete = [row for row in aligned if row["variant"] == COMPLETE] or aligned
    parts = "{train_rows:,} training, {valid_rows:,} validation and {test_rows:,} test rows"
    facts = [_each(rows, "dataset"), _each(rows, "label_rule"), f"split {_each(rows, 'split')}"]
    facts.append("/".join(_distinct(parts.format(**row) for row in rows)))
    if aligned:
        facts += [f"language model {_each(complete, 'encoder')}", f"prompt scope {_each(complete, 'prompt_scope')}"]
    if spent := [row for row in complete if row["alignment_steps"] is not None]:
        steps = "/".join(f"{steps:.0f}" for steps in sorted({row["alignment_steps"] for row in spent}))
        texts, seen = (fmean(row[f"alignment_{n}"] for row in spent) for n in ("texts_encoded", "interactions_seen"))
        facts.append(f"alignment of {steps} steps, on average {texts:,.0f} texts and {seen:,.0f} interactions")
    facts.append(f"seeds {', '.join(sorted({seed for row in rows for seed in row['seeds'].split()}, key=int))}")
    if tried := _counts(rows, "tuning_seeds"):
        facts.append(f"parameters chosen with {tried} of these")
    facts.append(f"GAUC leaves out {_counts(rows, 'gauc_left_out') or 'no'} users with one class")
    facts.append(
        "differences are to the plain backbone with the same seed; intervals by bootstrap over test rows, p by a "
        "two-sided paired t-test over seeds"
    )
    commands, versions = (
        _distinct(one for row in rows for one in json.loads(row[n])) for n in ("commands", "versions")
    )
    return f"{'; '.join(facts)}. {'; '.join(f'`{command}`' for command in commands)}. {' / '.join(versions)}."


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _each(rows: Sequence[Row], name: str) -> str:
    return " / ".join(_distinct(str(row[name]) for row in rows))


def _counts(rows: Sequence[Row], name: str) -> str:
    return "/".join(map(str, sorted({row[name] for row in rows} - {None, 0})))
