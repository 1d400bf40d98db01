"""New users and items for a finished run: known ids keep their numbers and scores, new ones follow their texts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pages import DOCS, ROOT, blocks
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from test_docs import module_of
from test_predict import EVERYTHING, described, rows

import recbole_alt
from recbole_alt import Extension, checkpoints, extend, load_data_and_model, predict, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.exporting import to_recbole
from recbole_alt.model.build import load_text_vectors
from recbole_alt.model.captures import CAPTURES
from recbole_alt.model.growing import rows_by_field

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]

IN_CI = ("DCN", "DSSM", "FFM", "LR")
BACKBONES = [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in CAPTURES]

NEW_ITEMS = """item_id:token\ttitle:token_seq\tyear:token\tgenre:token_seq\tlength:float\tprice:float\tscores:float_seq
x1\tToy Story 2\t1995\tAnimation Comedy\t\t\t8.6 3
x2\tThe Crime of the Night\t1967\tCrime\t\t\t
"""
NEW_USERS = """user_id:token\tage:token\tgender:token\theight:float\tincome:float\tvisits:float_seq
v1\t24\tF\t\t\t4
"""


@pytest.fixture
def new(tmp_path: Path) -> dict[str, str]:
    """Files about two new items and a new user."""
    (tmp_path / "new.item").write_text(NEW_ITEMS)
    (tmp_path / "new.user").write_text(NEW_USERS)
    return {"item": "new.item", "user": "new.user"}


@pytest.fixture
def run(keys: Keys) -> Callable[..., str]:
    """``run(model, **keys)`` → the folder of a short run."""

    def make(model: str = "DCN", **changes: Any) -> str:
        given = {"epochs": 1, "order_list": [4]} | changes
        return str(run_recbole_alt(f"ALT_{model}", "tiny", None, keys(**given))["folder"])

    return make


def new_rows() -> pd.DataFrame:
    """Every pair of a known and a new user with a known and a new item, on a phone."""
    pairs = [(user, item) for user in ("u1", "u3", "v1") for item in ("i2", "x1", "x2")]
    return pd.DataFrame(pairs, columns=["user_id", "item_id"]).assign(device="phone", dwell="3")


def tables(file: Path, name: str) -> list[torch.Tensor]:
    """The rows of all ids of a field, in each of the model's tables that holds any."""
    _, model, _, train, *_ = load_data_and_model(file)
    size = train._dataset.num(name)
    found = rows_by_field(model.backbone, train._dataset)[name]
    return [table.weight[first : first + size].detach() for table, first in found.items()]


# -- scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_old_scores_stay_and_new_ids_score_as_in_recbole(
    name: str, run: Callable[..., str], new: dict[str, str], data_path: Path, tmp_path: Path
) -> None:
    items = shutil.copytree(data_path, tmp_path / "data") / "tiny" / "tiny.item"
    items.write_text(items.read_text().replace('"', ""))  # which plain RecBole can't read
    folder = run(name, finetune_modes=[], data_path=str(tmp_path / "data"))
    extend(folder, "new", **new)
    before, after = (load_data_and_model(Path(one, "plain.pth")) for one in (folder, "new"))
    for field, tokens in before[2].field2id_token.items():
        assert np.array_equal(after[2].field2id_token[field][: len(tokens)], tokens)
    assert [after[2].token2id("item_id", one) for one in ("x1", "x2")] == [6, 7]
    assert np.array_equal(predict(folder, rows(8)).scores, predict("new", rows(8)).scores)
    found = predict("new", new_rows())
    assert found.new_values == {}
    batch = after[3]._dataset.join(batch_of(after[2], new_rows()))
    ours = after[1].eval().predict(batch).detach().numpy()
    assert np.array_equal(found.scores, ours)
    to_recbole("new/plain.pth", "plain.pth")
    config = Config(config_file_list=["plain.pth.yaml"])  # stock RecBole
    init_seed(config["seed"], config["reproducibility"])
    train = data_preparation(config, create_dataset(config))[0]._dataset
    plain = get_model(config["model"])(config, train)
    plain.load_state_dict(checkpoints.load("plain.pth")["state_dict"])
    theirs = plain.eval().predict(train.join(batch_of(train, new_rows()))).detach().numpy()
    assert np.array_equal(theirs.reshape(-1), ours)


