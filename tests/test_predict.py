"""Scores of any rows: a run's own test rows as the run scored them, new ids and values, and texts of new entities."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ITEMS, USERS, interactions

import recbole_alt
from recbole_alt import Prediction, predict, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.experiment import Experiment
from recbole_alt.prediction.rows import NewRows
from recbole_alt.scores import Scores

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]

STAGES = ("plain", "ctr", "lm", "joint")
#: Every kind of column: of the rows, the users and the items, numbers normalised, in buckets, with gaps.
EVERYTHING = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating", "timestamp", "device", "dwell"],
        "user": ["user_id", "age", "gender", "height", "income", "visits"],
        "item": ["item_id", "year", "genre", "length", "price", "scores"],
    },
    "numerical_features": ["dwell", "height", "income", "length", "price", "visits", "scores"],
    "normalize_field": ["dwell", "price", "income", "visits", "scores"],
    "discretization": {"height": {"method": "ED", "bucket": 3}, "length": {"method": "LD"}},
    "eval_batch_size": 7,
}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Scores]]:
    """Stage → the test scores of the runs that are made."""
    scores: dict[str, Scores] = {}
    original = Experiment._test

    def keep(self: Experiment, trainer: Any, stage: str, progress: bool) -> Any:
        result = original(self, trainer, stage, progress)
        scores[stage] = trainer.scores
        return result

    monkeypatch.setattr(Experiment, "_test", keep)
    yield scores


def rows(copies: int = 8, **changes: Any) -> pd.DataFrame:
    """The interactions of ``tiny`` as a frame of texts, without what the label is made from."""
    lines = [line.split("\t") for line in interactions(copies).splitlines()]
    frame = pd.DataFrame(lines[1:], columns=[name.split(":")[0] for name in lines[0]])
    return frame.drop(columns="rating").replace("", np.nan).assign(**changes)


def test_rows(folder: Path, keys: Any) -> pd.DataFrame:
    """The run's test rows in their order, as the files have them."""
    _, _, dataset, _, _, test = recbole_alt.load_data_and_model(folder / "plain.pth")
    part = test._dataset.inter_feat
    frame = pd.DataFrame({name: dataset.field2id_token[name][part[name]] for name in ("user_id", "item_id", "device")})
    original = rows().set_index(["user_id", "item_id", "timestamp"])
    dwell = original["dwell"].to_dict()
    times = part["timestamp"].numpy().astype(int).astype(str)
    frame["dwell"] = [dwell[(u, i, t)] for u, i, t in zip(frame.user_id, frame.item_id, times, strict=True)]
    frame["device"] = frame["device"].replace("[PAD]", np.nan)
    return frame


test_rows.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "given",
    [
        {"seq_len": {"genre": 1, "scores": 1}},
        pytest.param({"template": {"exclude": []}, "prompt_scope": "interaction"}, marks=pytest.mark.slow),
    ],
)
def test_own_test_rows_score_as_in_the_run(given: dict[str, Any], keys: Keys, kept: dict[str, Scores]) -> None:
    result = run_recbole_alt("ALT_DCN", "tiny", None, keys(**EVERYTHING, **given, epochs=1))
    own = test_rows(Path(result["folder"]), keys)
    assert len(own) > 2 * EVERYTHING["eval_batch_size"]  # type: ignore[operator]
    for stage in STAGES:
        if stage in kept:
            found = predict(result["folder"], own, mode=stage)
            assert np.array_equal(found.scores, kept[stage].score), stage
            assert found.new_values == {}
    assert set(kept) == {"plain", "ctr", "lm", "joint"}


# -- what is new -------------------------------------------------------------------------------------------


def renamed(frame: pd.DataFrame, **names: str) -> pd.DataFrame:
    """``frame`` with other ids: ``renamed(frame, i5="x5")``."""
    return frame.replace({name: names for name in ("user_id", "item_id") if name in frame})


def described(text: str) -> pd.DataFrame:
    """Users or items of ``tiny`` as a frame."""
    lines = [line.split("\t") for line in text.splitlines()]
    return pd.DataFrame(lines[1:], columns=[name.split(":")[0] for name in lines[0]]).replace("", np.nan)


