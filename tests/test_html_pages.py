"""``result.html`` and ``report.html``: what they say, that they need nothing else, and how they look in a browser."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from pages import ROOT
from test_report import row

from recbole_alt import run_recbole_alt
from recbole_alt.experiment import Experiment
from recbole_alt.keys import STAGES
from recbole_alt.registry import make_config
from recbole_alt.reporting.comparison_page import comparison_page, judge
from recbole_alt.reporting.plots import draw_all
from recbole_alt.reporting.report import read_rows
from recbole_alt.reporting.run_page import run_page
from recbole_alt.reporting.run_table import RunResult
from recbole_alt.reporting.tables import make_tables, verdict_table
from recbole_alt.trainer.curves import Curves, add_step, points_every

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.drawn]

Keys = Callable[..., dict[str, Any]]
EVIL = "</blockquote><script>alert(1)</script><img src=http://example.org/x onerror='alert(2)'>`code`"


class Page(HTMLParser):
    """The words of a page, its elements, and the addresses that these load or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.elements, self.addresses = "", set[str](), list[str]()
        self.feed(text)

    def says(self, text: str) -> bool:
        """Whether it says this, whatever the white space and the marks of code."""
        return "".join(text.split()).replace("`", "") in "".join(self.words.split()).replace("`", "")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements |= {tag, *(name for name, _ in attributes if name.startswith("on"))}
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.words += data + "\n"


_made: dict[str, Any] = {}  # the record of one run, for all tests


