"""What a run says at its end: a table of what its models reached, where, and at what cost, and what that means."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from recbole.evaluator.register import metric_types, metrics_dict
from recbole.utils import EvaluatorType

from recbole_alt.arguments import parse_arguments
from recbole_alt.config import base_model_name
from recbole_alt.keys import STAGES
from recbole_alt.markdown import Markdown, markdown_table
from recbole_alt.reporting.table import Table, number
from recbole_alt.values import show_time

#: Slices that have a column, by their names in ``result.json``.
_SLICES = {"rare_items": "rare items", "new_items": "new items", "new_users": "new users"}
#: Slices by their names in ``result.json``, from all rows to those of the most frequent items.
SLICE_TITLES = {
    "all": "all rows", "new_users": "new users", "new_items": "new items", "rare_items": "items, 1–9 rows",
    "items_10-49": "items, 10–49", "items_50-199": "items, 50–199", "items_200-999": "items, 200–999",
    "items_1000+": "items, 1,000 or more",
}  # fmt: skip
_MEANING = {"rare_items": " (1 to 9 training rows)", "new_items": " (none)", "new_users": " (none)"}
#: Arguments of a run that a comparison sets itself, or has no use for.
_OF_ONE_RUN = {"model", "dataset", "config_files", "seed", "resume", "result_file", "finetune_modes", "plain_baseline",
               "pretrained_checkpoint", "train_share", "nproc", "show_progress", "show_plan"}  # fmt: skip


class RunResult:
    """A run by its ``record``, the content of ``result.json``, as tables, plots and sentences read it.

    Attributes:
        modes: of finetuning, ``plain`` first.
        part: ``test``, or ``valid`` where there are no test rows.
        metric, title: the metric that chose the epoch.
        sign: 1, or -1 where a smaller metric is better.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record, self.results = record, record["results"]
        self.model = str(base_model_name(record["configuration"]["model"]))
        self.modes = [mode for mode in STAGES if mode in record["stages"]]
        self.part = "test" if any(self.results.get(mode, {}).get("test") for mode in self.modes) else "valid"
        self._scored = _scored(record)
        chosen = str(record["configuration"].get("valid_metric")).lower()
        self.metric = chosen if chosen in self._scored else next(iter(self._scored))
        self.title = self._scored[self.metric]
        self.sign = -1 if metrics_dict[self.metric.partition("@")[0]].smaller else 1

    def reached(self, mode: str, metric: str, part: str | None = None) -> float | None:
        """What a mode reached in a metric, on the rows of :attr:`part` by default."""
        value: float | None = self.results.get(mode, {}).get(part or self.part, {}).get(metric)
        return value

    def gain(self, mode: str) -> float | None:
        """The metric, less the plain backbone's."""
        return _less(self.reached(mode, self.metric), self.reached("plain", self.metric))

    def slices(self, mode: str) -> Mapping[str, Mapping[str, Any]]:
        """``rows`` and ``auc`` of each slice; empty where items are ranked, and in older records."""
        found: Mapping[str, Mapping[str, Any]] = self.results.get(mode, {}).get("slices", {}).get(self.part, {})
        return found

    def slice_auc(self, mode: str, name: str) -> float | None:
        """The AUC of one slice."""
        return self.slices(mode).get(name, {}).get("auc")

    def slice_gain(self, mode: str, name: str) -> float | None:
        """The AUC of one slice, less the plain backbone's."""
        return None if mode == "plain" else _less(self.slice_auc(mode, name), self.slice_auc("plain", name))

    def table(self) -> Table:
        """A line for the plain backbone and each mode; a column without any value is left out."""
        columns: dict[str, Sequence[str]] = {self.model: self.modes}
        columns[f"valid {self.title}"] = [number(self.reached(mode, self.metric, "valid")) for mode in self.modes]
        columns[f"{self.part} {self.title}"] = [number(self.reached(mode, self.metric)) for mode in self.modes]
        columns["Δ"] = [number(self.gain(mode), "+") if mode != "plain" else "" for mode in self.modes]
        for name, other in self._scored.items():
            if name != self.metric:
                columns[other] = [number(self.reached(mode, name)) for mode in self.modes]
        for name, of in _SLICES.items():
            columns[of] = [number(self.slice_auc(mode, name)) for mode in self.modes]
        costs = [_costs(self.record["stages"][mode]) for mode in self.modes]
        columns |= dict(zip(("time", "texts", "MiB"), map(list, zip(*costs, strict=True)), strict=False))
        return Table.of("results", columns.items())

    def tell_rows(self) -> str:
        """How many rows the table is of, and what the modes start from."""
        told, slices = [], self.slices(self.modes[0]) if self.modes else {}
        if slices.get("all", {}).get("rows"):
            counts = {name: slices[name]["rows"] for name in ("all", *_SLICES) if name in slices}
            parts = [f"{counts[name]:,} of {of}{_MEANING[name]}" for name, of in _SLICES.items() if name in counts]
            told.append(f"{self.part.capitalize()} rows: {'; '.join([format(counts['all'], ','), *parts])}.")
        if alignment := self.record["stages"].get("pretrain"):
            time, texts, memory = _costs(alignment)
            parts = [f"{alignment['steps']:,} steps", time, f"{texts} texts", *([f"{memory} MiB"] if memory else [])]
            told.append(f"Alignment, from which all but plain start: {', '.join(parts)}.")
        return "\n".join(told)

    def judge(self) -> str:
        """What the mode that validation prefers gained over the plain backbone; empty if nothing can be said."""
        valid = {mode: self.reached(mode, self.metric, "valid") for mode in self.modes if mode != "plain"}
        known = {mode: self.sign * value for mode, value in valid.items() if value is not None}
        best = max(known, key=known.__getitem__, default="plain")
        gain = self.gain(best)
        if best == "plain" or gain is None:
            return ""
        gains = {of: self.slice_gain(best, name) for name, of in _SLICES.items()}
        changes = [f"{of} {number(change, '+')}" for of, change in gains.items() if change is not None]
        better = "better" if self.sign * gain >= 0 else "worse"
        said = f"{best} is the best mode on validation; in {self.part} {self.title} it is {abs(gain):.4f} {better} than"
        return f"{said} plain" + (f" ({', '.join(changes)})" if changes else "") + "."

    def doubt(self) -> str:
        """That the plain backbone has not learned what counting clicks finds; empty where it has."""
        rates = (self.record.get("click_rates") or {}).get("valid")
        plain = self.reached("plain", "auc", "valid")
        if plain is None or rates is None or plain >= rates:
            return ""
        return (
            f"plain has not learned what counting finds: click rates alone reach a validation AUC of {number(rates)}, "
            f"it {number(plain)}. A gain over it is none yet: search for its parameters (`tune`), or try other models."
        )

    def advise(self) -> str:
        """What to do before believing :meth:`judge`."""
        return f"One seed proves nothing; to compare over five: {_command(self.record, self.metric.partition('@')[0])}"


