"""What texts tell of those that no row has: found where they tell something, and nothing found where they do not."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from rows import built
from sklearn.model_selection import KFold

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.loading import load_data
from recbole_alt.metrics import auc
from recbole_alt.questions.unseen import Rows, ask, effects, field_columns, left_out, unseen, word_vectors

pytestmark = pytest.mark.usefixtures("one_thread")

USERS, ITEMS = 80, 300


def made(*, by_fields: float, by_texts: float, by_item: float) -> tuple[Rows, np.ndarray, np.ndarray, float | None]:
    """Rows, fields and texts, on which clicks depend beside the user and the item, and the AUC of the best scores."""
    rng = np.random.default_rng(7)
    fields, texts = rng.normal(size=(ITEMS, 2)), rng.normal(size=(ITEMS, 12))
    item, user = (grid.ravel() for grid in np.indices((ITEMS, USERS)))
    effect = by_fields * fields[:, 0] + by_texts * texts[:, 0] + by_item * rng.normal(size=ITEMS)
    truth = rng.normal(size=USERS)[user] + effect[item]
    clicked = rng.random(len(item)) < 1 / (1 + np.exp(-truth))
    return Rows(clicked, item, user), fields, texts, auc(clicked, truth)


def test_what_fields_and_texts_tell_is_found() -> None:
    rows, fields, texts, best = made(by_fields=0.7, by_texts=0.7, by_item=0.0)
    others = np.random.default_rng(1).permutation(texts)
    without, with_texts, with_others = left_out(rows, fields, [None, texts, others], seed=1)
    assert len(without) == len(with_texts) == 5
    assert best is not None and abs(fmean(with_texts) - best) < 0.01
    assert min(np.subtract(with_texts, without)) > 0.02
    assert abs(fmean(with_others) - fmean(without)) < 0.01
    nothing = left_out(rows, np.ones((ITEMS, 1)), [None], seed=1)[0]
    assert min(np.subtract(without, nothing)) > 0.02


def test_no_item_is_known_that_is_left_out() -> None:
    """Items are clicked at very different rates, of which neither fields nor texts say anything."""
    rows, fields, texts, best = made(by_fields=0.0, by_texts=0.0, by_item=1.5)
    by_user = auc(rows.clicked, effects(rows, ITEMS, USERS)[1][rows.other])
    assert best is not None and by_user is not None and best > by_user + 0.1
    for reached in left_out(rows, fields, [None, texts], seed=1):
        assert abs(fmean(reached) - by_user) < 0.015


def test_clicks_of_what_is_left_out_are_not_read() -> None:
    """With these turned round and all others as they were, the scores are the same, and the AUC turns round, too."""
    rows, fields, texts, _ = made(by_fields=0.5, by_texts=0.5, by_item=1.0)
    new = next(KFold(5, shuffle=True, random_state=1).split(fields))[1]
    turned = rows._replace(clicked=rows.clicked ^ np.isin(rows.of, new))
    before, after = (left_out(one, fields, [None, texts], seed=1) for one in (rows, turned))
    assert [of_texts[0] for of_texts in after] == pytest.approx([1 - of_texts[0] for of_texts in before], abs=1e-12)
    assert all(of_texts[0] > 0.55 for of_texts in before)


def test_effects_are_told_apart() -> None:
    """Generous users rate the good items only, so that rates alone would take their generosity for the items'."""
    rng = np.random.default_rng(3)
    item, user = rng.integers(0, 40, 60_000), rng.integers(0, 30, 60_000)
    kept = rng.random(60_000) < np.where((item < 20) == (user < 15), 0.9, 0.1)
    item, user = item[kept], user[kept]
    of_item, of_user = np.linspace(-0.2, 0.2, 40), np.where(np.arange(30) < 15, -0.2, 0.2)
    clicked = rng.random(len(item)) < 0.5 + of_item[item] + of_user[user]
    item_effect, user_effect = effects(Rows(clicked, item, user), 41, 30)
    assert np.ptp(item_effect[:40] - of_item) < 0.12 and np.ptp(user_effect - of_user) < 0.12
    assert item_effect[40] == 0  # without rows
    few = effects(Rows(clicked[:400], item[:400], user[:400]), 40, 30)[1]
    assert np.abs(few).mean() < np.abs(user_effect).mean()  # held back


def test_one_class() -> None:
    rows, fields, *_ = made(by_fields=0.0, by_texts=0.0, by_item=0.0)
    with pytest.raises(ValueError, match="one class only"):
        left_out(rows._replace(clicked=rows.clicked | True), fields, [None], seed=1)


# -- of data ---------------------------------------------------------------------------------------------------

WORDS = ("awful", "dull", "fine", "superb")
WORD = np.random.default_rng(5).integers(0, 4, 60)  # of the title of each item


