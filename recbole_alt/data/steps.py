"""What a step of training reads: the batches, the loaders and the masks that a configuration asks for."""

from collections.abc import Iterator, Sequence
from logging import getLogger
from typing import Any

import psutil
import torch

from recbole_alt.data.batches import Batches, BlockBatches, ShuffledBatches, best_block
from recbole_alt.data.masking import Masking
from recbole_alt.data.prompts import PromptTable
from recbole_alt.pretrained import load_config

_TEXT_BATCH_SIZE = {"block": 6000, "shuffle": 128}  # the default number of interactions of a step that reads text
_BLOCK_TEXTS = 576  # the default number of texts in a block; fewer if memory does not suffice


def build_masking(config: Any, prompts: PromptTable, table_fields: Sequence[str]) -> Masking:
    """The masking of the fields of the prompts and of the CTR model."""
    how = {name: config[f"mask_{name}"] for name in ("ratio", "level", "fields")}
    return Masking(prompts.fields, table_fields, **how)


def build_batches(config: Any, dataset: Any, batch_size: int | None) -> Batches:
    """The batches of training interactions; blocks by default if these share texts (``prompt_scope: entity``)."""
    kind = config["batch_sampling"]
    has_ids = dataset.uid_field is not None and dataset.iid_field is not None
    if kind == "auto":
        kind = "block" if config["prompt_scope"] == "entity" and has_ids else "shuffle"
    batch_size = _TEXT_BATCH_SIZE[kind] if batch_size is None else batch_size
    if kind == "shuffle":
        return ShuffledBatches(len(dataset), batch_size, config["seed"])
    if not has_ids:
        raise ValueError("batch_sampling: block needs USER_ID_FIELD and ITEM_ID_FIELD; use shuffle")
    users = dataset.inter_feat[dataset.uid_field].numpy()
    items = dataset.inter_feat[dataset.iid_field].numpy()
    n_users, n_items = config["block_users"], config["block_items"]
    if (n_users is None) != (n_items is None):
        raise ValueError("block_users and block_items: give both, or neither")
    if n_users is None:
        texts = config["block_texts"] or min(_BLOCK_TEXTS, texts_in_memory(config, dataset))
        n_users, n_items = best_block(users, items, texts=texts, batch_size=batch_size, seed=config["seed"])
    batches = BlockBatches(users, items, n_users=n_users, n_items=n_items, batch_size=batch_size, seed=config["seed"])
    sample = batches.sampled()
    getLogger().info(
        f"Blocks of {n_users} users and {n_items} items: {sample.interactions:,.0f} interactions a step, "
        f"{sample.per_text:.1f} per text; an epoch of {batches.steps_per_epoch} steps makes {sample.of_epoch:.0%} as "
        "many visits as there are interactions"
    )
    return batches


def training_loader(config: Any, loader: Any, *, encodes_texts: bool) -> Any:
    """A fresh loader of the rows of RecBole's ``TrainDataLoader``, for one stage of finetuning.

    If every step ``encodes_texts``, its batches share them, which is cheaper.
    """
    fresh = type(loader)(config, loader._dataset, loader._sampler, shuffle=config["shuffle"])
    if not encodes_texts:
        return fresh
    return BatchLoader(fresh, build_batches(config, loader._dataset, config["text_batch_size"]))


class BatchLoader:
    """Iterates one epoch at a time over the steps of ``batches``.

    The ``collate_fn`` of RecBole's loader makes each batch, so its transforms and negative sampling apply.
    """

    def __init__(self, loader: Any, batches: Batches):
        self._loader, self._batches = loader, batches
        self.dataset = self._dataset = loader._dataset
        self.shuffle = True
        self.epoch = 0

    def __len__(self) -> int:
        return self._batches.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        start = self.epoch * len(self)
        return (self._loader.collate_fn(self._batches(step)) for step in range(start, start + len(self)))

    def get_model(self, model: Any) -> None:
        """For RecBole's dynamic negative sampling."""
        self._loader.get_model(model)


def texts_in_memory(config: Any, dataset: Any) -> int:
    """A rough estimate of how many texts a step of alignment can encode in half of the memory; at least 2.

    A layer keeps about 34 floats per token and unit of width for the backward pass; a text is encoded whole and masked.
    """
    encoder = load_config(config["language_model"])
    layers = config["language_model_layers"] or encoder.num_hidden_layers
    texts = dataset.prompts.batches(dataset[: min(len(dataset), 256)])
    tokens = max(float(batch.attention_mask.sum(1).float().mean()) for batch in texts)
    per_text = 2 * tokens * layers * encoder.hidden_size * 34 * 4
    if config["gradient_checkpointing"]:
        per_text /= layers
    return max(2, int(total_memory(config["device"]) / 2 / per_text))


def total_memory(device: torch.device) -> int:
    """The memory of the GPU, or else of the machine, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