@pytest.fixture
def run(keys: Keys) -> Callable[..., str]:
    """``run(**keys)`` → the folder of a short run."""

    def make(**changes: Any) -> str:
        given = keys(**({"epochs": 1, "unseen_values": "zero"} | changes))
        return str(run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"])

    return make


def scored_with_zeros(file: Path, frame: pd.DataFrame, item: str, *, hidden: bool = False) -> np.ndarray:
    """What the model says of rows of ``item`` if its embedding were zeros, or that of no value."""
    _, model, dataset, *_ = recbole_alt.load_data_and_model(file)
    table = model.backbone.model.token_embedding_table.embedding.weight
    linear = model.backbone.model.first_order_linear.token_embedding_table.embedding.weight
    first = dict(
        zip(model.backbone.model.token_field_names, model.backbone.model.token_embedding_table.offsets, strict=True)
    )
    for weight in (table, linear):
        row = int(first["item_id"]) + dataset.token2id("item_id", item)
        weight.data[row] = weight.data[int(first["item_id"])] if hidden else 0
    ids = {name: dataset.token2id(name, frame[name].to_numpy()) for name in ("user_id", "item_id")}
    ids["device"] = [dataset.field2token_id["device"].get(one, 0) for one in frame["device"]]
    rows = dataset.join(recbole_alt.data.dataset.Interaction({k: np.array(v) for k, v in ids.items()}))  # type: ignore
    return model.eval().predict(rows).detach().numpy()


@pytest.mark.parametrize("unseen", ["zero", "hidden"])
def test_a_new_id_scores_as_one_without_training_rows(unseen: str, run: Callable[..., str]) -> None:
    folder = run(finetune_modes=["ctr"], unseen_values=unseen)
    frame = rows(1)[lambda frame: frame["item_id"].isin(["i2", "i5"])]
    found = predict(folder, renamed(frame, i5="x5"), mode="ctr")
    known = (frame["item_id"] == "i2").to_numpy()
    before = predict(folder, frame, mode="ctr").scores
    np.testing.assert_allclose(found.scores[known], before[known], rtol=1e-6)
    assert not np.allclose(found.scores[~known], before[~known], atol=1e-6)
    assert found.new_values == {"item_id": {"rows": 4, "values": 1}}
    # of i5 the model sees no year and no genre, either: nobody described x5
    nothing = renamed(frame, i5="x5").assign(item_id=lambda f: f.item_id.where(f.item_id != "x5", "x5"))
    items = described(ITEMS)[lambda f: f.item_id == "i5"].assign(item_id="x5")
    with_features = predict(folder, nothing, mode="ctr", items=items)
    expected = scored_with_zeros(Path(folder, "ctr.pth"), frame, "i5", hidden=unseen == "hidden")
    np.testing.assert_allclose(with_features.scores, expected, rtol=1e-5)
    assert with_features.described == {"item": 1}


def test_a_missing_value_is_not_a_new_one(run: Callable[..., str]) -> None:
    """``device`` has gaps in training, so that no value has an embedding of its own; a new value has zeros."""
    folder = run(finetune_modes=[])
    frame = pd.concat([rows(1).iloc[:3]] * 3, ignore_index=True)
    frame["device"] = np.repeat(["phone", None, "watch"], 3)  # type: ignore[list-item]
    found = predict(folder, frame)
    assert found.new_values == {"device": {"rows": 3, "values": 1}}
    phone, missing, new = np.split(found.scores, 3)
    assert not np.allclose(missing, new, atol=1e-7) and not np.allclose(phone, new, atol=1e-7)
    np.testing.assert_allclose(missing, predict(folder, frame.iloc[3:6]).scores, rtol=1e-6)


def test_empty_ids_are_counted_and_padding_is_no_value(run: Callable[..., str]) -> None:
    folder = run(finetune_modes=[])
    frame = pd.concat([rows(1).iloc[:1]] * 4, ignore_index=True)
    frame["item_id"] = ["[PAD]", "x5", None, ""]
    found = predict(folder, frame)
    assert found.new_values == {"item_id": {"rows": 2, "values": 2}} and found.without_id == {"item_id": 2}
    assert "item_id: 2 rows without an id" in found.summary()
    np.testing.assert_allclose(found.scores, found.scores[0], rtol=1e-6)
    assert predict(folder, frame.assign(item_id="i5", device="[PAD]")).new_values == {
        "device": {"rows": 4, "values": 1}
    }
    items = described(ITEMS).assign(item_id=lambda f: f.item_id.replace("i5", "[PAD]"), genre="Crime [PAD]")
    assert predict(folder, frame, items=items).new_values["genre"] == {"rows": 1, "values": 1}


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_texts_of_new_entities_are_read(scope: str, run: Callable[..., str]) -> None:
    folder = run(finetune_modes=["lm", "joint"], plain_baseline=False, prompt_scope=scope)
    frame = rows(1)
    before = predict(folder, frame, mode="lm").scores
    items = described(ITEMS).assign(item_id=lambda f: "x" + f.item_id.str[1:])
    users = described(USERS).assign(user_id=lambda f: "v" + f.user_id.str[1:])
    names = {f"i{n}": f"x{n}" for n in range(1, 6)} | {f"u{n}": f"v{n}" for n in range(1, 5)}
    new = renamed(frame, **names)
    assert np.array_equal(predict(folder, new, mode="lm", users=users, items=items).scores, before)
    without = predict(folder, new, mode="lm")
    distinct = 1 + (np.diff(np.sort(without.scores)) > 1e-5).sum()
    assert distinct == len({*frame["device"].fillna("")})  # all other words are unknown
    other = items.assign(title=items["title"].iloc[::-1].to_numpy())
    said = predict(folder, new, mode="lm", users=users, items=other)
    assert not np.array_equal(said.scores, before)
    new_words = predict(folder, new, mode="joint", users=users, items=items.assign(title="Entirely new words"))
    assert new_words.described == {"user": 4, "item": 5}
    assert np.isfinite(new_words.scores).all()


NAMES = {"gender": {"M": "male", "F": "female"}, "device": {"phone": "a phone", "tablet": "a tablet", "tv": "a set"}}
NAMES["genre"] = {one: one for one in ("Animation", "Comedy", "Crime", "Thriller", "Romance")}


@pytest.mark.parametrize("stage", ["lm", "joint"])
def test_codes_without_a_name_are_counted_as_new(stage: str, run: Callable[..., str]) -> None:
    """Once, whether or not the CTR model reads the field, too; texts are those of a missing value."""
    folder = run(finetune_modes=[stage], plain_baseline=False, template={"values": NAMES})
    frame = rows(1).iloc[:4].assign(user_id="v1", item_id="x1", device=["watch", "phone", None, "clock"])
    user, item = described(USERS).iloc[:1].assign(user_id="v1"), described(ITEMS).iloc[:1].assign(item_id="x1")
    given = predict(folder, frame, users=user.assign(gender="X"), items=item.assign(genre="Crime Noir Noir"))
    ids = {"user_id": {"rows": 4, "values": 1}, "item_id": {"rows": 4, "values": 1}}
    codes = {name: {"rows": 4, "values": 1} for name in ("gender", "genre")} | {"device": {"rows": 2, "values": 2}}
    assert given.new_values == ids | codes
    assert "gender: 4 rows with values that are new to the run (1)" in given.summary()
    if stage == "lm":
        empty = frame.assign(device=[None, "phone", None, None])
        missing = predict(folder, empty, users=user.assign(gender=None), items=item.assign(genre=None))
        assert missing.new_values == ids and np.array_equal(missing.scores, given.scores)


def test_text_vectors_of_new_items(run: Callable[..., str]) -> None:
    folder = run(finetune_modes=[], text_field=["item"])
    frame, items = rows(1), described(ITEMS).assign(item_id=lambda f: "x" + f.item_id.str[1:])
    new = frame.assign(item_id="x" + frame["item_id"].str[1:])
    right = predict(folder, new, items=items).scores
    others = predict(folder, new, items=items.assign(title=items["title"].iloc[::-1].to_numpy())).scores
    nothing = predict(folder, new).scores
    assert not np.allclose(right, others, atol=1e-7) and not np.allclose(right, nothing, atol=1e-7)
    model = recbole_alt.load_data_and_model(Path(folder, "plain.pth"))[1]
    assert model.backbone.text_fields == ("item_text",)


def test_a_new_entity_has_the_features_of_a_known_one_that_is_like_it(run: Callable[..., str]) -> None:
    folder = run(**EVERYTHING, seq_len={"genre": 1, "scores": 2, "visits": 1}, finetune_modes=[])
    _, model, dataset, *_ = recbole_alt.load_data_and_model(Path(folder, "plain.pth"))
    items = described(ITEMS).assign(item_id=lambda f: "x" + f.item_id.str[1:])
    users = described(USERS).assign(user_id=lambda f: "v" + f.user_id.str[1:])
    names = {f"i{n}": f"x{n}" for n in range(1, 6)} | {f"u{n}": f"v{n}" for n in range(1, 5)}
    new = NewRows(model, dataset, renamed(rows(1), **names), {"user": users, "item": items})
    known = NewRows(model, dataset, rows(1), {})
    batches, compared = (new.part(0, 20)[0], known.part(0, 20)[0]), set(EVERYTHING["numerical_features"])  # type: ignore
    for name in compared | {"year", "genre", "age", "gender", "device"}:
        assert torch.equal(batches[0][name], batches[1][name]), name
        assert not (batches[0][name] == 0).all(), name
    beyond = NewRows(model, dataset, renamed(rows(1), **names), {"user": users.assign(height="9"), "item": items})
    assert beyond.part(0, 20)[0]["height"][:, 1].unique().tolist() == [3]  # the last bucket


# -- files and frames --------------------------------------------------------------------------------------


def test_files_and_frames_say_the_same(run: Callable[..., str], tmp_path: Path, data_path: Path) -> None:
    folder = run(**EVERYTHING, finetune_modes=[])
    frame = renamed(rows(2), i5="x5")
    items = described(ITEMS).assign(item_id=lambda f: f.item_id.replace("i5", "x5"))
    expected = predict(folder, frame, items=items)
    frame.to_csv("rows.csv", index=False)
    items.to_csv("items.csv", index=False)
    (tmp_path / "rows.inter").write_text(re.sub("\ti5\t", "\tx5\t", interactions(2)))
    (tmp_path / "new.item").write_text(ITEMS.replace("i5", "x5"))
    typed = frame.astype({"timestamp": int, "dwell": float})
    sequences = {"genre": str.split, "title": str.split, "scores": lambda cell: [float(one) for one in cell.split()]}
    cells = items.astype({"year": int, "length": float, "price": float})
    for name, parse in sequences.items():
        cells[name] = [parse(cell) if isinstance(cell, str) else None for cell in cells[name]]
    given: list[tuple[Any, Any]] = [("rows.csv", "items.csv"), ("rows.inter", "new.item"), (typed, cells)]
    if (parquet := _parquet(typed, cells)) is not None:
        given.append(parquet)
    for of_rows, of_items in given:
        found = predict(folder, of_rows, items=of_items)
        assert np.array_equal(found.scores, expected.scores)
        assert found.new_values == expected.new_values


def _parquet(frame: pd.DataFrame, items: pd.DataFrame) -> tuple[str, str] | None:
    try:
        frame.to_parquet("rows.parquet")
        items.to_parquet("items.parquet")
    except ImportError:  # in no extra that tests need
        return None
    return "rows.parquet", "items.parquet"


def test_parts_are_scored_as_the_whole(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(finetune_modes=["joint"], eval_batch_size=8, plain_baseline=False)
    frame = renamed(rows(3), i5="x5")
    whole = predict(folder, frame)
    monkeypatch.setattr("recbole_alt.prediction.scoring._ROWS_AT_ONCE", 20)
    parts = predict(folder, frame)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-5)
    assert parts.new_values == whole.new_values == {"item_id": {"rows": 12, "values": 1}}


def test_command_line(run: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(finetune_modes=["ctr"])
    frame = renamed(rows(1), i5="x5")
    frame.to_csv("rows.csv", index=False)
    (tmp_path / "new.item").write_text(ITEMS.replace("i5", "x5"))
    assert main(["predict", folder, "rows.csv", "--out=out/scores.csv", "--mode=ctr", "--item=new.item"]) == 0
    printed = capsys.readouterr().out
    assert "20 rows scored by" in printed and "item_id: 4 rows with values that are new to the run (1)" in printed
    assert "new items that are described: 1" in printed and "Written: out/scores.csv" in printed
    written = pd.read_csv("out/scores.csv", dtype={"score": np.float32})
    found = predict(folder, frame, mode="ctr", items="new.item")
    assert isinstance(found, Prediction) and list(written) == ["user_id", "item_id", "score"]
    assert np.array_equal(written["score"], found.scores) and written["item_id"].tolist() == frame["item_id"].tolist()


def test_no_input_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{name}.csv" for name in ("rows", "user", "item")]
    for file in files:
        file.write_text("kept")
    Path("link.csv").symlink_to("user.csv")
    for out, name in {"./rows.csv": "rows", "link.csv": "user", str(tmp_path / "item.csv"): "item"}.items():
        words = ["predict", "nowhere", "rows.csv", "--user=user.csv", "--item=item.csv", f"--out={out}"]
        assert main(words) == 2
        said = f"error: out: {out!r} is the file of {name}, which is read: give another file\n"
        assert capsys.readouterr().err == said
    assert {file.read_text() for file in files} == {"kept"}


def test_the_mode_is_the_best_on_validation(run: Callable[..., str]) -> None:
    folder = Path(run(finetune_modes=["ctr", "lm"]))
    reached = {}
    for stage, auc in {"plain": 0.5, "ctr": 0.7, "lm": 0.6}.items():
        record = (folder / f"{stage}.json").read_text()
        reached[stage] = auc
        changed = re.sub(r'"valid": {[^}]*}', f'"valid": {{"auc": {auc}}}', record, count=1)
        (folder / f"{stage}.json").write_text(re.sub(r',\n "checksum": "[^"]*"', "", changed))
    assert predict(folder, rows(1)).file.endswith("ctr.pth")
    (folder / "ctr.pth").unlink()
    assert predict(folder, rows(1)).file.endswith("lm.pth")


def test_bad_input_is_one_line(run: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(**EVERYTHING, finetune_modes=[])

    def refused(frame: pd.DataFrame, match: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            predict(options.pop("run", folder), frame, **options)
        assert "\n" not in str(caught.value)

    frame = rows(1)
    refused(
        frame.drop(columns="device"), r"the frame of rows has no column 'device', which the run reads; it has user_id"
    )
    refused(frame.assign(dwell="much"), r"frame of rows, row 1: column 'dwell' holds no finite number: 'much'")
    refused(frame.assign(dwell=np.inf), r"row 1: column 'dwell' holds no finite number: 'inf'")
    refused(frame, "'nowhere' holds no finetuned model", run="nowhere")
    refused(frame, "mode must be one of plain, ctr, lm, joint, not 'all'", mode="all")
    refused(frame, r"mode: .* has no lm\.pth; it has plain", mode="lm")
    for name, given in {"rows": frame["device"], "users": {"user_id": ["u1"]}, "items": 5}.items():
        what = f"{name} must be a pandas DataFrame, or the name of a file, not a {type(given).__name__}"
        refused(**{"frame": frame, "match": what, "frame" if name == "rows" else name: given})  # type: ignore[arg-type]
    refused(None, "rows must be a pandas DataFrame, or the name of a file, not a NoneType")  # type: ignore[arg-type]
    refused(frame[:0], "the frame of rows has no rows: give one at least")
    refused(frame[:0].astype({"dwell": float}), "the frame of rows has no rows: give one at least")
    (tmp_path / "none.csv").write_text(",".join(frame) + "\n")
    refused("none.csv", "none.csv has no rows: give one at least")  # type: ignore[arg-type]
    items = described(ITEMS)
    refused(frame, r"frame of items has no column 'price'", items=items.drop(columns="price"))
    new = renamed(frame, i5="x5")
    bad = items.assign(item_id=items.item_id.replace("i5", "x5"), price="free")
    refused(new, r"frame of items, row 1: column 'price' holds no finite number: 'free'", items=bad)
    (tmp_path / "rows.inter").write_text(interactions(1).replace("device:token", "device:float"))
    refused("rows.inter", r"rows\.inter, line 1: column 'device' is of type float, and token in the run")  # type: ignore
    refused("rows.txt", "'rows.txt' does not exist")  # type: ignore[arg-type]
    (tmp_path / "rows.txt").write_text("")
    refused("rows.txt", r"must end in one of .inter, .user, .item, .csv, .parquet")  # type: ignore[arg-type]
    assert main(["predict", folder, "rows.inter", "--out=scores.txt"]) == 2
    assert capsys.readouterr().err.startswith("error: out: the name of 'scores.txt' must end in one of .csv, .parquet")


def test_a_new_id_that_is_described_twice_is_refused(run: Callable[..., str], tmp_path: Path) -> None:
    """Only of the ids that are read: of one that the run knows, or that no row has, the rows are passed over."""
    folder = run(finetune_modes=[])
    new = renamed(rows(1), i5="x5")
    twice = ITEMS.replace("i5\t", "x5\t").replace("i4\t", "x5\t")
    (tmp_path / "new.item").write_text(twice)
    with pytest.raises(ValueError, match=r"new\.item, line 6: column 'item_id' 'x5' has the id of new\.item, line 5: "):
        predict(folder, new, items="new.item")
    with pytest.raises(ValueError, match=r"the frame of items, row 5: column 'item_id' 'x5' has the id of .* row 4: "):
        predict(folder, new, items=described(twice))
    unread = pd.concat([described(ITEMS)] * 2)
    assert predict(folder, rows(1), items=unread).described == {"item": 0}
    assert predict(folder, new, items=unread).described == {"item": 0}
