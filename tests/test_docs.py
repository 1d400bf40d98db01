"""README and docs: their tables come from result files, their examples run, their keys exist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from recbole.data import create_dataset, data_preparation

from recbole_alt.cli.dispatch import main
from recbole_alt.config import ALTConfig, properties_dir
from recbole_alt.data.template import build_template
from recbole_alt.families import FAMILIES
from recbole_alt.model.captures import CAPTURES, Captures
from recbole_alt.reporting.report import read_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def module_of(script: str) -> Any:
    """A script of ``docs``, imported."""
    spec = importlib.util.spec_from_file_location(script, ROOT / "docs" / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = module_of("update_tables").PAGES


def yaml_blocks(page: Path) -> list[dict]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_made_from_their_files(page: Path) -> None:
    assert module_of("update_tables").update(page.read_text()) == page.read_text(), "run python docs/update_tables.py"


def test_the_table_of_load() -> None:
    measured = [{"rows": 1000, "clients": 8, "p50_ms": 12.34, "p99_ms": 56.78, "requests_per_second": 90.4}]
    record = {"cores": 2, "workers": 1, "model": "ALT_DCN", "versions": {"numpy": "2.0"}, "measured": measured}
    text = module_of("update_tables").load_block("load.json", record)
    assert "\npython benchmarks/load.py served --json=load.json\n" in text
    assert "\n| 1,000 | 8 | 12.34 | 56.78 | 90 | 90,400 |\n" in text
    assert "ALT_DCN; processes of the service: 1; cores, which its clients share: 2." in text
    text = module_of("update_tables").load_block("load.json", record | {"workers": 2})
    assert "--json=load.json --workers=2\n" in text


def test_results_are_rows_and_runs_only_and_agree() -> None:
    campaigns = [file.parent for file in RESULTS.glob("*/results.json")]
    assert len(campaigns) > 5
    for campaign in campaigns:
        assert {file.name for file in campaign.iterdir()} == {"results.json", "runs.csv"}, campaign
        rows = read_rows(campaign / "results.json")
        runs = pd.read_csv(campaign / "runs.csv", dtype={"language_model": str}, keep_default_na=False)
        for row in rows:
            cell = runs[(runs.model == row["model"]) & (runs.variant == row["variant"]) & (runs.stage == row["stage"])]
            assert sorted(map(str, cell.seed)) == sorted(row["seeds"].split()), f"{campaign}: {row['model']}"
            auc = pd.to_numeric(cell.auc)
            assert [row["auc"], row["auc_sd"]] == pytest.approx([auc.mean(), auc.std()], abs=1e-6)
    assert sum(file.stat().st_size for file in RESULTS.rglob("*") if file.is_file()) < 1.2e6


def test_every_plot_is_drawn_by_the_script() -> None:
    drawn = module_of("update_tables").DRAWN
    assert {file.name for file in (ROOT / "docs" / "plots").iterdir()} == {f"{name}.svg" for name in drawn}
    for file, _ in drawn.values():
        assert (RESULTS / file).is_file()


def test_readme_has_a_table_with_figures() -> None:
    text = (ROOT / "README.md").read_text()
    assert re.search(r"\| plain +\| +0\.\d{4}", text)
    assert re.search(r"\| joint +\| +0\.\d{4}", text)


def headings(page: Path) -> list[str]:
    """The anchors that a page's headings have where it is read."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for name, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not heading or heading in headings(target), f"{name}#{heading}"


def test_no_key_is_dead() -> None:
    code = "\n".join(file.read_text() for file in (ROOT / "recbole_alt").rglob("*.py"))
    host = {"eval_batch_size", "metrics", "learner", "embedding_size", "mlp_hidden_size", "metric_decimal_place",
            "train_batch_size", "stopping_step", "valid_metric", "epochs", "learning_rate", "weight_decay"}  # fmt: skip
    for key in set(yaml.safe_load((properties_dir() / "overall.yaml").read_text())) - host:
        group = re.match(r"(language|embedding)_(learning_rate|weight_decay)$", key)
        assert re.search(rf"[\"']{key}[\"']", code) or (group and f'_{group[2]}"' in code), key


