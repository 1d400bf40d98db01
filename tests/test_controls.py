"""Controls: shares of the training interactions, exchanged texts, a language model that learned nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_alt import loading
from recbole_alt.config import ALTConfig
from recbole_alt.model.language import load_language_model

pytestmark = pytest.mark.usefixtures("one_thread")


def columns(dataset: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in dataset.inter_feat.interaction.items()}


@pytest.mark.parametrize("order", ["RO", "TO"])
def test_shares_are_nested_and_leave_the_rest(order: str, tiny: Any) -> None:
    split = {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": order, "mode": "labeled"}
    parts = {}
    for share in (0.05, 0.2, 1.0):
        _, *loaders = loading.load_data(tiny(train_share=share, split_seed=3, eval_args=split, seed=9))
        parts[share] = [columns(loader._dataset) for loader in loaders]
    sizes = {share: len(part[0]["user_id"]) for share, part in parts.items()}
    assert sizes == {0.05: 6, 0.2: 26, 1.0: 128}
    assert parts[0.05][1:] == parts[0.2][1:] == parts[1.0][1:]
    rows = {share: list(zip(part[0]["user_id"], part[0]["item_id"], part[0]["timestamp"], strict=True))
            for share, part in parts.items()}  # fmt: skip
    assert set(rows[0.05]) < set(rows[0.2]) < set(rows[1.0])
    assert [row for row in rows[1.0] if row in set(rows[0.2])] == rows[0.2]  # in their order
    again = loading.load_data(tiny(train_share=1.0, eval_args=split, seed=3))  # the seed, where no other is given
    assert [columns(loader._dataset) for loader in again[1:]] == parts[1.0]
    for wrong in (0, 1.5, True, "half"):
        with pytest.raises(ValueError, match="train_share"):
            tiny(train_share=wrong)


@pytest.mark.parametrize("side", ["item", "user"])
def test_texts_are_exchanged_and_the_table_is_not(side: str, tiny: Any) -> None:
    def read(**keys: Any) -> tuple[Any, list[list[str]]]:
        train = loading.load_data(tiny(**keys))[1]._dataset
        return train, train.prompts.texts(train[:])

    (plain, before), (other, after) = read(), read(shuffle_texts=side)
    rows = [{name: value.tolist() for name, value in train[:].interaction.items()} for train in (plain, other)]
    assert rows[0] == rows[1]
    changed, same = (1, 0) if side == "item" else (0, 1)
    assert [row[same] for row in before] == [row[same] for row in after]
    swapped = {(mine[changed], theirs[changed]) for mine, theirs in zip(before, after, strict=True)}
    assert {a for a, _ in swapped} == {b for _, b in swapped} and len(swapped) == len({a for a, _ in swapped})
    assert all(a != b for a, b in swapped)
    assert read(shuffle_texts=side)[1] == after != read(shuffle_texts=side, split_seed=4)[1]
    with pytest.raises(ValueError, match="shuffle_texts"):
        tiny(shuffle_texts="both")


def test_random_weights_have_the_same_shape(small_bert: str) -> None:
    states = []
    for number, seed in enumerate((None, 4, 4, 5)):
        torch.manual_seed(number)  # is not what they are drawn from
        states.append(load_language_model(small_bert, layers=1, random_seed=seed).state_dict())
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}
    matrices = [name for name, value in states[0].items() if value.dim() == 2]
    assert matrices and all(not torch.equal(states[0][name], states[1][name]) for name in matrices)
    assert all(torch.equal(states[1][name], states[2][name]) for name in states[1])
    assert not any(torch.equal(states[1][name], states[3][name]) for name in matrices)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_language_model(small_bert, random_seed=4)
    assert torch.equal(torch.rand(3), expected)  # nothing else is drawn otherwise
    with pytest.raises(ValueError, match="language_model_weights"):
        ALTConfig("ALT_DCN", "ml-100k", None, {"language_model_weights": "none"})