def batch_of(dataset: Any, frame: pd.DataFrame) -> Any:
    ids = {name: dataset.token2id(name, frame[name].to_numpy()) for name in ("user_id", "item_id", "device")}
    return recbole_alt.data.dataset.Interaction(ids)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_every_mode(scope: str, run: Callable[..., str], new: dict[str, str]) -> None:
    folder = run(**EVERYTHING, prompt_scope=scope, text_field=["item"] if scope == "entity" else [])
    found = extend(folder, "new", **new)
    assert set(found.by_neighbours) == {"plain", "ctr", "joint"}
    for mode in ("plain", "ctr", "lm", "joint"):
        assert np.array_equal(predict(folder, rows(8), mode=mode).scores, predict("new", rows(8), mode=mode).scores)
        of_new = predict("new", new_rows(), mode=mode)
        assert np.isfinite(of_new.scores).all() and of_new.new_values == {}
    sources = {"items": new["item"], "users": new["user"]}
    before = predict(folder, new_rows(), mode="lm", **sources)  # the language model knows nothing but the texts
    np.testing.assert_allclose(predict("new", new_rows(), mode="lm").scores, before.scores, rtol=1e-6)


def test_known_texts_keep_their_order(run: Callable[..., str]) -> None:
    """Numbers in words, too: sums over texts then have the same bits."""
    folder = run(finetune_modes=[], load_col=EVERYTHING["load_col"])
    users = described(NEW_USERS).assign(height="1.675", visits="1 2")
    extend(folder, "new", user=users)
    before, after = (load_data_and_model(Path(one, "plain.pth"))[2] for one in (folder, "new"))
    assert "height" in before.field_words and before.field_words["height"].words[-1] != "1.675"
    for name, field in before.field_words.items():
        grown, ids = after.field_words[name], {field.key: before.inter_feat[field.key]}
        assert grown.words[: len(field.words)] == field.words
        assert np.array_equal(grown.read(ids), field.read(ids))
    assert after.field_words["height"].words[-1] == "1.675"


@pytest.mark.slow
def test_a_student_that_was_warmed_up(run: Callable[..., str], new: dict[str, str]) -> None:
    teacher = run("KD_DAGFM", finetune_modes=[])
    folder = run("KD_DAGFM", finetune_modes=["ctr"], phase="finetuning", warm_up=f"{teacher}/plain.pth")
    extend(folder, "new", **new)
    shutil.rmtree(teacher)
    assert np.array_equal(predict(folder, rows(8)).scores, predict("new", rows(8)).scores)
    assert main(["diagnose", "new"]) == 0


# -- embeddings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DCN", "FFM", pytest.param("DSSM", marks=pytest.mark.slow)])
def test_without_a_map_new_ids_are_where_their_neighbours_are(name: str, run: Callable[..., str]) -> None:
    folder = run(name, finetune_modes=[], epochs=2)
    items = described(ITEMS_AGAIN)
    found = extend(folder, "new", item=items, neighbours=1)
    known, grown = tables(Path(folder, "plain.pth"), "item_id"), tables(Path("new/plain.pth"), "item_id")
    assert len(known) == len(grown) == found.by_neighbours["plain"]["item"] > 1
    for before, after in zip(known, grown, strict=True):
        assert torch.equal(after[1 : len(before)], before[1:])
        assert torch.equal(after[6], before[4]) and torch.equal(after[7], before[1])  # of the same texts
    extend(folder, "mean", item=items, neighbours=3)
    for before, after in zip(known, tables(Path("mean/plain.pth"), "item_id"), strict=True):
        assert not torch.equal(after[6], before[4])
        low, high = before[1:].min(0).values, before[1:].max(0).values
        assert ((after[6:] >= low - 1e-6) & (after[6:] <= high + 1e-6)).all()


ITEMS_AGAIN = """item_id:token\ttitle:token_seq\tyear:token\tgenre:token_seq
x4\tSe7en\t1995\tCrime Thriller
x1\tToy Story\t1995\tAnimation Comedy
"""