def test_own_data_example(tmp_path: Path) -> None:
    example = next(block for block in yaml_blocks(ROOT / "README.md") if "load_col" in block)
    folder = tmp_path / "mydata"
    folder.mkdir()
    rows = "".join(f"u{i % 6}\ti{i % 7}\t{i % 2}\n" for i in range(400))
    (folder / "mydata.inter").write_text("user_id:token\titem_id:token\tlabel:float\n" + rows)
    users = "".join(f"u{i}\t{20 + i}\tOslo\n" for i in range(6))
    (folder / "mydata.user").write_text("user_id:token\tage:token\tcity:token\n" + users)
    items = "".join(f'i{i}\tshoes\tA "fine" pair, number {i}\n' for i in range(7))
    (folder / "mydata.item").write_text("item_id:token\tcategory:token\tdescription:token\n" + items)
    (tmp_path / "mydata.yaml").write_text(yaml.safe_dump(example))
    config = ALTConfig("ALT_DCN", "mydata", [str(tmp_path / "mydata.yaml")], {"data_path": str(tmp_path)})
    train = data_preparation(config, create_dataset(config))[0]._dataset
    user, item = train.prompts.texts(train[:1])[0]
    assert "city is oslo." in user and "years old." in user
    assert "sold under shoes." in item and '" fine " pair' in item


def test_template_example_of_the_docs() -> None:
    example = next(block for block in yaml_blocks(ROOT / "docs" / "data.md") if "order" in block.get("template", {}))
    sources = {"age": "user", "gender": "user", "zip_code": "user", "class": "item"}
    template = build_template(example["template"], sources, scope="entity")
    assert [segment.text({"age": "24", "gender": "male", "class": "Drama"}) for segment in template.segments] == [
        "A user whose gender is male. age is 24.",
        "A movie whose genre is Drama.",
    ]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--model=ALT_DNC"], "ALT_DCN"),
        (["--finetune_modes=[ctr]", "--objectives=[contrastiv]"], "contrastive"),
        (["--dataset=nowhere"], "nowhere"),
        (["--language_model=no-such-model", "--finetune_modes=[lm]"], "no-such-model"),
        (["resume"], "--key=value"),
        (["--epochs", "5"], "--epochs=5"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], what: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # which would ask again and again, offline
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["--state=ERROR", *arguments], command="run"))
    assert ended.value.code == 2
    error = capfd.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: ") and what in last
    assert "Traceback" not in error


def test_the_script_ends_in_that_line() -> None:
    words = [sys.executable, str(ROOT / "run_recbole_alt.py"), "--model=ALT_DNC"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


def test_models_page_names_every_model() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    for name, captures in CAPTURES.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `ALT_{name}` "))
        if isinstance(captures, Captures):  # else it takes a built model to tell
            assert all(f"`{point.module}`" in line for point in captures.representation)
            assert captures.note in line
            assert {"never", "yes", "no"} & set(line.split(" | ")) == {joined(captures)}


def test_models_page_names_every_family_of_language_models() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    for kind, family in FAMILIES.items():
        assert f"| {family.name} | `{kind}` |" in text


def joined(captures: Captures) -> str:
    return "never" if captures.field_embeddings is None else "yes" if captures.join else "no"


def test_models_page_is_made_by_its_script() -> None:
    script = module_of("list_models")
    text = (ROOT / "docs" / "models.md").read_text()
    assert text.startswith(script.HEAD) and f"\n| {' | '.join(script.BACKBONES)} |\n" in text
    assert script.AFTER_BACKBONES in text
    for name in ("LR", "KD_DAGFM"):
        assert f"\n| {' | '.join(script.backbone_row(name))} |\n" in text, "run python docs/list_models.py"


def test_keys_page_is_made_by_its_script() -> None:
    assert (ROOT / "docs" / "keys.md").read_text() == module_of("list_keys").page(), "run python docs/list_keys.py"


def test_reliability_page_is_made_from_its_result() -> None:
    record = json.loads((RESULTS / "reliability.json").read_text())
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert text == module_of("update_reliability").page(record), "run python docs/update_reliability.py"
    assert all(one["passed"] for one in record["tries"])
