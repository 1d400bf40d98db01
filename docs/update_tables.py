"""Write the tables of README.md and docs/ anew, and draw the plots of docs/plots/, from docs/results/.

A line ``<!-- table: docs/results/NAME.json -->`` is followed by the command that wrote the file and the table made from
it; everything up to ``<!-- end -->`` is replaced. ``<!-- table: docs/results/NAME: plain and aligned -->`` shows those
tables of a campaign's report whose title ends so, and below them, folded and once a page, what they are made from.
``<!-- table: gains: docs/results/ONE docs/results/OTHER@0.2 docs/results/THIRD#mean -->`` puts the gains of several
campaigns in one table: of the second only those with 20 % of the training interactions, of the third only the mean.
``<!-- table: verdict: docs/results/ONE docs/results/OTHER -->`` shows the best arm with text of each of them.
``python docs/update_tables.py``
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from recbole_alt.files import read_json
from recbole_alt.markdown import markdown_table
from recbole_alt.questions import probe, unseen
from recbole_alt.reporting import plots
from recbole_alt.reporting.report import read_rows
from recbole_alt.reporting.run_table import result_table
from recbole_alt.reporting.tables import gains_table, make_tables, verdict_table
from recbole_alt.statistics import holm, p_value, t_interval

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PLOTS = ROOT / "docs" / "results", ROOT / "docs" / "plots"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "evidence").glob("*.md"))]
BLOCK = re.compile(r"(<!-- table: (\S+?)(?:: ([^>]*))? -->\n).*?(<!-- end -->)", re.DOTALL)
FOLDED = '<details markdown="1"><summary>Data, settings, commands and versions</summary>\n\n{}\n\n</details>'


# -- tables ------------------------------------------------------------------------------------------------


def block(file: str, title: str | None, told: set[str]) -> str:
    """The table made from ``file``, and what it is made from; of a report the tables whose title ends in ``title``."""
    if file == "gains":
        return gains_block((title or "").split())
    if file == "verdict":
        folders = (title or "").split()
        table = verdict_table([row for folder in folders for row in read_rows(ROOT / folder / "results.json")])
        return f"\n{markdown_table(table.header, table.rows)}\n\n{table.facts}\n\n"
    if file == "unseen":
        files = {name: ROOT / "docs" / "results" / "unseen" / f"{name}.json" for name in (title or "").split()}
        rows = [[name, *unseen.cells(unseen.Unseen(**one))] for name, file in files.items() for one in read_json(file)]
        return f"\n{unseen.TITLE}\n\n{markdown_table(['data', *unseen.HEADER], rows, 'llrr')}\n\n"
    if title is not None:
        return report_block(file, title, told)
    record = read_json(ROOT / file)
    if isinstance(record, dict):
        return load_block(file, record) if "measured" in record else run_block(file, record)
    if "with_texts" in record[0]:
        return f"\n{probe.to_markdown([probe.Probe(**one) for one in record])}\n"
    if "with_histories" in record[0]:
        return f"\n{histories_table(record)}\n\n"
    if "arms" in record[0]:
        command = f"python benchmarks/extending.py --json={file} --data_path=dataset"
        return f"\n```\n{command}\n```\n\n{extending_table(record)}\n\n"
    if "keys" in record[0]:
        command = f"python benchmarks/choices.py {Path(file).stem} --json={file}"
        return f"\n```\n{command}\n```\n\n{choices_table(record)}\n\n"
    table = speed_table if "ratio" in record[0] else shortcut_table
    if record[0].get("name", "").startswith("gpu_"):
        table = gpu_tables
    command = {"compile": "compiled.py", "shortcuts": "shortcuts.py", "gpu": "gpu.py"}.get(Path(file).stem, "run.py")
    if any(result.get("details", {}).get("quick") for result in record):
        command += " --quick"
    return f"\n```\npython benchmarks/{command} --json={file}\n```\n\n{table(record)}\n\n"


def report_block(folder: str, title: str, told: set[str]) -> str:
    """Those tables of a campaign whose title ends in ``title``, and the facts below them that were not ``told`` yet."""
    tables = make_tables(read_rows(ROOT / folder / "results.json"))
    shown = [table for table in tables if table.title.endswith(title)]
    if not shown:
        raise ValueError(f"{folder} has no table {title!r}; there are {', '.join(table.title for table in tables)}")
    parts = []
    for table in shown:
        parts += [f"**{table.title}**", markdown_table(table.header, table.rows)]
        parts += [] if table.facts in told else [FOLDED.format(table.facts)]
        told.add(table.facts)
    return "\n" + "\n\n".join(parts) + "\n\n"


def gains_block(reports: list[str]) -> str:
    """What the complete method gains over each plain model, in several campaigns; of some only the mean over models."""
    rows, only_means = [], set()
    for report in reports:
        folder, _, share = report.removesuffix("#mean").partition("@")
        found = read_rows(ROOT / folder / "results.json")
        found = [row for row in found if not share or row["train_share"] == float(share)]
        if not found:
            raise ValueError(f"{report} has no rows")
        if report.endswith("#mean"):
            only_means |= {row["data"] for row in found}
        rows += found
    table = gains_table(rows)
    shown = [line for line in table.rows if line[0] not in only_means or line[1].startswith("mean of ")]
    return f"\n{markdown_table(table.header, shown)}\n\n{table.facts}\n\n"


def speed_table(results: list[dict[str, Any]]) -> str:
    """The table of ``benchmarks/run.py``."""
    rows = []
    for result in results:
        bound = f"{'≤' if result['at_most'] else '≥'} {result['target']:g}"
        spread = f"{result['low']:.2f} to {result['high']:.2f}"
        verdict = "" if result["ok"] else "missed"
        rows.append([f"`{result['name']}`", f"{result['ratio']:.2f}", spread, bound, verdict])
    return markdown_table(["what", "ratio", "smallest to largest", "must be", ""], rows, "lrrrl", pad=False)


def gpu_tables(results: list[dict[str, Any]]) -> str:
    """Two tables of ``benchmarks/gpu.py``: steps of alignment, and what else has a bound."""
    kinds = ("gpu_step/", "gpu_share_of_peak/", "gpu_busy/", "gpu_waits/")
    of = {result["name"]: result for result in results}
    steps = []
    for name in (name.removeprefix(kinds[0]) for name in of if name.startswith(kinds[0])):
        step, share, busy, waits = (of[kind + name] for kind in kinds)
        cost = step["details"]
        steps.append([
            f"`{name}`", f"{cost['tokens']:,.0f}", f"{cost['step_ms']:.0f}", f"{step['ratio']:.2f}",
            f"{share['details']['tflops']:.0f}", f"{share['ratio']:.2f}", f"{busy['ratio']:.2f}",
            f"{waits['ratio']:.0f}", f"{cost['peak_memory_mib'] / 1024:.1f}",
        ])  # fmt: skip
    header = ["step", "tokens", "ms", "by the encoder alone", "TFLOP/s", "of the peak", "busy", "waits", "GiB"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if not result["name"].startswith(kinds):
            groups.setdefault("/".join(result["name"].split("/")[:2]), []).append(result)
    bounds = [
        [f"`{name}`", str(len(group)), f"{max(result['ratio'] for result in group):.2g}", f"≤ {group[0]['target']:g}"]
        for name, group in groups.items()
    ]
    of_bounds = markdown_table(["what", "number", "largest", "must be"], bounds, "lrrr", pad=False)
    return f"{markdown_table(header, steps, 'lrrrrrrrr', pad=False)}\n\n{of_bounds}"


def shortcut_table(runs: list[dict[str, Any]]) -> str:
    """The table of ``benchmarks/shortcuts.py``: mean ± standard deviation over seeds."""
    header = ["alignment", "seeds", "texts", "interactions", "seconds", "valid AUC of `ctr`", "test AUC of `ctr`"]
    rows = []
    plain = [{**run, "results": {"ctr": run["results"]["plain"]}} for run in runs if "plain" in run["results"]]
    groups = {
        variant: [run for run in runs if run["variant"] == variant] for variant in {r["variant"]: 0 for r in runs}
    }
    for name, group in {"none (plain DCN)": plain, **groups}.items():
        cost = ["texts_encoded", "interactions_seen", "seconds"]
        cells = ["" if group is plain else f"{mean(run[key] for run in group):,.0f}" for key in cost]
        for split in ("valid", "test"):
            reached = [run["results"]["ctr"][split]["auc"] for run in group]
            cells.append(f"{mean(reached):.4f}" + (f" ± {stdev(reached):.4f}" if len(reached) > 1 else ""))
        rows.append([name, str(len(group)), *cells])
    return markdown_table(header, rows, "lr", pad=False)


def choices_table(runs: list[dict[str, Any]]) -> str:
    """The table of ``benchmarks/choices.py``: each variant, and its paired difference from the first of its mode."""
    settings: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        settings.setdefault(tuple(json.dumps(run[key]) for key in ("data", "mode", "variant", "keys")), []).append(run)
    most = max(len(group) for group in settings.values())
    header = ["data", "mode", "variant", "seeds", "valid AUC", "test AUC", "Δ test AUC, 95 % interval", "new users"]
    rows, first = [], {}
    for group in (group for group in settings.values() if len(group) == most):  # the others were tried for one seed
        data, mode, variant = (group[0][key] for key in ("data", "mode", "variant"))
        test = {run["seed"]: run["test"]["auc"] for run in group}
        reference = first.setdefault((data, mode), test)
        difference = ""
        if reference is not test:
            of_seeds = [auc - reference[seed] for seed, auc in test.items()]
            low, high = t_interval(mean(of_seeds), stdev(of_seeds), len(of_seeds))
            difference = f"{mean(of_seeds):+.4f} [{low:+.4f}, {high:+.4f}]"
        shown = [[run["valid"]["auc"] for run in group], list(test.values())]
        shown.append([run["slices"]["test"]["new_users"] for run in group])
        cells = ["" if None in values else f"{mean(values):.4f} ± {stdev(values):.4f}" for values in shown]
        rows.append([data, f"`{mode}`", variant, str(len(group)), *cells[:2], difference, cells[2]])
    return markdown_table(header, rows, "lllrrrrr", pad=False)


def extending_table(entries: list[dict[str, Any]]) -> str:
    """The table of ``benchmarks/extending.py``: AUC on new items, by arm, beside the plain model and others' texts."""
    rows, tests = [], []
    for entry in entries:
        arms = entry["arms"]
        for name, arm in arms.items():
            marked = f"{name} †" if arm["at_ends"] else name
            cells = [f"{mean(arm[part]):.4f} ± {stdev(arm[part]):.4f}" for part in ("valid", "test")]
            rows.append([entry["data"], f"{entry['share']:.0%}", marked, str(len(arm["test"])), *cells])
            against = ["plain" if name != "plain" else None, f"{name}, others' texts"]
            tests.append([[a - b for a, b in zip(arm["test"], arms[of]["test"], strict=True)] if of in arms else None
                          for of in against])  # fmt: skip
    for column in zip(*tests, strict=True):
        adjusted = holm([None if gains is None else p_value(gains) for gains in column])
        for row, gains, p in zip(rows, column, adjusted, strict=True):
            if gains is None or p is None:
                row += ["", ""]
                continue
            low, high = t_interval(mean(gains), stdev(gains), len(gains))
            row += [f"{mean(gains):+.4f} [{low:+.4f}, {high:+.4f}]", "< 0.001" if p < 0.001 else f"{p:.3f}"]
    header = ["data", "interactions", "arm", "seeds", "valid AUC", "test AUC"]
    header += ["Δ to plain [95 %]", "p", "Δ to others' texts [95 %]", "p"]
    at_ends = [f"{entry['data']} {name} ({', '.join(arm['at_ends'])})" for entry in entries
               for name, arm in entry["arms"].items() if arm["at_ends"]]  # fmt: skip
    facts = (
        f"Parameters chosen with {entries[0]['tuning_seeds']} of the seeds, of {entries[0]['trials']} draws at first"
    )
    facts += "; p after Holm's correction for the tests in its column."
    if at_ends:
        facts += f" † A value at the end of its range was chosen: {'; '.join(at_ends)}."
    return f"{markdown_table(header, rows, 'lllr', pad=False)}\n\n{facts}"