@pytest.fixture
def record(keys: Keys) -> dict[str, Any]:
    """The record of a run on ``tiny``, as if it had been planned."""
    if not _made:
        given = keys(finetune_modes=["ctr", "joint"], epochs=3, mask_ratio=0.3)
        result = run_recbole_alt("ALT_DCN", "tiny", None, given)
        _made.update(json.loads(Path(result["folder"], "result.json").read_text()))
        assert Path(result["folder"], "result.html").read_text() == run_page(_made)  # of nothing but the record
    made = copy.deepcopy(_made)
    for stage in made["stages"].values():
        stage |= {"planned_seconds": 6000.0, "planned_texts_encoded": 87654, "planned_peak_memory_mib": 2345.6}
    return made


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The rows of a comparison with marks, controls and slices."""
    found = read_rows(ROOT / "docs" / "results" / "ablations" / "results.json")
    assert found[0]["at_ends"] and any("_shuffled" in row["variant"] for row in found)
    return found


# -- a run -------------------------------------------------------------------------------------------------


def test_the_page_of_a_run_has_everything(record: dict[str, Any]) -> None:
    page, run = Page(run_page(record)), RunResult(record)
    table = run.table()
    assert all(cell in page.words for line in (table.header, *table.rows) for cell in line)
    assert run.judge() and run.judge() in page.words and "One seed proves nothing" in page.words
    for said in ("items, 10–49", "planned time", "1.7 h", "87,654", "2,346", "alignment"):
        assert said in page.words, said
    texts = [text for example in record["example_texts"] for text in example.values()]
    assert len(texts) == 9 and "gender is" in texts[0] and all(text in page.words for text in texts)
    assert record["defaults"]["mask_ratio"] == 0.15 and "mask_ratio\n0.3\n0.15" in page.words.replace("\n\n", "\n")
    assert len(page.addresses) == 1 + 5  # an empty icon; gains, calibration, three of curves


def test_curves_and_calibration_are_those_of_the_run(record: dict[str, Any]) -> None:
    aligned = record["stages"]["pretrain"]["curves"]
    assert aligned.keys() == {"contrastive", "masked_language", "masked_tabular"}
    assert all([step for step, _ in points] == [1, 2, 3, 4] for points in aligned.values())
    for mode in ("ctr", "joint", "plain"):
        curves, reached = record["stages"][mode]["curves"], record["results"][mode]
        assert [epoch for epoch, _ in curves["loss"]] == list(range(1, record["stages"][mode]["epochs"] + 1))
        assert max(score for _, score in curves["valid"]) == pytest.approx(reached["valid"]["auc"], abs=1e-6)
        assert len(reached["calibration"]["predicted"]) == len(reached["calibration"]["clicked"]) == 10


def test_a_curve_has_a_hundred_points_at_most_one_more() -> None:
    curves: Curves = {}
    for step in range(1050):
        add_step(curves, step, {"a": float(step), "b": float("nan") if step % 2 else 1.0}, points_every(1050))
    assert len(curves["a"]) == 105 and curves["a"][0] == [10, 4.5, 10] and curves["a"][-1] == [1050, 1044.5, 10]
    assert curves["b"][0] == [9, 1.0, 5]  # what is no number is left out


def test_a_run_without_anything_to_compare_or_without_slices_has_a_page(keys: Keys, record: dict[str, Any]) -> None:
    changes = {"finetune_modes": [], "plain_baseline": False}
    page = Page(run_page(run_recbole_alt("ALT_DCN", "tiny", None, keys(**changes))["record"]))
    assert "Nothing to compare" in page.words and "What each mode reached" not in page.words
    scores = {"valid": {"recall@10": 0.2}, "test": {"recall@10": 0.1}, "slices": {}, "calibration": {}}
    record["results"] = dict.fromkeys(record["results"], scores)
    record["configuration"] |= {"metrics": ["Recall"], "valid_metric": "Recall@10"}
    page = Page(run_page(record))
    assert "Recall@10" in page.words and "For whom" not in page.words


def test_older_records_have_a_page(record: dict[str, Any]) -> None:
    for stage in record["stages"].values():
        del stage["curves"]
    for reached in record["results"].values():
        del reached["calibration"]
    page = Page(run_page({key: value for key, value in record.items() if key not in ("example_texts", "defaults")}))
    assert len(page.addresses) == 1 + 1 and "Texts as the model saw them" not in page.words


def test_no_page_shows_a_label(keys: Keys, data_path: Path, small_bert: str) -> None:
    """Ratings that occur nowhere else are not found, and texts are the same with other ratings."""
    texts = []
    for name, values in {"one": (71.25, 92.5), "two": (92.5, 71.25)}.items():
        folder = Path(name, "tiny")
        folder.mkdir(parents=True)
        for file in (data_path / "tiny").iterdir():
            lines = file.read_text().splitlines()
            if file.suffix == ".inter":
                split = [line.split("\t") for line in lines[1:]]
                lines[1:] = ["\t".join([*r[:2], str(values[int(r[2]) >= 3]), *r[3:]]) for r in split]
            (folder / file.name).write_text("\n".join(lines) + "\n")
        given = keys(threshold={"rating": 80}, finetune_modes=["ctr"]) | {"data_path": str(Path(name).resolve())}
        with Experiment(make_config("ALT_DCN", "tiny", None, given)) as run:
            texts.append(run.example_texts())
    assert texts[0] == texts[1] and len(texts[0]) == 3
    folder = run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"]
    for file in ("result.html", "result.json"):
        text = Path(folder, file).read_text()
        assert "age is" in text and not [value for value in ("71.25", "92.5") if value in text], file
    assert "rating" not in "".join(text for example in texts[0] for text in example.values())


# -- a comparison ------------------------------------------------------------------------------------------


def test_the_page_of_a_comparison_has_everything(rows: list[dict[str, Any]]) -> None:
    plots = draw_all(rows)
    page = Page(comparison_page(rows, plots))
    for table in [*make_tables(rows), verdict_table(rows)]:
        place = [n for n, name in enumerate(table.header) if name not in ("data", "model", "arm")]  # these are joined
        assert all(line[n] in page.words for line in table.rows for n in place)
        assert page.says(table.facts)
    assert "DCN ctr †" in page.words and "A value of the plain model is at the end of its range" in page.words
    assert "The plain model's LogLoss is above" not in page.words  # no row has this mark
    assert len(page.addresses) == 1 + len(plots) and page.words.count("costs\n") == 1


def test_the_verdict_counts_no_chance_as_a_gain() -> None:
    def of(gain: float, p: float | None, model: str = "DCN", **more: Any) -> list[dict[str, Any]]:
        return [row(model, "plain", None, **more), row(model, "ctr", gain, vs_plain_auc_p=p, **more)]

    def said(*rows: dict[str, Any]) -> list[str]:
        return judge(rows, STAGES)

    assert said(*of(0.01, 0.02)) == ["d, DCN: “ctr” is better than plain by +0.0100 [+0.0010, +0.0190] in test AUC."]
    assert "is worse than plain by -0.0100" in said(*of(-0.01, 0.02))[0]
    assert "no difference between “ctr” and plain is shown: +0.0100" in said(*of(0.01, 0.06))[0]
    assert "which so few seeds can't tell from chance" in said(*of(0.01, None))[0]
    assert said(*of(0.01, 0.02, at_ends=["epochs"]))[0].endswith("The plain model is marked †.")
    assert (
        "own texts instead of others' it is +0.0040" in said(of(0, 1)[0], of(0.1, 0.2)[1] | {"vs_others_auc": 0.004})[0]
    )
    assert said(row("DCN", "plain", None)) == [
        "Nothing can be said of texts: there is no plain model with an arm with text beside it."
    ]
    several = [of(0.01, 0.001, "A"), of(-0.01, 0.002, "B"), of(0.01, 0.04, "C", logloss=0.7), of(0.1, None, "D")]
    first, *rest = said(*chain(*several))  # C's p is 0.04 as it stands, and among those of three models, too
    assert first.startswith("Of 4 models 2 gain in test AUC") and "1 lose, and 1 show no difference" in first
    assert "1 of the plain models are marked: a gain over these is no gain" in first and len(rest) == 3
    twice = [of(0.01, 0.03, name) for name in "ABCD"]  # 0.12 after Holm's correction
    assert said(*chain(*twice))[0].startswith("Of 4 models 0 gain") and len(said(*chain(*twice))) == 1


# -- as files ----------------------------------------------------------------------------------------------


def test_pages_load_and_execute_nothing(record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for text in (run_page(record), comparison_page(rows, draw_all(rows))):
        page = Page(text)
        assert not page.elements & {"script", "iframe", "object", "link rel=stylesheet"}
        assert all(address.startswith("data:") for address in page.addresses)
        assert "default-src 'none'" in text and 'name="viewport"' in text and "@import" not in text
        assert "url(" not in text


def test_words_of_others_stay_words(record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    record["example_texts"] = [{EVIL: EVIL}]
    record["arguments"] = [f"--dataset={EVIL}"]
    record["configuration"] |= {"dataset": EVIL, "language_model": EVIL, "threshold": {EVIL: 3}, "mask_ratio": EVIL}
    record["defaults"]["mask_ratio"] = record["versions"]["torch"] = EVIL
    of_run = run_page(record)
    evil = [row | {"data": EVIL, "model": EVIL, "label_rule": EVIL, "commands": json.dumps([EVIL])} for row in rows]
    of_comparison = comparison_page(evil, draw_all(rows))
    for text, least in ((of_run, 6), (of_comparison, 6)):
        page = Page(text)
        assert not page.elements & {"script", "onerror"} and all(one.startswith("data:") for one in page.addresses)
        assert page.words.count("<script>alert(1)</script>") >= least


def test_a_browser_shows_them_without_complaint(
    record: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    record["example_texts"][0] = {"user": "word" * 200, "item": EVIL}
    Path("result.html").write_text(run_page(record))
    Path("report.html").write_text(comparison_page(rows, draw_all(rows)))
    with Browser(tmp_path / "profile") as browser:
        for name, width in product(("result.html", "report.html"), (1200, 375)):
            browser.open(Path(name), width)
            assert browser.complaints == [] and browser.asked == []
            shown = browser.evaluate("document.documentElement.scrollWidth")
            assert shown <= width == browser.evaluate("innerWidth"), f"{name} is {shown} wide"
            assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 100)")
            wide = browser.evaluate(f"[...document.querySelectorAll('table')].some(one => one.scrollWidth > {width})")
            assert wide == (width == 375 or name == "report.html")  # these scroll by themselves
            browser.screenshot(Path("page.png"))
            assert Path("page.png").stat().st_size > 50_000


def test_a_browser_that_finds_fault_says_so(tmp_path: Path) -> None:
    text = '<meta name="viewport" content="width=device-width"><div style="width: 900px">wide</div>'
    Path("bad.html").write_text(text + "<script>console.error('bad')</script><img src='http://example.org/x.png'>")
    with Browser(tmp_path / "profile") as browser:
        browser.open(Path("bad.html"), 375)
        assert any("bad" in complaint for complaint in browser.complaints)
        assert browser.asked == ["http://example.org/x.png"]
        assert browser.evaluate("document.documentElement.scrollWidth") > 375
