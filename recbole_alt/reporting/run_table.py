"""What a run says at its end: a table of what its models reached, where, and at what cost, and what that means."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recbole.evaluator.register import metric_types, metrics_dict
from recbole.utils import EvaluatorType

from recbole_alt.arguments import parse_arguments
from recbole_alt.config import base_model_name
from recbole_alt.markdown import markdown_table

_MODES = ("plain", "ctr", "lm", "joint")
#: Slices that have a column, by their names in ``result.json``.
_SLICES = {"rare_items": "rare items", "new_items": "new items", "new_users": "new users"}
_MEANING = {"rare_items": " (1 to 9 training rows)", "new_items": " (none)", "new_users": " (none)"}
#: Arguments of a run that a comparison sets itself, or has no use for.
_OF_ONE_RUN = {"model", "dataset", "config_files", "seed", "resume", "result_file", "finetune_modes", "plain_baseline",
               "pretrained_checkpoint", "train_share", "show_progress", "show_plan"}  # fmt: skip


class _Run(NamedTuple):
    """What the models of a run reached on one ``part`` of the split; ``metric`` is the one that chose the epoch."""

    results: Mapping[str, Any]
    part: str
    metric: str

    def reached(self, mode: str, metric: str, part: str | None = None) -> float | None:
        return self.results.get(mode, {}).get(part or self.part, {}).get(metric)

    def gain(self, mode: str) -> float | None:
        """The metric, less the plain backbone's."""
        return _less(self.reached(mode, self.metric), self.reached("plain", self.metric))

    def slice(self, mode: str, name: str) -> Mapping[str, Any]:
        """``rows`` and ``auc``; empty where items are ranked, and in older records."""
        return self.results.get(mode, {}).get("slices", {}).get(self.part, {}).get(name, {})


def result_table(record: Mapping[str, Any]) -> str:
    """The run of ``record`` in Markdown: a table with a line for the plain backbone and each mode, and its reading.

    Without test rows, those of validation take their place. A column without any value is left out.
    """
    modes = [mode for mode in _MODES if mode in record["stages"]]
    results, scored = record["results"], _scored(record)
    chosen = str(record["configuration"].get("valid_metric")).lower()
    tested = any(results.get(mode, {}).get("test") for mode in modes)
    run = _Run(results, "test" if tested else "valid", chosen if chosen in scored else next(iter(scored)))
    table = _write_table(record, run, modes, scored)
    told, judged = _tell_rows_and_alignment(record, run, modes), _judge(record, run, modes, scored[run.metric])
    return "\n\n".join(filter(None, [table, told, judged]))


def _write_table(record: Mapping[str, Any], run: _Run, modes: Sequence[str], scored: Mapping[str, str]) -> str:
    title, model = scored[run.metric], base_model_name(record["configuration"]["model"])
    columns: dict[str, list[str]] = {str(model): list(modes)}
    columns[f"valid {title}"] = [_number(run.reached(mode, run.metric, "valid")) for mode in modes]
    columns[f"{run.part} {title}"] = [_number(run.reached(mode, run.metric)) for mode in modes]
    columns["Δ"] = [_number(run.gain(mode), "+") if mode != "plain" else "" for mode in modes]
    for name, other in scored.items():
        if name != run.metric:
            columns[other] = [_number(run.reached(mode, name)) for mode in modes]
    for name, of in _SLICES.items():
        columns[of] = [_number(run.slice(mode, name).get("auc")) for mode in modes]
    costs = [_costs(record["stages"][mode]) for mode in modes]
    columns |= dict(zip(("time", "texts", "MiB"), map(list, zip(*costs, strict=True)), strict=False))
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    return markdown_table(list(columns), list(zip(*columns.values(), strict=True)), "lr") if modes else ""