def histories_table(gains: list[dict[str, Any]]) -> str:
    """The table of ``examples/histories.py``."""
    header = ["data", "model", "seeds", "test AUC", "refitted", "with histories"]
    rows = []
    for gain in gains:
        share = "" if gain["train_share"] == 1 else f", {gain['train_share']:.0%}"
        reached = [gain[key] for key in ("alone", "refitted", "with_histories")]
        cells = [f"{mean(values):.4f} ± {stdev(values):.4f}" for values in reached]
        rows.append([gain["data"] + share, gain["model"], str(len(gain["alone"])), *cells])
    return markdown_table(header, rows, "llr")


def load_block(file: str, record: dict[str, Any]) -> str:
    """Command, table and facts of ``benchmarks/load.py``: latency and rate by size of the requests and by clients."""
    rows = []
    for one in record["measured"]:
        cells = [f"{one['rows']:,}", str(one["clients"]), f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}"]
        rate = one["requests_per_second"]
        rows.append([*cells, f"{rate:,.0f}", f"{one['rows'] * rate:,.0f}"])
    header = ["rows in a request", "clients", "p50, ms", "p99, ms", "requests per second", "rows per second"]
    facts = f"{record['model']}; processes of the service: {record['workers']}; cores, which its clients share: "
    versions = ", ".join(map(" ".join, record["versions"].items()))
    facts += f"{record['cores']}. Made from `{file}`: {versions}."
    command = f"python benchmarks/load.py served --json={file}"
    if record["workers"] > 1:
        command += f" --workers={record['workers']}"
    return f"\n```\n{command}\n```\n\n{markdown_table(header, rows, 'r', pad=False)}\n\n{facts}\n\n"


