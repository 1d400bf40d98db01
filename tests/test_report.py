"""Reports of campaigns: from their runs, and joined; tables that hide no loss; the facts below them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruptions import counted
from scipy.stats import t, ttest_1samp
from sklearn.metrics import roc_auc_score

from recbole_alt import scores
from recbole_alt.cli import main
from recbole_alt.files import read_record, write_record
from recbole_alt.reporting import report, tables
from recbole_alt.reporting.comparison_page import comparison_page
from recbole_alt.reporting.plots import draw_all
from recbole_alt.reporting.report import join_reports, read_rows, write_report
from recbole_alt.reporting.runs import COMPLETE
from recbole_alt.scores import Scores
from recbole_alt.study import Campaign, run_campaign
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.values import rounded

pytestmark = pytest.mark.usefixtures("one_thread")

Made = Callable[..., Campaign]


@pytest.mark.drawn
def test_the_report_alone(campaign: Made, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run_campaign(
        campaign(models=["DCN"], ablations=["no_contrast"], params_file="none"), Path("out"), ["x.py", "--a=1"]
    )
    for file in Path("out/report").iterdir():
        file.unlink()
    fitted = counted(monkeypatch, ALTTrainer, "fit")
    assert main(["compare", "--out=out", "--report"]) == 0 and not fitted
    printed, text = capsys.readouterr().out, Path("out/report/tables.md").read_text()
    assert text in printed
    for said in (
        "rating ≥ 3 is a click", "seeds 2020, 2021", "prompt scope entity", "alignment of 2 steps",
        "layers: 1, of these not aligned: none",
    ):  # fmt: skip
        assert text.count(said) == 2, said
    for said in ("x.py --a=1", "{'RS'", "no contrast", "torch "):
        assert said in text, said
    tex = Path("out/report/tables.tex").read_text()
    assert tex.count(r"\begin{tabular}") == 2 == text.count("## ") and "%" not in tex.replace(r"\%", "")
    with Path("out/report/runs.csv").open() as opened:
        lines = list(csv.DictReader(opened))
    assert len(lines) == 10 and {line["stage"] for line in lines} == {"plain", "ctr", "joint"}
    rows = read_rows(Path("out/report/results.json"))
    assert rows == rounded(rows, 8) and all(line["auc"] == str(rounded(float(line["auc"]), 6)) for line in lines)
    for row in rows:
        curves = [bool(row[name]) for name in ("calibration", "popularity")]
        assert curves == [row["variant"] in ("plain", COMPLETE)] * 2  # of others no plot shows any
        mine = [
            float(line["auc"]) for line in lines if (line["variant"], line["stage"]) == (row["variant"], row["stage"])
        ]
        assert row["auc"] == pytest.approx(np.mean(mine), abs=2e-6)  # of rounded numbers
        assert row["auc_sd"] == pytest.approx(np.std(mine, ddof=1), abs=2e-6)
    assert Path("out/report/report.html").read_text() == comparison_page(rows, draw_all(rows))  # of nothing but these
    drawn = {file.name for file in Path("out/report").glob("*.svg")}
    assert {"tiny-gains.svg", "tiny-popularity.svg", "tiny-calibration.svg"} <= drawn
    assert not [file for file in Path("out").rglob("*") if file.suffix in (".pkl", ".pickle")]
    for file in Path("out").rglob("scores.npz"):
        assert Scores.load(file).score.dtype == np.float32


@pytest.mark.drawn
def test_a_joined_report_is_that_of_one_campaign(campaign: Made, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run_campaign(campaign(params_file="none", modes=["ctr"]), Path("whole"), ["x.py"])
    for model in ("DCN", "DeepFM"):
        for run in Path("whole/runs").glob(f"*_{model}_*.json"):
            shutil.copytree(run.with_suffix(""), Path(model, "runs", run.stem))
            shutil.copy(run, Path(model, "runs"))
        write_report(Path(model))
    shutil.copytree("DCN/report", "kept")
    shutil.rmtree("DCN")  # the runs need not be at hand
    assert main(["compare", "--join=DeepFM,kept", "--out=joined"]) == 0
    assert Path("joined/report/tables.md").read_text() in capsys.readouterr().out
    plots = [f"tiny-{name}.svg" for name in ("gains", "popularity", "calibration")]
    for name in ("tables.md", "tables.tex", "results.json", "results.csv", "report.html", *plots):
        assert Path("joined/report", name).read_bytes() == Path("whole/report", name).read_bytes(), name
    with Path("joined/report/runs.csv").open() as joined, Path("whole/report/runs.csv").open() as whole:
        lines = [{k: v for k, v in line.items() if k != "folder"} for line in csv.DictReader(joined)]
        assert sorted(map(str, lines)) == sorted(
            str({k: v for k, v in line.items() if k != "folder"}) for line in csv.DictReader(whole)
        )


def test_reports_that_cannot_be_joined(campaign: Made) -> None:
    run_campaign(campaign(models=["DCN"], seeds=1, params_file="none", modes=[]), Path("one"))
    with pytest.raises(ValueError, match="join: 'one' is to be joined, and would be overwritten"):
        join_reports([Path("one")], Path("one"))
    with pytest.raises(ValueError, match="join: 'nowhere' holds no report"):
        join_reports([Path("one"), Path("nowhere")], Path("joined"))
    shutil.copytree("one", "two")
    with pytest.raises(ValueError, match=r"join: tiny 1\.0 DCN plain plain is in both 'one' and 'two'"):
        join_reports([Path("one"), Path("two")], Path("joined"))
    rows = read_rows(Path("two/report/results.json"))
    for older in (rows, {"rows": rows}):
        Path("two/report/results.json").write_text(json.dumps(older))
        with pytest.raises(ValueError, match=r"'two/report/results\.json' is of an older version"):
            join_reports([Path("two")], Path("joined"))
    assert not Path("joined").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", {"columns": 1, "shared": 2, "rows": 3}, "it holds no rows"),
        ("results.json", {"columns": ["data"], "shared": {"data": "tiny"}, "rows": [{}]}, "a row lacks train_share"),
        ("results.json", {"columns": [], "shared": {}, "rows": []}, "it has no rows"),
        ("results.json", [], "older version"),
        ("runs.csv", "", "No columns to parse"),
        ("runs.csv", "a,b\n1,2\n", "it has no column data"),
    ],
)
def test_files_of_something_else_are_not_joined(name: str, content: Any, said: str) -> None:
    row = dict.fromkeys(report._OF_ROW, "x") | {"stage": "plain", "variant": "plain", "language_model": None}
    rows = {"columns": list(row), "shared": row, "rows": [{}]}
    Path("one/report").mkdir(parents=True)
    Path("one/report/results.json").write_text(json.dumps(rows))
    Path("one/report/runs.csv").write_text("data,train_share,model,language_model,variant,stage,seed\n")
    Path("one/report", name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=f"^'one/report/{name}' is .*{said}"):
        join_reports([Path("one")], Path("joined"))
    assert not Path("joined").exists()


@pytest.mark.parametrize(
    ("content", "lacking"),
    [({}, "tested"), ({"tested": True, "score": 1, "error": None, "wall": 1, "costs": {}}, "run")],
)
def test_a_record_of_something_else_is_named(content: dict[str, Any], lacking: str) -> None:
    Path("out/runs").mkdir(parents=True)
    Path("out/runs/tiny-1.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"^'out/runs/tiny-1.json' is damaged .*: it lacks {lacking}; delete it"):
        write_report(Path("out"))


def record(
    stage: str, seed: int, label: np.ndarray, score: np.ndarray, item_seen: np.ndarray | None = None
) -> dict[str, Any]:
    """A run as a campaign keeps it, with its scores on disk."""
    folder = Path(f"{stage}-{seed}")
    folder.mkdir()
    made = Scores(score.astype(np.float32), label.astype(np.uint8), np.ones_like(label), item_seen=item_seen)
    made.save(folder / "scores.npz")
    run = {"data": "d", "train_share": 1.0, "model": "DCN", "language_model": None, "stage": stage, "seed": seed}
    run["variant"] = "plain" if stage == "plain" else COMPLETE
    found = {name: value for name, value in scores.flat_metrics(made).items() if value is not None}
    rest = {"valid": {"auc": 0.5, "logloss": 0.7}, "error": None, "costs": {}, "parameters": {}}
    rest |= {"at_ends": [], "tuned_alone": False, "tuning_seeds": 0, "tuning_trials": 6}
    config = {"dataset": "d", "threshold": None, "val_interval": None, "split_seed": 1, "language_model": "small"}
    config |= {"language_model_layers": None, "frozen_layers": None, "prompt_scope": "entity"}
    config |= {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "RO"}}
    rest |= {"configuration": config, "rows": {"train": 8, "valid": 1, "test": 1}, "command": ["x.py"], "versions": {}}
    return rest | {"run": run, "test": found, "folder": str(folder)}


def test_the_curves_of_a_row_are_of_the_runs_that_did_not_diverge() -> None:
    label, seen = np.tile([0, 1], 50), np.repeat([0, 3, 60], [1, 49, 50])
    first, second = np.random.default_rng(0).random((2, 100)).astype(np.float32)
    runs = [record("ctr", 1, label, first, seen), record("ctr", 2, label, second, seen)]
    runs.append(record("ctr", 3, label, second, seen) | {"error": "nan", "test": {}, "valid": {}})
    (row,) = report.summarise(runs)
    assert {name: one["rows"] for name, one in row["popularity"].items()} == {"0": 1, "1–9": 49, "50–199": 50}
    assert row["popularity"]["0"]["auc"] == {}  # one row, one class
    for name, inside in (("1–9", seen == 3), ("50–199", seen == 60)):
        expected = {str(seed): roc_auc_score(label[inside], s[inside]) for seed, s in ((1, first), (2, second))}
        assert row["popularity"][name]["auc"] == pytest.approx(expected)
    lowest = np.sort(first)[:10]
    assert (
        row["calibration"]["predicted"][0] == pytest.approx(lowest.mean()) and len(row["calibration"]["clicked"]) == 10
    )
    (nothing,) = report.summarise(runs[2:])
    assert nothing["popularity"] == {} and nothing["calibration"] is None


def quality(row: dict[str, Any]) -> dict[str, str]:
    return {name: tables.write_cell(row, name) for name, _ in tables.TABLES["all rows"]}


def test_losses_stand_like_wins() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    good = np.clip(label * 0.3 + rng.random(400) * 0.6, 0, 1).astype(np.float32)
    bad = rng.random(400).astype(np.float32)

    records = []
    for seed in (1, 2):
        better = np.clip(good + label * 0.01 * seed, 0, 1)
        records += [
            record("plain", seed, label, good),
            record("ctr", seed, label, bad),
            record("joint", seed, label, better),
        ]
    loss, win = (next(r for r in report.summarise(records, 50) if r["stage"] == stage) for stage in ("ctr", "joint"))
    assert loss["vs_plain_auc"] < loss["vs_plain_auc_high"] < 0 < win["vs_plain_auc_low"] < win["vs_plain_auc"]
    lost, won = (quality(row)["vs_plain_auc"] for row in (loss, win))
    half = t.ppf(0.975, 1) * win["vs_plain_auc_sd"] / 2**0.5
    assert won.endswith(f" [{win['vs_plain_auc'] - half:+.4f}, {win['vs_plain_auc'] + half:+.4f}]")
    assert lost.startswith("-0.") and won.startswith("+0.") and lost.count(",") == won.count(",") == 1
    assert loss["vs_plain_logloss"] > 0 and win["vs_plain_auc_p"] is not None
    gains = [joint["test"]["auc"] - plain["test"]["auc"] for plain, _, joint in (records[:3], records[3:])]
    assert (win["vs_plain_auc"], win["vs_plain_auc_sd"]) == pytest.approx((np.mean(gains), np.std(gains, ddof=1)))
    records[1]["error"], records[1]["test"], records[1]["valid"] = "nan", {}, {}
    row = next(r for r in report.summarise(records, 50) if r["stage"] == "ctr")
    assert row["diverged"] == 1 and row["vs_plain_pairs"] == 1 and "diverged" in quality(row)["seeds"]
    other = Scores.load(Path("plain-1/scores.npz"))
    Scores(other.score, 1 - other.label, other.user).save(Path("plain-2/scores.npz"))
    report._load.cache_clear()
    with pytest.raises(ValueError, match="other test rows"):
        report.summarise(records, 50)


def row(model: str, stage: str, gain: float | None, **more: Any) -> dict[str, Any]:
    """A row of a report with what tables read; ``gain`` is the mean over two seeds."""
    variant = "plain" if stage == "plain" else COMPLETE
    made = {"data": "d", "train_share": 1.0, "model": model, "language_model": None, "stage": stage, "variant": variant}
    made |= {"seeds": "1 2", "diverged": 0, "valid_auc": 0.8, "auc": 0.8, "auc_sd": None, "logloss": 0.5}
    made |= {"at_ends": [], "base_entropy": 0.6, "tuned_alone": False}
    made |= {"vs_plain_auc": gain, "vs_plain_auc_p": None if gain is None else 0.25, "vs_plain_pairs": 2}
    return made | {"vs_plain_auc_sd": None if gain is None else 0.001} | more


def test_gains_of_each_model_stand_in_one_line_and_their_mean_below() -> None:
    rows = [
        row("DCN", "plain", None),
        row("DCN", "ctr", 0.01),
        row("DCN", "joint", -0.02),
        row("LR", "plain", None),
        row("LR", "ctr", 0.04),
        row("DCN", "plain", None, train_share=0.05),
        row("DCN", "ctr", 0.05, train_share=0.05),
        row("DCN", "ctr", 0.06, train_share=0.2),  # its plain model is not there yet
        row("DCN", "ctr", 0.9, variant="no_contrast"),
    ]
    table = tables.gains_table(rows)
    assert table.header == ["data", "model", "seeds", "plain AUC", "Δ ctr [95 %]", "p", "Δ joint [95 %]", "p"]
    gained = [(line[0], line[1], line[4].split(" ")[0], line[6].split(" ")[0]) for line in table.rows]
    assert gained == [
        ("d", "DCN", "+0.0100", "-0.0200"),
        ("d", "LR", "+0.0400", ""),
        ("d", "mean of 2", "+0.0250", ""),  # of joint only one model is there
        ("d, 5% of the training interactions", "DCN", "+0.0500", ""),
    ]
    assert ttest_1samp([0.01, 0.04], 0).pvalue == pytest.approx(0.344, abs=0.001)
    assert [line[5] for line in table.rows] == ["1.000"] * 4 and "over models" in table.facts  # of 4 tests
    assert table.rows[0][4] == "+0.0100 [+0.0010, +0.0190]"


def test_the_verdict_is_about_the_arm_that_validation_prefers() -> None:
    others = {"vs_others_auc": 0.004, "vs_others_auc_p": 0.01, "vs_others_pairs": 2, "vs_others_auc_sd": 0.0001}
    rows = [
        row("DCN", "plain", None),
        row("DCN", "ctr", 0.01, valid_auc=0.82, **others),
        row("DCN", "ctr", 0.09, valid_auc=0.81, variant="grounded"),  # better only on the test set
        row("DCN", "ctr", 0.09, valid_auc=0.83, variant="ALT_shuffled"),
        row("DCN", "joint", 0.09, valid_auc=0.84),  # serves a language model
        row("LR", "plain", None),
    ]
    table = tables.verdict_table(rows)
    (line,) = table.rows
    assert line[1] == "DCN" and line[4] == "ctr" and line[5].startswith("+0.0100") and line[7].startswith("+0.0040")
    assert table.header[-2:] == ["Δ to others' texts [95 %]", "p"]
    assert tables.verdict_table(rows, ["plain", "ctr", "joint"]).rows[0][4] == "joint"


def test_what_was_not_trained_to_its_best_is_marked() -> None:
    costs = {"alignment_steps": None, "commands": "[]", "versions": "[]", "dataset": "d", "label_rule": "r"}
    costs |= {"split": "s", "encoder": None, "prompt_scope": None, "train_rows": 8, "valid_rows": 1, "test_rows": 1}
    rows = [
        row("DCN", "plain", None, logloss=0.61, click_rates_valid_auc=0.81, **costs),
        row("DCN", "ctr", 0.1, at_ends=["learning_rate"], **costs),
        row("DCN", "joint", 0.1, **costs),
    ]
    table = tables.make_tables(rows)[0]
    assert [line[1] for line in table.rows] == ["plain ‡§", "ctr †", "joint"]
    assert "† A value at the end of its range was chosen: DCN ctr (learning_rate)." in table.facts
    assert "‡ LogLoss above the entropy of the base rate, so not trained: DCN plain (0.6000)." in table.facts
    assert "§ Validation AUC below that of a logistic regression on click rates: DCN plain (0.8100)." in table.facts
    (better,) = tables.make_tables([row("DCN", "plain", None, click_rates_valid_auc=0.79, **costs)])[0].rows
    assert better[1] == "plain"


def test_a_control_is_compared_with_its_arm(campaign: Made) -> None:
    run_campaign(campaign(models=["DCN"], modes=["ctr"], controls=["ALT"], params_file="none"), Path("out"))
    rows = {(row["variant"], row["stage"]): row for row in read_rows(Path("out/report/results.json"))}
    right, wrong = rows[COMPLETE, "ctr"], rows["ALT_shuffled", "ctr"]
    assert right["vs_others_auc"] == pytest.approx(right["auc"] - wrong["auc"]) and "vs_others_auc" not in wrong
    assert "vs_complete_auc" not in wrong
    assert "| DCN   | ctr, others' texts" in Path("out/report/tables.md").read_text()


def test_seeds_of_a_later_command_and_version_are_told(campaign: Made) -> None:
    run_campaign(campaign(models=["DCN"], params_file="none", modes=["ctr"]), Path("out"), ["x.py", "--seeds=2"])
    file = next(Path("out/runs").glob("*_ctr_2021-*.json"))
    record = read_record(file)
    record["command"], record["versions"]["torch"] = ["x.py", "--seeds=3"], "9.9"
    write_record(file, record)
    write_report(Path("out"))
    text = tables.tell(read_rows(Path("out/report/results.json")))
    assert "`python x.py --seeds=2`; `python x.py --seeds=3`" in text
    assert text.count("torch ") == 2 and "torch 9.9" in text