def test_grounded_ids_are_where_the_map_puts_their_texts(run: Callable[..., str], new: dict[str, str]) -> None:
    folder = run(finetune_modes=["ctr"], grounded=["item"])
    found = extend(folder, "new", **new)
    assert found.by_map == {stage: {"item": 1, "user": 0} for stage in ("plain", "ctr")}
    assert found.by_neighbours["ctr"]["item"] == 1  # the first-order weights
    for stage in ("plain", "ctr"):
        state = checkpoints.load(Path("new", f"{stage}.pth"))
        ((path, weight),) = state["grounding_maps"]["item"].items()
        assert weight.any()
        config, model, _, train, *_ = load_data_and_model(Path("new", f"{stage}.pth"))
        vectors = load_text_vectors(config, train._dataset, "item", "extend")
        size = train._dataset.num("item_id")
        first = rows_by_field(model.backbone, train._dataset)["item_id"][model.backbone.model.get_submodule(path)]
        embedded = model.backbone.model.get_submodule(path).weight[first : first + size]
        assert vectors[6:].any()
        torch.testing.assert_close(embedded[6:], vectors[6:] @ weight.T)
    again = extend("new", "again", item=described(ITEMS_AGAIN).replace({"x1": "y1", "x4": "y4"}))
    assert again.by_map["ctr"] == {"item": 1}


@pytest.mark.parametrize("unseen", ["zero", "hidden", pytest.param("initial", marks=pytest.mark.slow)])
def test_other_new_values(unseen: str, run: Callable[..., str]) -> None:
    folder = run(finetune_modes=["ctr"], unseen_values=unseen, plain_baseline=False)
    items = described(ITEMS_AGAIN).assign(year=["2031", None], genre=["Crime Anime", "Romance"])
    found = extend(folder, "new", item=items)
    assert found.new_values == {"year": 1, "genre": 1}
    assert "members of genre, which are new to the run" in " ".join(found.left_out)
    assert "year: 1 value new to the run" in found.summary()
    for known, grown in zip(tables(Path(folder, "ctr.pth"), "year"), tables(Path("new/ctr.pth"), "year"), strict=True):
        assert torch.equal(known[1:], grown[1:-1])
        assert torch.equal(grown[-1], torch.zeros_like(grown[-1]) if unseen == "zero" else known[0])
    # but for the ids' own embeddings, the new items score as predict scores them without an extension
    _, model, dataset, train, *_ = load_data_and_model("new/ctr.pth")
    for table, first in rows_by_field(model.backbone, train._dataset)["item_id"].items():
        table.weight.data[first + 6 : first + 8] = 0 if unseen == "zero" else table.weight.data[first]
    frame = rows(1)[lambda f: f.item_id.isin(["i1", "i4"]) & f.device.notna()].replace({"i1": "x1", "i4": "x4"})
    scores = model.eval().predict(train._dataset.join(batch_of(dataset, frame))).detach().numpy()
    np.testing.assert_allclose(scores, predict(folder, frame, mode="ctr", items=items).scores, rtol=1e-5)


def test_padding_is_no_value_that_the_run_knows(run: Callable[..., str]) -> None:
    folder = run(finetune_modes=[])
    items = described(ITEMS_AGAIN).replace({"x4": "[PAD]"}).assign(genre="Crime [PAD]")
    found = extend(folder, "new", item=items)
    assert found.added == {"item": 2} and found.new_values == {"genre": 1}
    assert predict("new", rows(1).assign(item_id="[PAD]")).new_values == {}
    assert np.array_equal(predict(folder, rows(8)).scores, predict("new", rows(8)).scores)


# -- the new run -------------------------------------------------------------------------------------------