def run_block(file: str, record: dict[str, Any]) -> str:
    """Command, table and facts of one run."""
    command = " ".join(["python", *(record.get("command") or ["run_recbole_alt.py", *record["arguments"]])])
    config, pretraining = record["configuration"], record["stages"].get("pretrain")
    layers = config["language_model_layers"]
    facts = [
        config["dataset"],
        " ".join(f"{name} ≥ {value} is a click" for name, value in (config["threshold"] or {}).items())
        or "label as given",
        f"split {config['eval_args']['split']} in order {config['eval_args']['order']}",
        f"{config['language_model']}, {f'first {layers}' if layers else 'all'} layers, of these not aligned: "
        f"{config['frozen_layers'] or 'none'}",
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
    told: set[str] = set()
    return BLOCK.sub(lambda match: match[1] + block(match[2], match[3], told) + match[4], text)


# -- plots -------------------------------------------------------------------------------------------------


def scaling(results: list[dict[str, Any]]) -> Figure:
    """What the language model costs as interactions grow over the same users and items."""
    details = next(result["details"] for result in results if result["name"] == "scaling")
    interactions = details["interactions"]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    first = details["seconds"][0]
    axes.plot(interactions, [s / first for s in details["seconds"]], "o-", label="measured, an epoch of blocks")
    axes.plot(interactions, [n / interactions[0] for n in interactions], "--", color="grey", label="one text a row")
    axes.set(xscale="log", yscale="log", xlabel="interactions", ylabel="cost of text, first = 1")
    axes.legend(frameon=False)
    return figure


def shortcuts(runs: list[dict[str, Any]]) -> Figure:
    """Quality against time, a point a run."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for variant in {run["variant"]: None for run in runs}:
        group = [run for run in runs if run["variant"] == variant]
        reached = [run["results"]["ctr"]["test"]["auc"] for run in group]
        axes.plot([run["seconds"] for run in group], reached, "o", label=variant)
    plain = [run["results"]["plain"]["test"]["auc"] for run in runs if "plain" in run["results"]]
    for auc in plain:
        axes.axhline(auc, color="grey", linewidth=0.6, label="plain DCN" if auc == plain[0] else None)
    axes.set(xlabel="seconds of alignment", ylabel="test AUC of ctr")
    axes.legend(frameon=False, fontsize="small")
    return figure


#: Plot → the result file it is drawn from, and how.
DRAWN: dict[str, tuple[str, Callable[[list[dict[str, Any]]], Any]]] = {
    "speed": ("speed.json", scaling),
    "shortcuts": ("shortcuts.json", shortcuts),
    "ablations": ("ablations/results.json", plots.gains),
    "backbones-random": ("backbones-random/results.json", plots.gains),
    "backbones-time": ("backbones-time/results.json", plots.gains),
    "many-clicks": ("many-clicks/results.json", plots.gains),
    "ml-1m-3-dropped": ("ml-1m-3-dropped/results.json", plots.gains),
    "few-clicks": ("few-clicks/results.json", plots.gains),
    "few-clicks-ml-100k": ("few-clicks-ml-100k/results.json", plots.gains),
    "objectives-ml-100k": ("objectives-ml-100k/results.json", plots.gains),
    "few-clicks-rates": ("few-clicks-rates/results.json", plots.gains),
    "few-clicks-rates-ml-100k": ("few-clicks-rates-ml-100k/results.json", plots.gains),
    "ml-1m-plots": ("ml-1m-plots/results.json", plots.gains),
    "ml-100k-plots-time": ("ml-100k-plots-time/results.json", plots.gains),
    "book-crossing-explicit": ("book-crossing-explicit/results.json", plots.gains),
    "ml-100k-plots-liked": ("ml-100k-plots-liked/results.json", plots.gains),
    "ml-100k-plots-liked-before": ("ml-100k-plots-liked-before/results.json", plots.gains),
}

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(update(page.read_text()))
    for name, (file, draw) in DRAWN.items():
        rows = read_rows(RESULTS / file) if Path(file).name == "results.json" else read_json(RESULTS / file)
        (PLOTS / f"{name}.svg").write_bytes(plots.to_svg(draw(rows), f"{name}.svg"))
