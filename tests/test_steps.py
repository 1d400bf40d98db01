"""Which batches a configuration asks for, and what each row weighs in finetuning."""

from logging import INFO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from torch.utils.data import DataLoader

from recbole_alt.data.batches import BlockBatches, ShuffledBatches
from recbole_alt.data.steps import build_batches, training_loader

SAMPLED: dict[str, Any] = {
    "inter": "user_id:token\titem_id:token\n" + "\n".join(f"u{i % 20}\ti{i % 31}" for i in range(200)),
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": 2},
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None, "mode": "full"},
    "metrics": ["Recall"],
    "valid_metric": "Recall@10",
    "threshold": None,
}


class Rows(SimpleNamespace):
    """20,000 interactions of 50 users with 40 items."""

    def __init__(self, uid_field: str | None = "user_id", iid_field: str | None = "item_id"):
        users, items = (torch.arange(20_000) % 2000 // 40, torch.arange(20_000) % 40)
        super().__init__(uid_field=uid_field, iid_field=iid_field, inter_feat={"user_id": users, "item_id": items})

    def __len__(self) -> int:
        return 20_000


@pytest.mark.parametrize(
    ("changes", "fixed", "kind", "rows"),
    [
        ({}, False, BlockBatches, 6000),
        ({}, True, ShuffledBatches, 2048),
        ({"mask_level": "token"}, True, BlockBatches, 6000),  # a text has too many forms to keep them
        ({"prompt_scope": "interaction"}, False, ShuffledBatches, 128),
        ({"prompt_scope": "interaction"}, True, ShuffledBatches, 128),  # as many texts as rows
        ({"batch_sampling": "block"}, True, BlockBatches, 6000),
        ({"batch_sampling": "shuffle"}, False, ShuffledBatches, 128),
    ],
)
def test_default_batches(tiny: Any, changes: dict[str, Any], fixed: bool, kind: type, rows: int) -> None:
    config = tiny(block_users=50, block_items=40, **changes)
    batches = build_batches(config, Rows(), None, fixed=fixed)
    assert isinstance(batches, kind)
    assert batches.steps_per_epoch == -(-20_000 // rows)
    assert build_batches(config, Rows(), 1000, fixed=fixed).steps_per_epoch == 20


def test_interactions_without_ids_are_shuffled(tiny: Any) -> None:
    batches = build_batches(tiny(), Rows(uid_field=None), None)
    assert isinstance(batches, ShuffledBatches)
    with pytest.raises(ValueError, match="batch_sampling: block needs USER_ID_FIELD and ITEM_ID_FIELD; use shuffle"):
        build_batches(tiny(batch_sampling="block"), Rows(iid_field=None), None)
    with pytest.raises(ValueError, match="block_users and block_items: give both, or neither"):
        build_batches(tiny(block_users=None), Rows(), None)


def test_the_log_says_what_blocks_are(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(INFO):
        build_batches(tiny(block_users=25, block_items=40), Rows(), None)
    (line,) = caplog.messages
    assert line == (
        "Blocks of 25 users and 20 items on average: 5,000 interactions a step, 111.1 per text; an epoch of 4 steps "
        "visits each interaction once, however popular its item"
    )


@pytest.mark.parametrize("mode", ["lm", "joint"])
def test_rows_weigh_alike_where_finetuning_trains_the_encoder(tiny: Any, small_bert: str, mode: str) -> None:
    """The mean over the steps of an epoch is the mean over the rows."""
    config = tiny(language_model=small_bert, finetune_mode=mode, text_batch_size=20, finetune={})
    init_seed(3, True)
    train = data_preparation(config, create_dataset(config))[0]
    model = get_model(config["model"])(config, train._dataset).eval()
    assert model.encodes_texts
    loader = training_loader(config, train, encodes_texts=True)

    def loss(rows: Any) -> float:
        found = model.calculate_loss(rows)
        return float(sum(found) if isinstance(found, tuple) else found)

    with torch.no_grad():
        whole = loss(train._dataset[:])
        found = [(loss(rows), len(rows)) for rows in loader]
    losses, sizes = map(np.array, zip(*found, strict=True))
    assert len(losses) == len(loader) > 3
    assert np.std(losses) > 1e-3
    assert np.average(losses, weights=sizes) == pytest.approx(whole, rel=1e-5)
    assert np.mean(losses) == pytest.approx(whole, abs=np.ptp(losses) / sizes.min())  # a row more or less in a block


@pytest.mark.parametrize("keys", [{}, {"shuffle": False}, SAMPLED], ids=["shuffled", "in order", "negatives"])
def test_rows_come_in_the_order_of_recboles_loader(tiny: Any, own: Any, keys: dict[str, Any]) -> None:
    """Over three epochs the batches, and the state of every generator after each, are the same."""
    config = own("few", train_batch_size=48, **keys) if keys is SAMPLED else tiny(train_batch_size=48, **keys)
    read: list[list[Any]] = []
    for fast in (False, True):
        init_seed(3, True)
        train = data_preparation(config, create_dataset(config))[0]
        loader = training_loader(config, train, encodes_texts=False)
        if not fast:
            loader = loader._loader
        assert isinstance(loader, DataLoader) != fast
        seen: list[Any] = []
        for _ in range(3):
            batches = list(loader)
            assert len(batches) == len(loader) > 2
            seen += [column for rows in batches for column in rows.interaction.values()]
            seen += [loader.generator.get_state(), torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1])]
        read.append(seen)
    assert len(read[0]) == len(read[1]) and all(map(torch.equal, *read))
