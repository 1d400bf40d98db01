"""A label is 0 or 1, comes from one place, and is there in both kinds; whatever else it is, is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recbole
from conftest import MINILM
from recbole.data import create_dataset, data_preparation
from rows import refused

from recbole_alt import run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.trainer.finetune import ALTTrainer

Own = Callable[..., ALTConfig]

BY_TIME = {"order": "TO", "split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "mode": "labeled"}
HEADER = "user_id:token\titem_id:token\tlabel:float\trating:float\ttimestamp:float\n"


def interactions(n: int = 40, **cells: Any) -> str:
    """``n`` interactions, the cells of a column by a function of the row where given."""

    def line(row: int) -> str:
        given = {"label": row % 2, "rating": 1 + row % 5, "timestamp": 1000 + row}
        given |= {name: of(row) for name, of in cells.items()}
        return "\t".join([f"u{row % 4}", f"i{row % 5}", *map(str, given.values())])

    return HEADER + "".join(f"{line(row)}\n" for row in range(n))


def load(*names: str) -> dict[str, Any]:
    return {"load_col": {"inter": ["user_id", "item_id", *names]}}


def blank(*rows: int, otherwise: Callable[[int], Any]) -> Callable[[int], Any]:
    return lambda row: "" if row in rows else otherwise(row)


# -- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inter", "keys", "match"),
    [
        (interactions(label=blank(3, 9, 11, otherwise=lambda row: row % 2)), load("label"),
         r"d\.inter, line 5: column 'label' is empty \(so in 3 rows\), and it is the label"),
        (interactions(label=lambda row: 1 if row % 2 else ""), load("label"), "line 2: column 'label' is.*20 rows"),
        (interactions(label=lambda row: 2 * (row % 2) - 1), load("label"),
         r"line 2: the label 'label' must be 0 or 1, and it is -1 \(20 of 40.*found: -1, 1\).*threshold"),
        (interactions(label=lambda row: 1 + row % 2), load("label"), r"it is 2 \(20 of 40.*found: 1, 2\)"),
        (interactions(label=lambda row: row / 40), load("label"), r"line 3: .*found: 0, .*…"),
        (interactions(), load("rating") | {"LABEL_FIELD": "rating"}, r"label 'rating' must be 0 or 1.*1, 2, 3, 4, 5"),
        (interactions(rating=blank(7, otherwise=lambda row: 3)), load("rating") | {"threshold": {"rating": 3}},
         r"d\.inter, line 9: column 'rating' is empty, and the threshold.*val_interval: \{rating: '\(-inf,inf\)'\}"),
        (interactions(timestamp=blank(1, 2, otherwise=int)), load("label", "timestamp") | {"eval_args": BY_TIME},
         r"d\.inter, line 3: column 'timestamp' is empty \(so in 2 rows\), and eval_args: order: TO goes by it"),
        (interactions(timestamp=blank(5, otherwise=int)), load("label", "timestamp") | {"rm_dup_inter": "last"},
         r"line 7: column 'timestamp' is empty, and rm_dup_inter goes by it"),
    ],
)  # fmt: skip
def test_rows_without_a_label_of_0_or_1_or_without_their_time_are_refused(
    own: Own, inter: str, keys: dict[str, Any], match: str
) -> None:
    refused(match, own("d", inter=inter, **keys))


def test_lines_are_those_of_the_file_whatever_is_filtered(own: Own) -> None:
    inter = interactions(label=blank(30, otherwise=lambda row: row % 2))
    inter = inter.replace("\nu1\ti1", "\n\nu1\t", 1)  # an empty line, and a row without item
    keys = {"val_interval": {"rating": "[1,3]"}} | load("label", "rating")
    refused(r"d\.inter, line 33: column 'label' is empty, ", own("d", inter=inter, **keys))


def test_true_and_false_are_labels(own: Own) -> None:
    dataset = create_dataset(own("d", inter=interactions(label=lambda row: row % 3 == 0), **load("label")))
    assert dataset.inter_feat["label"].tolist() == [float(row % 3 == 0) for row in range(40)]


def test_a_threshold_may_be_on_the_label_itself(own: Own) -> None:
    keys = load("rating") | {"LABEL_FIELD": "rating", "threshold": {"rating": 4}}
    dataset = create_dataset(own("d", inter=interactions(), **keys))
    assert dataset.inter_feat["rating"].tolist() == [float(1 + row % 5 >= 4) for row in range(40)]


@pytest.mark.parametrize("interval", ["(-inf,inf)", "[2,5]"])
def test_an_interval_leaves_out_empty_ratings_before_the_threshold(own: Own, interval: str) -> None:
    inter = interactions(rating=blank(4, 5, 6, otherwise=lambda row: 1 + row % 5))
    keys = load("rating") | {"threshold": {"rating": 3}, "val_interval": {"rating": interval}}
    dataset = create_dataset(own("d", inter=inter, **keys))
    ratings = [1 + row % 5 for row in range(40) if row not in (4, 5, 6)]
    kept = [rating for rating in ratings if rating >= (2 if interval[1] == "2" else 1)]
    assert dataset.inter_feat["label"].tolist() == [float(rating >= 3) for rating in kept]
    assert dataset.left_out == {"d.inter: val_interval of rating": 40 - len(kept)}


#: The least time and the step of 40 rows, and where it is refused, the step of RecBole's sort and the span.
TIMES = {
    "clock-digits": (20240101000000, 100, (2097152, 3900)),
    "unix-seconds": (1_700_000_000, 1, (128, 39)),
    "negative": (-1_700_000_039, 1, (128, 39)),
    "unix-days-apart": (1_700_000_000, 86_400, None),
    "told-apart": (1_700_000_000, 128, None),
    "all-equal": (1_700_000_001, 0, None),
    "small": (1, 1, None),
}


@pytest.mark.parametrize(
    "how", [{}, {"group_by": "user"}, {"split": {"LS": "valid_and_test"}, "group_by": "user"}], ids=str
)
@pytest.mark.parametrize(("least", "step", "refusal"), TIMES.values(), ids=TIMES)
def test_times_that_32_bits_do_not_order_are_refused(
    least: int, step: int, refusal: tuple[int, int] | None, how: dict[str, Any], own: Own
) -> None:
    inter = interactions(timestamp=lambda row: least + step * (39 - row))  # the newest first
    given = load("label", "timestamp") | {"eval_args": BY_TIME | how}
    if refusal:
        match = (
            rf"d\.inter, line \d+: column 'timestamp' is {int(least / 10**6)}\d+, .* in steps of {refusal[0]}, .* span "
        )
        refused(rf"{match}{refusal[1]}: .* subtract the least", own("d", inter=inter, **given))
        random = given | {"eval_args": BY_TIME | how | {"order": "RO"}}
        create_dataset(own("random", inter=inter, **random))
        create_dataset(own("unit", inter=inter, normalize_all=True, **given))  # sorted as 0 to 1
        return
    parts = create_dataset(own("d", inter=inter, **given)).build()
    if step and not how:
        assert parts[0].inter_feat["timestamp"].max() < parts[2].inter_feat["timestamp"].min()


def test_seconds_of_months_are_ordered_as_in_recbole() -> None:
    examples = str(Path(recbole.__file__).parent / "dataset_example")
    given = {"data_path": examples, "eval_args": BY_TIME, "language_model": MINILM, "state": "ERROR"}
    parts = create_dataset(ALTConfig("ALT_DCN", "ml-100k", None, given)).build()
    assert sum(len(part.inter_feat) for part in parts) == 100_000
    assert parts[0].inter_feat["timestamp"].max() <= parts[2].inter_feat["timestamp"].min()


def test_empty_timestamps_may_stay_where_nothing_goes_by_them(own: Own) -> None:
    inter = interactions(timestamp=blank(1, otherwise=int))
    assert len(create_dataset(own("d", inter=inter, **load("label", "timestamp")))) == 40


# -- keys --------------------------------------------------------------------------------------------------------


SAMPLED = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
RANKED = {"metrics": ["Recall"], "topk": 5, "valid_metric": "Recall@5"}


def ranked(mode: Any) -> dict[str, Any]:
    return RANKED | {"eval_args": {"mode": mode, "split": {"RS": [0.8, 0.1, 0.1]}}}


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        (load("label", "rating") | {"threshold": {"rating": 3}}, "threshold: .*rating.* would replace .*'label'"),
        (load("label") | {"threshold": {"item_id": 3}}, "threshold names 'item_id', which is token"),
        (load("label") | {"threshold": {"rating": 3}}, "threshold names 'rating', which d.inter has but load_col"),
        (load("rating") | {"threshold": 3}, "threshold must be .*not 3"),
        (load("rating") | {"threshold": 0}, "threshold must be .*not 0"),
        (load("rating") | {"threshold": {}}, "threshold must be .*not {}"),
        (load("rating") | {"threshold": {"rating": "high"}}, "threshold: rating must be .*'high'"),
        (load("rating"), "load_col: inter must hold 'label' .*LABEL_FIELD.*threshold"),
        (load("label") | SAMPLED, "train_neg_sample_args: with distribution: uniform every row .*'label'"),
        (load("rating") | {"threshold": {"rating": 3}} | SAMPLED, "train_neg_sample_args: .*'label'"),
        (load("label") | ranked("uni5"), "eval_args: with mode: uni5 every row of the valid part"),
        (load("label") | ranked("full"), "eval_args: with mode: full every row of the valid part"),
        (load("rating") | SAMPLED, "eval_args: mode: labeled needs a label"),
        (load("label") | {"eval_args": BY_TIME}, "order: TO needs a time: TIME_FIELD names 'timestamp'"),
        (load("label") | {"eval_args": BY_TIME, "TIME_FIELD": "item_id"}, "order: TO .*'item_id', which is token"),
    ],
)
def test_keys_that_contradict_the_label_are_refused_before_a_row_is_read(
    own: Own, keys: dict[str, Any], match: str
) -> None:
    refused(match, own("d", inter=interactions(), **keys))


def test_a_label_of_words_is_refused(own: Own) -> None:
    inter = interactions(label=lambda row: ("no", "yes")[row % 2]).replace("label:float", "label:token")
    refused(r"d\.inter, line 1: the label 'label' is of type token: write label:float.*threshold",
            own("d", inter=inter, **load("label")))  # fmt: skip


def test_negative_sampling_without_a_label_is_as_in_recbole(own: Own) -> None:
    inter = "".join(line for line in interactions().splitlines(True) if "u0\ti0" not in line)  # that user met all
    inter = "".join(line for line in inter.splitlines(True) if line[1] != line[4])
    config = own("d", inter=inter, **load(), **SAMPLED, **ranked("full"))
    train = data_preparation(config, create_dataset(config))[0]
    assert {float(label) for rows in train for label in rows["label"]} == {0.0, 1.0}


# -- parts -------------------------------------------------------------------------------------------------------


def by_time(labels: list[int], **keys: Any) -> dict[str, Any]:
    """Interactions with these labels, split in this order by 8:1:1."""
    inter = interactions(len(labels), label=lambda row: labels[row])
    return {"inter": inter, "eval_args": BY_TIME} | load("label", "timestamp") | keys


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (by_time([1] * 16 + [0, 1, 0, 1]), "all 16 training labels are 1"),
        (by_time([0] * 20), "all 16 training labels are 0"),
        (by_time([0, 1] * 8 + [1, 1, 0, 1]), "all 2 validation labels are 1: their AUC, the valid_metric.*LogLoss"),
        (by_time([0, 1, 0, 1, 1, 0, 1, 0]), "the only validation label is 1"),
        (by_time([1]), "1 training row is too few"),
        (by_time([0, 1] * 10, train_share=0.01), "1 training row is too few"),
    ],
)
def test_a_part_that_teaches_or_chooses_nothing_is_refused(own: Own, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        create_dataset(own("d", **given)).build()


@pytest.mark.parametrize("keys", [{"valid_metric": "LogLoss"}, {"eval_step": 0}], ids=["logloss", "no-validation"])
def test_a_part_of_one_label_that_chooses_nothing_is_said(own: Own, caplog: Any, keys: dict[str, Any]) -> None:
    parts = create_dataset(own("d", **by_time([0, 1] * 8 + [1, 1, 0, 0], **keys))).build()
    assert [len(part) for part in parts] == [16, 2, 2]
    assert "all 2 validation labels are 1: their AUC is undefined" in caplog.text
    assert "all 2 test labels are 0: their AUC is undefined" in caplog.text


# -- a batch or a part of one row --------------------------------------------------------------------------------


@pytest.fixture
def small(keys: Any) -> dict[str, Any]:
    """Keys of a run on ``d``, of which the CTR model normalises over the rows of a batch."""
    given = keys(epochs=1, threshold=None, prompt_only=None, valid_metric="LogLoss", pretrain_steps=1)
    return given | load("label", "timestamp") | {"data_path": ".", "eval_args": BY_TIME, "template": {"exclude": []}}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("rows", [8, 10, 40])
def test_batches_and_parts_of_one_row_do_not_stop_a_run(small: dict[str, Any], own: Own, rows: int) -> None:
    own("d", inter=interactions(rows))
    training = rows - 2 * max(1, rows // 10)
    keys = {"train_batch_size": training - 1, "batch_sampling": "shuffle", "pretrain_batch_size": training - 1}
    record = run_recbole_alt("ALT_DCN", "d", None, small | keys | {"finetune_modes": ["ctr"]})["record"]
    for stage in ("ctr", "plain"):
        assert record["results"][stage]["valid"]["logloss"] > 0
        assert ("auc" in record["results"][stage]["test"]) == (rows == 40)  # of one row it is undefined
    assert "NaN" not in Path(next(Path("saved").glob("*/result.json"))).read_text()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train_batch_size": 1}, "^train_batch_size must be a whole number, 2 or more"),
        (
            {"pretrain_batch_size": 1, "finetune_modes": ["ctr"]},
            "pretrain_batch_size must be a whole number, 2 or more",
        ),
    ],
)
def test_batches_of_one_row_alone_are_refused(
    small: dict[str, Any], own: Own, changes: dict[str, Any], match: str
) -> None:
    own("d", inter=interactions())
    with pytest.raises(ValueError, match=match):
        run_recbole_alt("ALT_DCN", "d", None, small | {"finetune_modes": []} | changes)


def test_the_last_batch_of_one_row_is_left_out(small: dict[str, Any], own: Own, monkeypatch: Any) -> None:
    seen: list[int] = []
    step = ALTTrainer._train_step

    def count(trainer: ALTTrainer, rows: Any, loss: Any) -> Any:
        seen.append(len(rows))
        return step(trainer, rows, loss)

    monkeypatch.setattr(ALTTrainer, "_train_step", count)
    own("d", inter=interactions())
    run_recbole_alt("ALT_DCN", "d", None, small | {"finetune_modes": [], "train_batch_size": 31, "epochs": 2})
    assert seen == [31, 31]