def test_every_command_takes_it(
    run: Callable[..., str], new: dict[str, str], keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(finetune_modes=["joint"])
    assert main(["extend", folder, "--out=new", "--item=new.item", "--user=new.user", "--neighbours=3"]) == 0
    printed = capsys.readouterr().out
    assert "new: 1 user and 2 items added to" in printed
    assert "joint: new items have embeddings by the softmax-weighted mean of the 3 nearest known items" in printed
    assert "passed over, as the run does not read them: height, income, visits, length, price, scores" in printed
    new_rows().to_csv("rows.csv", index=False)
    assert main(["predict", "new", "rows.csv", "--out=scores.csv", "--mode=joint"]) == 0
    assert main(["export", "new/joint.pth", "--recbole=plain.pth", "--huggingface=text"]) == 0
    assert main(["probe", "new"]) == 0
    assert main(["diagnose", "new"]) == 0
    with pytest.raises(ValueError, match="resume: 'new' was made by extending a finished run"):
        run(finetune_modes=["joint"], resume="new")
    assert [file.name for file in Path().glob("*.partial")] == []
    given = recbole_alt.checkpoints.load("new/joint.pth")["config"]
    shutil.rmtree(folder)
    assert Path(given["data_path"]) == Path("new/data/tiny-extended")


def test_onnx_has_the_new_ids(run: Callable[..., str], new: dict[str, str]) -> None:
    pytest.importorskip("onnxscript", reason="the export needs the extra onnx")
    from recbole_alt.serving import to_onnx

    extend(run(finetune_modes=[]), "new", **new)
    written = to_onnx("new/plain.pth", "served")
    assert written.differences["model.onnx"] is None or written.differences["model.onnx"] < 1e-5
    assert np.load("served/item.npz")["year"].shape == (8,)


@pytest.mark.parametrize(
    "filters",
    [
        {"item_inter_num_interval": "[1,inf)", "user_inter_num_interval": "[1,inf)"},
        {"val_interval": {"year": ["1967", "1995"]}, "rm_dup_inter": "last", "valid_metric": "LogLoss"},
    ],
    ids=["by number", "by value"],
)
def test_filters_leave_new_ids_in(filters: dict[str, Any], run: Callable[..., str]) -> None:
    folder = run(finetune_modes=[], **filters, filter_inter_by_user_or_item=True)
    extend(folder, "new", item=described(ITEMS_AGAIN).assign(year="2001"))
    known = predict(folder, rows(8))
    found = predict("new", rows(8))
    assert np.array_equal(known.scores, found.scores) and known.new_values == found.new_values
    assert "item_id" not in predict("new", rows(1).assign(item_id="x4")).new_values


def test_parts_that_are_split_already(run: Callable[..., str], tmp_path: Path, data_path: Path) -> None:
    folder = shutil.copytree(data_path, tmp_path / "data") / "tiny"
    header, *lines = (folder / "tiny.inter").read_text().splitlines()
    for part, (start, end) in {"train": (0, 120), "valid": (120, 140), "test": (140, 160)}.items():
        (folder / f"tiny.{part}.inter").write_text("\r\n".join([header, *lines[start:end]]))
    parts = {"benchmark_filename": ["train", "valid", "test"], "data_path": str(tmp_path / "data")}
    made = run(finetune_modes=[], **parts)
    extend(made, "new", item=described(ITEMS_AGAIN))
    assert np.array_equal(predict(made, rows(8)).scores, predict("new", rows(8)).scores)
    assert len(list(Path("new/data/tiny-extended").glob("*.inter"))) == 3


def test_numbers_and_long_sequences(run: Callable[..., str], new: dict[str, str]) -> None:
    """New numbers change neither the range of the known ones nor the width of sequences."""
    folder = run(**EVERYTHING, finetune_modes=[])
    items = pd.read_csv("new.item", sep="\t", dtype=str).rename(columns=lambda name: name.split(":")[0])
    items["scores"] = ["99 1 2 3 4 5 6", None]
    items["genre"] = ["Crime Comedy Thriller Romance", "Crime"]
    found = extend(folder, "new", item=items)
    assert found.left_out["members of genre behind the first 2, which the run's longest one has"] == 2
    assert found.left_out["members of scores behind the first 3, which the run's longest one has"] == 4
    assert found.left_out["numbers of scores beyond those of the run, which became the nearest of these"] == 1
    assert np.array_equal(predict(folder, rows(8)).scores, predict("new", rows(8)).scores)
    dataset = load_data_and_model("new/plain.pth")[2]
    assert dataset.item_feat["scores"][6, :, 0].max() == 1  # the greatest of the run
    assert dataset.item_feat["genre"].shape == (8, 2)


def test_ids_that_would_change_are_refused(run: Callable[..., str], tmp_path: Path, data_path: Path) -> None:
    """Values that are numbered behind those of the items, as they are of another column."""
    users = shutil.copytree(data_path, tmp_path / "data") / "tiny" / "tiny.user"
    header, *lines = users.read_text().splitlines()
    users.write_text(
        "\n".join([f"{header}\tliked:token", *(f"{line}\ti{n + 7}" for n, line in enumerate(lines))]) + "\n"
    )
    columns = EVERYTHING["load_col"] | {"user": ["user_id", "age", "liked"]}  # type: ignore[operator]
    given = {"data_path": str(tmp_path / "data"), "load_col": columns, "alias_of_item_id": ["liked"]}
    folder = run(finetune_modes=[], **given)
    with pytest.raises(ValueError, match="column 'item_id': its values would have other ids"):
        extend(folder, "new", item=described(NEW_ITEMS))
    assert not list(tmp_path.glob("new*"))


def test_bad_input_is_one_line(
    run: Callable[..., str], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"gender": {"M": "male", "F": "female"}}
    folder = run(**EVERYTHING, finetune_modes=[], template={"values": values})
    files = {path: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}

    def refused(match: str, out: str = "out", **sources: Any) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            extend(folder, out, **sources)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("out*"))

    def changed(text: str, before: str, after: str, name: str = "bad.item") -> str:
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after))
        return name

    refused("nothing to do: give new items")
    for number in (0, 1.5, "10", None, True):
        what = f"neighbours must be a whole number, 1 or more, not {number!r}"
        refused(what, item="new.item", neighbours=number)
    refused("item must be a pandas DataFrame, or the name of a file, not a dict", item={"item_id": ["x1"]})
    refused(r"bad\.item, line 3: column 'item_id' 'i2' is an id that the run knows already: leave the row out",
            item=changed(NEW_ITEMS, "x2", "i2"))  # fmt: skip
    refused(r"bad\.item, line 3: column 'item_id' 'x1' has the id of bad\.item, line 2: leave one of them out",
            item=changed(NEW_ITEMS, "x2", "x1"))  # fmt: skip
    refused(r"bad\.item, line 2: column 'item_id' is empty: give each row an id", item=changed(NEW_ITEMS, "x1", ""))
    refused(r"bad\.item has no column 'year', which the run reads; it has .*: add it",
            item=changed(NEW_ITEMS, "year", "jahr"))  # fmt: skip
    refused(r"bad\.item, line 1: column 'year' is of type float, and token in the run",
            item=changed(NEW_ITEMS, "year:token", "year:float"))  # fmt: skip
    refused(r"bad\.item, line 3: column 'item_id' 'x2' has no text: fill .*title",
            item=changed(NEW_ITEMS, "The Crime of the Night\t1967\tCrime", "\t\t"))  # fmt: skip
    refused(
        r"the frame of items, row 2: column 'item_id' 'x2' has no text: fill .*title",
        item=described(NEW_ITEMS).iloc[:2].assign(title=["Heat", " "], year=["1995", "  "], genre=["Crime", [" "]]),
    )
    refused(r"bad\.item, line 2: column 'scores' holds no finite numbers.*'good'",
            item=changed(NEW_ITEMS, "8.6 3", "good"))  # fmt: skip
    refused(r"bad\.user, line 2: column 'gender' 'X' has no name in template.values.gender: write one of M, F",
            user=changed(NEW_USERS, "F", "X", "bad.user"))  # fmt: skip
    refused(r"the frame of items, row 1: column 'year' '19\\t95' holds a separator or a line break",
            item=described(NEW_ITEMS).assign(year="19\t95"))  # fmt: skip
    refused(r"bad\.item, line 2: column 'length' '81.0' is a number, and gaps .*: leave the column empty",
            item=changed(NEW_ITEMS, "Comedy\t\t", "Comedy\t81\t"))  # fmt: skip
    refused("the frame of items has no rows: give one at least", item=described(NEW_ITEMS)[:0])
    refused("'none.item' does not exist", item="none.item")
    (tmp_path / "taken").mkdir()
    refused("out: 'taken' is there already: give a new folder", out="taken", item="new.item")
    assert main(["extend", "nowhere", "--out=out", "--item=new.item"]) == 2
    assert "holds no finetuned model" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()} == files


