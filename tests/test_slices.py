"""AUC of the rows of rare and of new users and items: right, or undefined, and of the predictions of the evaluation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recbole_alt import load_data_and_model, run_recbole_alt
from recbole_alt.scores import Scores, slice_metrics
from recbole_alt.trainer.finetune import ALTTrainer

#: Slice → least and most number of training interactions.
BOUNDS = {
    "new_users": (0, 0), "new_items": (0, 0), "rare_items": (1, 9), "items_10-49": (10, 49),
    "items_50-199": (50, 199), "items_200-999": (200, 999), "items_1000+": (1000, 10**9),
}  # fmt: skip


def auc(label: np.ndarray, score: np.ndarray) -> float | None:
    return float(roc_auc_score(label, score)) if len(set(label.tolist())) == 2 else None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31))
def test_slices_are_those_of_the_rows(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, score = rng.integers(0, 2, n), (rng.integers(0, 9, n) / 9).astype(np.float32)
    user, item = rng.integers(1, 9, (2, n))
    counts = rng.choice([0, 0, 1, 9, 10, 49, 50, 199, 200, 999, 1000, 5000], (2, 9))
    batch = {"score": score, "label": label, "user": user, "item": item}
    parts = [{name: values[rows] for name, values in batch.items()} for rows in (slice(0, n // 2), slice(n // 2, n))]
    found = slice_metrics(Scores.of(parts, {"user": counts[0], "item": counts[1]}))
    assert set(found) == {"all", *BOUNDS}
    assert found["all"]["rows"] == n and found["all"]["auc"] == pytest.approx(auc(label, score), abs=1e-12)
    for name, (least, most) in BOUNDS.items():
        seen = counts[0][user] if name == "new_users" else counts[1][item]
        rows = (least <= seen) & (seen <= most)
        assert found[name]["rows"] == rows.sum(), name
        assert found[name]["auc"] == pytest.approx(auc(label[rows], score[rows]), abs=1e-12), name
    assert all(value != value or value is None or value >= 0 for of in found.values() for value in of.values())


def test_slices_of_data_without_ids_are_of_all_rows() -> None:
    scores = Scores(np.full(4, 0.5, np.float32), np.array([0, 1, 1, 1], np.uint8))
    assert slice_metrics(scores) == {"all": {"rows": 4, "auc": 0.5, "logloss": pytest.approx(np.log(2))}}


HEADER = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float\n"
#: 48 training rows of 3 users and 3 items, one of which has 3 rows; then 6 rows for validation and 6 for the test.
PAIRS = [(f"u{n % 3}", "rare" if n in (5, 15, 30) else f"i{n % 2}") for n in range(48)]
PAIRS += [("u0", "rare"), ("u1", "rare"), ("u2", "i0"), ("u0", "i1"), ("u1", "i0"), ("new", "i1")]
PAIRS += [("u0", "late"), ("u1", "late"), ("new", "i0"), ("newer", "i1"), ("u2", "rare"), ("u0", "i1")]
LABELS = [n % 5 % 2 for n in range(48)] + [0, 1, 1, 0, 1, 0] + [1, 0, 1, 1, 0, 1]


@pytest.fixture
def by_time(own: Any, keys: Any) -> dict[str, Any]:
    """Keys of a plain run on ``d``, which is split by time."""
    lines = [
        f"{user}\t{item}\t{label}\t{n}\n" for n, ((user, item), label) in enumerate(zip(PAIRS, LABELS, strict=True))
    ]
    own("d", inter=HEADER + "".join(lines))
    split = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": None, "mode": "labeled"}
    given = keys(threshold=None, prompt_only=None, finetune_modes=[], epochs=3, eval_args=split, eval_batch_size=4)
    return given | {"load_col": {"inter": ["user_id", "item_id", "label", "timestamp"]}, "data_path": "."}


@pytest.mark.usefixtures("one_thread")
def test_a_run_has_slices_of_the_predictions_it_evaluated(by_time: dict[str, Any], monkeypatch: Any) -> None:
    passes = Counter[int]()
    real = ALTTrainer._neg_sample_batch_eval

    def count(self: ALTTrainer, batch: Any) -> Any:
        passes.update([len(batch[0])])
        return real(self, batch)

    monkeypatch.setattr(ALTTrainer, "_neg_sample_batch_eval", count)
    result = run_recbole_alt("ALT_DCN", "d", None, by_time)
    assert passes == {4: 4, 2: 4}  # 3 validations and a test, of 6 rows in batches of 4
    folder, found = Path(result["folder"]), result["record"]["results"]["plain"]
    slices = found["slices"]
    assert json.loads((folder / "result.json").read_text())["results"]["plain"]["slices"] == slices
    assert json.loads((folder / "plain.json").read_text())["slices"] == slices
    _, model, _, train, *parts = load_data_and_model(folder / "plain.pth")
    assert len(train._dataset) == 48
    for name, part in zip(("valid", "test"), parts, strict=True):
        rows = part._dataset[:]
        score, label = model.eval().predict(rows).detach().numpy(), rows["label"].numpy()
        first = 48 if name == "valid" else 54
        users, items = (np.array(names) for names in zip(*PAIRS[first : first + 6], strict=True))
        assert slices[name]["all"]["rows"] == 6
        assert slices[name]["all"]["auc"] == pytest.approx(found[name]["auc"], abs=1e-6)
        assert slices[name]["all"]["logloss"] == pytest.approx(found[name]["logloss"], abs=1e-6)
        for of, inside in (
            ("new_users", np.char.startswith(users, "new")),
            ("new_items", items == "late"),
            ("rare_items", items == "rare"),
            ("items_10-49", np.isin(items, ["i0", "i1"])),
            ("items_50-199", items == "nothing"),
        ):
            expected = {"rows": inside.sum(), "auc": auc(label[inside], score[inside])}
            assert slices[name][of] == pytest.approx(expected, abs=1e-12), (name, of)
    assert slices["test"]["new_users"]["auc"] is slices["test"]["rare_items"]["auc"] is None  # one label only
    head, row = [line.split("|") for line in result["table"].splitlines() if line.startswith("| ")]
    columns = {title.strip(): cell.strip() for title, cell in zip(head, row, strict=True)}
    assert columns["new items"] == f"{slices['test']['new_items']['auc']:.4f}"
    assert not {"rare items", "new users"} & columns.keys()  # empty
    assert "6; 1 of rare items (1 to 9 training rows); 2 of new items (none); 2 of new users (none)." in result["table"]


@pytest.mark.usefixtures("one_thread")
def test_items_that_are_ranked_have_no_slices(own: Any, keys: Any) -> None:
    lines = [f"u{n % 5}\ti{n * 7 % 23}\t1\t{n}\n" for n in range(60)]
    own("ranked", inter=HEADER + "".join(lines))
    given = {"metrics": ["Recall"], "valid_metric": "Recall@5", "topk": 5, "epochs": 1, "finetune_modes": []}
    given |= {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}, "data_path": "."}
    given |= {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"}}
    given |= {"load_col": {"inter": ["user_id", "item_id"]}, "threshold": None, "prompt_only": None}
    result = run_recbole_alt("ALT_DCN", "ranked", None, keys(**given))
    assert result["record"]["results"]["plain"]["slices"] == {}
    assert result["table"].startswith("| DCN   | valid Recall@5 | test Recall@5 | time")