@pytest.fixture
def films(own: Any) -> Callable[..., Any]:
    """60 users and 60 items; how often an item is clicked is in a word of its title, and its year says nothing."""
    rng = np.random.default_rng(6)
    inter = ["user_id:token\titem_id:token\tlabel:float"]
    for user, item in np.ndindex(60, 60):
        if rng.random() < 0.5:
            inter.append(f"u{user}\ti{item}\t{int(rng.random() < 0.2 + 0.2 * WORD[item])}")
    item_file = ["item_id:token\ttitle:token\tyear:token\tgenre:token_seq\tlength:float"]
    for item in range(60):
        genre = ("", "drama", "drama comedy")[item % 3]
        year = 1990 + item % 2 if item else 1950  # one item has a year of its own
        item_file.append(f"i{item}\ta {WORDS[WORD[item]]} film about {item}\t{year}\t{genre}\t{90 + item}")
    user_file = ["user_id:token\tage:token", *(f"u{user}\t{20 + user % 30}" for user in range(60))]

    def configure(name: str = "films", **keys: Any) -> Any:
        texts = {"prompt_only": {"item": ["title"]}, "LABEL_FIELD": "label", "threshold": None} | {
            "load_col": {
                "inter": ["user_id", "item_id", "label"],
                "user": ["user_id", "age"],
                "item": ["item_id", "year", "genre", "length"],
            }
        }
        files = {"inter": inter, "item": item_file, "user": user_file}
        return own(name, **{suffix: "\n".join(lines) + "\n" for suffix, lines in files.items()}, **texts | keys)

    return configure


def test_fields_of_data(films: Callable[..., Any]) -> None:
    unread = built(films())
    ids = np.arange(1, unread.item_num)
    assert field_columns(unread.item_feat, unread, "item_id", ids).shape == (60, 5)  # a CTR model reads no length
    dataset = built(films(name="measured", numerical_features=["length"]))
    found = field_columns(dataset.item_feat, dataset, "item_id", ids)
    assert found.shape == (60, 1 + 2 + 2 + 1)  # all alike, two years, two genres, the length
    genres = found[:, [i for i in range(1, 5) if found[:, i].sum() in (20, 40)]]
    assert sorted(genres.sum(0)) == [20, 40]
    assert np.isclose(np.square(found).sum(0), 60).sum() == 2  # all alike, and the length, standardised
    assert found[:, 1:].any(0).all()


def test_words_of_data(films: Callable[..., Any]) -> None:
    dataset = built(films())
    ids = np.arange(1, dataset.item_num)
    vectors = word_vectors(dataset, "item", "item_id", ids)
    word = WORD[[int(name[1:]) for name in dataset.id2token("item_id", ids)]]
    alike, same = vectors @ vectors.T, word[:, None] == word
    np.fill_diagonal(same, False)
    assert alike[same].mean() > alike[word[:, None] != word].mean() + 0.02


def test_a_run(films: Callable[..., Any], small_bert: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"finetune_modes": [], "epochs": 1, "language_model": small_bert}
    result = run_recbole_alt("ALT_LR", "films", None, films(**keys).external_config_dict)
    assert main(["unseen", str(result["folder"]), "--json=unseen.json"]) == 0
    printed, kept = capsys.readouterr().out, json.loads(Path("unseen.json").read_text())
    of = {one["side"]: one for one in kept}
    assert set(of) == {"user", "item"} and of["item"]["entities"] == of["user"]["entities"] == 60
    assert fmean(of["item"]["words"]) > fmean(of["item"]["fields"]) + 0.05 > 0.5
    assert all(len(of["user"][name]) == 5 for name in ("fields", "words", "texts", "others"))
    assert f"{fmean(of['item']['words']):.4f}" in printed
    assert "new items" in printed and "new users" in printed
    config = checkpoints.load(Path(result["folder"]) / "plain.pth")["config"]
    config["load_col"]["item"].remove("year")
    with pytest.raises(ValueError, match=r"plain\.pth' was made from other data"):
        unseen(result["folder"], load_data(config))


def test_too_few(films: Callable[..., Any], caplog: pytest.LogCaptureFixture, tiny: Any) -> None:
    dataset = built(tiny())
    with caplog.at_level(logging.WARNING):
        assert ask(tiny(), dataset, "item") is None
    assert "items in the training rows nothing can be told" in caplog.text


def test_refused(keys: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unseen", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: 'nowhere' holds no finetuned model")
    folder = run_recbole_alt("ALT_LR", "tiny", None, keys(finetune_modes=[], epochs=1))["folder"]
    capsys.readouterr()
    assert main(["unseen", f"{folder}/plain.pth"]) == 2
    assert "error: unseen: there are fewer than 50 users and items to ask\n" in capsys.readouterr().err
    whole = keys(finetune_modes=[], epochs=1, prompt_scope="interaction")
    folder = run_recbole_alt("ALT_LR", "tiny", None, whole)["folder"]
    capsys.readouterr()
    assert main(["unseen", str(folder)]) == 2
    assert "unseen: neither users nor items have texts of their own" in capsys.readouterr().err