def test_runs_that_say_nothing_of_a_side_are_refused(run: Callable[..., str], new: dict[str, str]) -> None:
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp", "device"], "item": ["item_id", "year"]}
    folder = run(finetune_modes=[], load_col=columns, prompt_only=None)
    with pytest.raises(ValueError, match=r"user: the run has read no \.user file"):
        extend(folder, "out", user="new.user")
    folder = run(finetune_modes=[], template={"exclude": ["user_id", "item_id", "age", "gender"]})
    with pytest.raises(ValueError, match="user: the users of the run have no text"):
        extend(folder, "out", user="new.user")
    folder = run(finetune_modes=[], shuffle_texts="item")
    with pytest.raises(ValueError, match="texts dealt out to others"):
        extend(folder, "out", item="new.item")
    assert isinstance(Extension("a", "b", 3).summary(), str)


# -- docs and benchmark ------------------------------------------------------------------------------------


def test_the_program_of_the_page(run: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for block in blocks(DOCS / "extending.md") if block.file == "extend.py")
    text, folder = block.text, run(finetune_modes=[])
    changes = {"saved/ALT_DCN-ml-100k-…": folder, "movie_title": "title", "release_year": "year", "class": "genre"}
    for before, after in (changes | {"196": "u1", '["new"]})': '["new"], "device": ["phone"]})'}).items():
        assert before in text
        text = text.replace(before, after)
    exec(compile(text, "extend.py", "exec"), {})
    printed = capsys.readouterr().out
    assert "saved/extended: 1 item added to" in printed and "year: 1 value new to the run" in printed