def _tell_rows_and_alignment(record: Mapping[str, Any], run: _Run, modes: Sequence[str]) -> str:
    """How many rows the columns are of, and what the modes start from."""
    told = []
    rows = {name: run.slice(modes[0], name).get("rows") for name in ("all", *_SLICES)} if modes else {}
    if rows.get("all"):
        parts = [f"{rows[name]:,} of {of}{_MEANING[name]}" for name, of in _SLICES.items() if rows[name] is not None]
        told.append(f"{run.part.capitalize()} rows: {'; '.join([format(rows['all'], ','), *parts])}.")
    if alignment := record["stages"].get("pretrain"):
        time, texts, memory = _costs(alignment)
        parts = [f"{alignment['steps']:,} steps", time, f"{texts} texts", *([f"{memory} MiB"] if memory else [])]
        told.append(f"Alignment, from which all but plain start: {', '.join(parts)}.")
    return "\n".join(told)


def _judge(record: Mapping[str, Any], run: _Run, modes: Sequence[str], title: str) -> str:
    """What the mode that validation prefers gained over the plain backbone, and what to do before believing it."""
    metric = run.metric.partition("@")[0]
    sign = -1 if metrics_dict[metric].smaller else 1
    valid = {mode: run.reached(mode, run.metric, "valid") for mode in modes if mode != "plain"}
    known = {mode: sign * value for mode, value in valid.items() if value is not None}
    best = max(known, key=known.__getitem__, default="plain")
    gain = run.gain(best)
    if best == "plain" or gain is None:
        return ""
    reached = {of: [run.slice(mode, name).get("auc") for mode in (best, "plain")] for name, of in _SLICES.items()}
    changes = [f"{of} {_number(_less(*pair), '+')}" for of, pair in reached.items() if None not in pair]
    better = "better" if sign * gain >= 0 else "worse"
    said = f"{best} is the best mode on validation; in {run.part} {title} it is {abs(gain):.4f} {better} than plain"
    said += f" ({', '.join(changes)})" if changes else ""
    return f"{said}.\nOne seed proves nothing; to compare over five: {_command(record, metric)}"


def _command(record: Mapping[str, Any], metric: str) -> str:
    """What compares over seeds, with the arguments of the run."""
    config, given = record["configuration"], parse_arguments(record.get("arguments") or ())
    files = given.get("config_files", "").split()
    if config.get("backbone") or len(files) > 1 or metric_types[metric] == EvaluatorType.RANKING:
        return "make the run with four other values of `seed`, too."
    words = [f"--out=campaigns/{config['dataset']}", f"--models={base_model_name(config['model'])}"]
    words += [f"--datasets={':'.join([config['dataset'], *files])}", "--seeds=5"]
    words += [f"--modes={','.join(mode for mode in _MODES[1:] if mode in record['stages'])}", "--params_file=none"]
    words += [f"--{name}={value}" for name, value in given.items() if name not in _OF_ONE_RUN]
    return f"`recbole-alt compare {shlex.join(words)}`"


def _scored(record: Mapping[str, Any]) -> dict[str, str]:
    """The metrics of ``record`` with titles, ``{"auc": "AUC"}``, in the order of ``metrics``, each at its depths."""
    titles = {name.lower(): name for name in record["configuration"]["metrics"]}
    titles = {name: titles[name] for name in sorted(titles, key=lambda name: name not in ("auc", "logloss"))}
    parts = [result[part] for result in record["results"].values() for part in ("valid", "test")]
    found = {name for scores in parts for name in scores}
    scored: dict[str, str] = {}
    for metric, title in titles.items():
        depths = sorted((name for name in found if name.split("@")[0] == metric), key=lambda name: (len(name), name))
        scored |= {name: title + name.removeprefix(metric) for name in depths}
    return scored or {"auc": "AUC", "logloss": "LogLoss"}


def _costs(stage: Mapping[str, Any]) -> tuple[str, str, str]:
    """Time, number of encoded texts and memory in MiB, as text."""
    seconds, memory = stage["seconds"], stage.get("peak_memory_mib")  # older records lack it
    size, unit = (60, "min") if seconds < 6000 else (3600, "h")
    time = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / size:.1f} {unit}"
    return time, f"{stage['texts_encoded']:,}", f"{memory:,.0f}" if memory else ""


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}"
