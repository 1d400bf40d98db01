"""Where configuration becomes batches and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_alt.data.batches import Batches, BlockBatches, ShuffledBatches
from recbole_alt.data.masking import Masking
from recbole_alt.data.prompts import PromptTable


def build_masking(config: Any, prompts: PromptTable, table_fields: Sequence[str]) -> Masking:
    """How the fields of the prompts and of the CTR model are masked."""
    return Masking(
        prompts.fields,
        table_fields,
        ratio=config["mask_ratio"],
        level=config["mask_level"],
        fields=config["mask_fields"],
    )


#: Most interactions of a step that reads text, where the configuration gives none.
TEXT_BATCH_SIZE = {"block": 6000, "shuffle": 128}


def build_batches(config: Any, dataset: Any, batch_size: int | None) -> Batches:
    """Which training interactions make a step; blocks only where texts are shared (``prompt_scope: entity``)."""
    kind = config["batch_sampling"]
    has_ids = dataset.uid_field is not None and dataset.iid_field is not None
    if kind == "auto":
        kind = "block" if config["prompt_scope"] == "entity" and has_ids else "shuffle"
    batch_size = TEXT_BATCH_SIZE[kind] if batch_size is None else batch_size
    if kind == "shuffle":
        return ShuffledBatches(len(dataset), batch_size, config["seed"])
    if not has_ids:
        raise ValueError("batch_sampling: block needs USER_ID_FIELD and ITEM_ID_FIELD; use shuffle")
    return BlockBatches(
        dataset.inter_feat[dataset.uid_field].numpy(),
        dataset.inter_feat[dataset.iid_field].numpy(),
        n_users=config["block_users"],
        n_items=config["block_items"],
        batch_size=batch_size,
        seed=config["seed"],
    )