@pytest.mark.slow
@pytest.mark.parametrize("data", ["book-crossing", "book-crossing-explicit"])
def test_the_benchmark(data: str, data_path: Path, small_bert: str, tmp_path: Path) -> None:
    """On made-up data in the form of BookCrossing."""
    users, items = [f"u{n}" for n in range(12)], [f"b{n}" for n in range(40)]
    folder = tmp_path / "own" / "book-crossing"
    folder.mkdir(parents=True)
    lines = [f"{u}\t{b}\t{(i * 7 + j * 3) % 11}" for i, u in enumerate(users) for j, b in enumerate(items)]
    header = {
        "inter": "user_id:token\titem_id:token\trating:float",
        "user": "user_id:token\tlocation:token\tage:float",
        "item": "item_id:token\tbook_title:token\tbook_author:token\tpublication_year:token\tpublisher:token",
    }
    bodies = {
        "inter": lines,
        "user": [f"{u}\tTown {i}\t{20 + i}" for i, u in enumerate(users)],
        "item": [f"{b}\tBook {i}\tWriter {i % 5}\t{1990 + i % 9}\tHouse {i % 3}" for i, b in enumerate(items)],
    }
    for suffix, body in bodies.items():
        (folder / f"book-crossing.{suffix}").write_text("\n".join([header[suffix], *body]) + "\n")
    words = ["--json=out.json", f"--data_path={folder.parent}", "--work=work", f"--only={data}", "--seeds=2"]
    words += ["--trials=2", "--tuning_seeds=1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "extending.py"), *words]
    for _ in range(2):  # the second time everything is there
        printed = subprocess.run(
            command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        ).stdout
    assert "seed" not in printed
    (entry,) = json.loads(Path("out.json").read_text())
    tried = [json.loads(file.read_text()) for file in Path("work", data).glob("*.json")]
    known = Path("work", f"{data}-2020", "book-crossing", "book-crossing.inter").read_text()
    assert any(line.endswith("\t0") for line in known.splitlines()) == (data == "book-crossing")
    for arm in entry["arms"].values():
        kind = "grounded" if arm is entry["arms"]["grounded"] else "plain"
        of_kind = [one for one in tried if one["seed"] == 2020 and one["kind"] == kind]
        if arm in (entry["arms"]["neighbours"], entry["arms"]["grounded"]):
            assert arm["valid"][0] == max(one["auc"]["valid"]["extended"] for one in of_kind)
        assert len(arm["test"]) == 2 and all(0 <= auc <= 1 for auc in arm["valid"] + arm["test"])
    assert {one["kind"] for one in tried} == {"plain", "grounded"}
    drawn = [
        [one["parameters"] for one in tried if (one["kind"], one["seed"]) == (kind, 2020)]
        for kind in ("plain", "grounded")
    ]
    assert sorted(map(str, drawn[0])) == sorted(map(str, drawn[1]))  # the same draws for all
    table = module_of("update_tables").extending_table([entry])
    assert table.splitlines()[2].startswith(f"| {data} | 100% | plain") and "Holm" in table
