"""``result.html``: a run on one page, made from its record."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from recbole_alt.keys import KEYS
from recbole_alt.reporting.facts import data_facts, text_facts
from recbole_alt.reporting.page import make_page
from recbole_alt.reporting.run_plots import draw_run
from recbole_alt.reporting.run_table import SLICE_TITLES, RunResult
from recbole_alt.reporting.table import Table, number
from recbole_alt.values import show_time

_STAGES = {"pretrain": "alignment"}
_FACTS = {
    "seed": "Seed",
    "label_rule": "label",
    "split": "split",
    "encoder": "language model",
    "prompt_scope": "prompts",
}


def run_page(record: Mapping[str, Any]) -> str:
    """The page of a run from its ``record``, the content of ``result.json``; older ones lack some of its parts."""
    run, config = RunResult(record), record["configuration"]
    facts = {"seed": config["seed"]} | data_facts(config)
    if record["stages"].keys() - {"plain"}:
        facts |= text_facts(config)
    judged = run.judge()
    nothing = "Nothing to compare: this takes the plain backbone, a mode, and validation rows."
    return make_page(
        "run.html",
        title=f"{config['model']} on {facts.pop('dataset')}",
        facts=[f"{_FACTS[name]}: {said}" for name, said in facts.items()],
        verdict=list(filter(None, [judged or nothing, run.doubt(), judged and run.advise()])),
        results=run.table(),
        rows=run.tell_rows().splitlines(),
        slices=_slices(run),
        curves=draw_run(run),
        costs=_costs(record["stages"]),
        texts=record.get("example_texts", []),
        settings=_settings(config, record.get("defaults", {})),
        command=f"`{shlex.join(['recbole-alt', 'run', *record['arguments']])}`" if record.get("arguments") else "",
        versions=", ".join(map(" ".join, record["versions"].items())),
    )


def _slices(run: RunResult) -> Table:
    """A line for each slice that has rows: their number, and AUC and gain of every mode."""
    of = {name: found for name, found in (run.slices(run.modes[0]) if run.modes else {}).items() if found["rows"]}
    names = [name for name in SLICE_TITLES if name in of]
    columns = {f"{run.part} rows of": [SLICE_TITLES[name] for name in names]}
    columns["rows"] = [f"{of[name]['rows']:,}" for name in names]
    for mode in run.modes:
        columns[mode] = [number(run.slice_auc(mode, name)) for name in names]
        if mode != "plain":
            columns[f"Δ {mode}"] = [number(run.slice_gain(mode, name), "+") for name in names]
    return Table.of("AUC by slice", columns.items() if names else [])


def _costs(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was planned of each stage, where it was, beside what it took."""

    def cells(cost: str, write: Any) -> list[str]:
        return ["" if stage.get(cost) is None else write(stage[cost]) for stage in stages.values()]

    columns = {"stage": [_STAGES.get(name, name) for name in stages]}
    for name, title, write in (
        ("seconds", "time", show_time),
        ("texts_encoded", "texts encoded", "{:,}".format),
        ("peak_memory_mib", "MiB", "{:,.0f}".format),
    ):
        columns[f"planned {title}"] = cells(f"planned_{name}", write)
        columns[title] = cells(name, write)
    return Table.of("plan and cost", columns.items())


def _settings(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Table:
    """Key, value, default and meaning of what is not as by default."""
    keys = [key for key in defaults if key in config]
    values, others = ([_write(of[key]) for key in keys] for of in (config, defaults))
    about = [KEYS[key].about if key in KEYS else "" for key in keys]
    columns = {"key": keys, "value": values, "default": others, "what it does": about}
    return Table.of("settings", columns.items())


def _write(value: Any) -> str:
    if value is None:
        return "empty"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