def result_table(record: Mapping[str, Any]) -> Markdown:
    """The run of ``record`` in Markdown: a table with a line for the plain backbone and each mode, and its reading.

    Without test rows, those of validation take their place. A column without any value is left out.
    """
    run = RunResult(record)
    table = run.table()
    judged, doubt = run.judge(), run.doubt()
    shown = markdown_table(table.header, table.rows, "lr") if run.modes else ""
    said = "\n".join(filter(None, [judged, doubt, judged and run.advise()]))
    return Markdown("\n\n".join(filter(None, [shown, run.tell_rows(), said])))


def _command(record: Mapping[str, Any], metric: str) -> str:
    """What compares over seeds, with the arguments of the run."""
    config, given = record["configuration"], parse_arguments(record.get("arguments") or ())
    files = given.get("config_files", "").split()
    if config.get("backbone") or len(files) > 1 or metric_types[metric] == EvaluatorType.RANKING:
        return "make the run with four other values of `seed`, too."
    modes = [mode for mode in STAGES[1:] if mode in record["stages"]]
    if record.get("in_python"):
        of = f"[{base_model_name(config['model'])!r}], [dataset], 'campaigns/{config['dataset']}'"
        call = f"`recbole_alt.compare({of}, keys=keys, seeds=5, modes={modes}, params_file='none')`"
        return f"{call}, with the dataset and the keys of this run, less those that a comparison sets itself."
    words = [f"--out=campaigns/{config['dataset']}", f"--models={base_model_name(config['model'])}"]
    words += [f"--datasets={':'.join([config['dataset'], *files])}", "--seeds=5"]
    words += [f"--modes={','.join(modes)}", "--params_file=none"]
    words += [f"--train_shares={value}" for name, value in given.items() if name == "train_share"]
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
    memory = stage.get("peak_memory_mib")  # older records lack it
    return show_time(stage["seconds"]), f"{stage['texts_encoded']:,}", f"{memory:,.0f}" if memory else ""


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
