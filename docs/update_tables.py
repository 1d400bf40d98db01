"""Write the tables of README.md and docs/ anew from the result files they name.

A line ``<!-- table: docs/results/NAME.json -->`` is followed by the command that wrote the file and the
table made from it; everything up to ``<!-- end -->`` is replaced. Of a campaign's report,
``<!-- table: docs/results/NAME/tables.md: plain and aligned -->`` shows the tables of that title, the facts they share
once a page; of a probe's file, or of one about histories, its table is shown.
``<!-- table: gains: docs/results/ONE docs/results/OTHER@0.2 docs/results/THIRD#mean -->`` puts the gains of several
reports in one table, of the other those with 20 % of the training interactions alone, of the third their mean.
``python docs/update_tables.py``
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recbole_alt import probe
from recbole_alt.benchmark import histories
from recbole_alt.benchmark.tables import gains_table
from recbole_alt.report import result_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "evidence").glob("*.md"))]
BLOCK = re.compile(r"(<!-- table: (\S+?)(?:: ([^>]*))? -->\n).*?(<!-- end -->)", re.DOTALL)


def block(file: str, title: str | None, told: set[str]) -> str:
    """The command that wrote ``file``, and its table; of a report the tables whose title ends in ``title``."""
    if file == "gains":
        return gains_block((title or "").split())
    if title is not None:
        return report_block(file, title, told)
    record = json.loads((ROOT / file).read_text())
    if isinstance(record, dict):
        return run_block(file, record)
    if "with_texts" in record[0]:
        return f"\n{probe.to_markdown([probe.Probe(**one) for one in record])}\n"
    if "with_histories" in record[0]:
        return f"\n{histories.to_markdown([histories.HistoryGain(**one) for one in record])}\n"
    make = speed_rows if "ratio" in record[0] else shortcut_rows
    command = {"compile": "compiled.py", "shortcuts": "shortcuts.py"}.get(Path(file).stem, "run.py")
    if any(result.get("details", {}).get("quick") for result in record):
        command += " --quick"
    rows = "\n".join("| " + " | ".join(row) + " |" for row in make(record))
    return f"\n```\npython benchmarks/{command} --json={file}\n```\n\n{rows}\n\n"


def report_block(file: str, title: str, told: set[str]) -> str:
    """The tables of a campaign's report whose title ends in ``title``, with those facts that were not ``told`` yet."""
    text = (ROOT / file).read_text().removeprefix("## ").strip()
    sections = [section.split("\n\n") for section in text.split("\n\n## ")]
    shown = [section for section in sections if section[0].endswith(title)]
    if not shown:
        raise ValueError(f"{file} has no table {title!r}; there are {', '.join(name for name, *_ in sections)}")
    parts = []
    for name, table, facts in shown:
        parts += [f"**{name}**", table] + ([] if facts in told else [facts])
        told.add(facts)
    return "\n" + "\n\n".join(parts) + "\n\n"


def gains_block(reports: list[str]) -> str:
    """What the complete method gains over each plain model, in several campaigns."""
    rows, means_alone = [], set()
    for report in reports:
        folder, _, share = report.removesuffix("#mean").partition("@")
        found = json.loads((ROOT / folder / "results.json").read_text())
        found = [row for row in found if not share or row["train_share"] == float(share)]
        if not found:
            raise ValueError(f"{report} has no rows")
        if report.endswith("#mean"):
            means_alone |= {row["data"] for row in found}
        rows += found
    _, table, facts = gains_table(rows, means_alone).markdown().strip().split("\n\n")
    return f"\n{table}\n\n{facts}\n\n"


def speed_rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """The table of ``benchmarks/run.py``."""
    rows = [["what", "ratio", "smallest to largest", "must be", ""], ["---", "---:", "---:", "---:", "---"]]
    for result in results:
        bound = f"{'≤' if result['at_most'] else '≥'} {result['target']:g}"
        spread = f"{result['low']:.2f} to {result['high']:.2f}"
        verdict = "" if result["ok"] else "missed"
        rows.append([f"`{result['name']}`", f"{result['ratio']:.2f}", spread, bound, verdict])
    return rows


def shortcut_rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """The table of ``benchmarks/shortcuts.py``: mean ± standard deviation over seeds."""
    columns = ["alignment", "seeds", "texts", "interactions", "seconds", "valid AUC of `ctr`", "test AUC of `ctr`"]
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
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
    return rows


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


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(update(page.read_text()))
