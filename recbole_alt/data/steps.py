"""What a step of training reads: the batches, the loaders and the masks that a configuration asks for."""

from collections.abc import Iterator, Sequence
from logging import getLogger
from typing import Any

import numpy as np
import psutil
import torch

from recbole_alt.data.batches import Batches, BlockBatches, ShuffledBatches, best_block
from recbole_alt.data.masking import Masking
from recbole_alt.data.prompts import PromptTable
from recbole_alt.pretrained import load_config

_BLOCK_ROWS, _SHUFFLED_ROWS = 6000, 128  # the default numbers of interactions of a step that encodes texts
_ROWS_OF_KEPT_TEXTS = 2048  # and of one that doesn't
_BLOCK_TEXTS = 768  # the default number of texts in a block; fewer if memory does not suffice


def build_masking(config: Any, prompts: PromptTable, table_fields: Sequence[str]) -> Masking:
    """The masking of the fields of the prompts and of the CTR model."""
    how = {name: config[f"mask_{name}"] for name in ("ratio", "level", "fields", "texts")}
    return Masking(prompts.fields, table_fields, **how)


def build_batches(config: Any, dataset: Any, batch_size: int | None, *, fixed: bool = False) -> Batches:
    """The batches of training interactions; ``batch_size`` None for the default of their kind.

    By default, they are blocks where a step encodes texts that interactions share (``prompt_scope: entity``), which it
    does unless the language model is ``fixed`` and its texts have few enough masked forms to be kept.
    """
    kind, users, items = config["batch_sampling"], dataset.uid_field, dataset.iid_field
    has_ids = users is not None and items is not None
    share, keep = config["prompt_scope"] == "entity" and has_ids, fixed and config["mask_level"] == "field"
    if kind == "auto":
        kind = "block" if share and not keep else "shuffle"
    if kind == "block" and not has_ids:
        raise ValueError("batch_sampling: block needs USER_ID_FIELD and ITEM_ID_FIELD; use shuffle")
    if kind == "block":
        columns = dataset.inter_feat[users].numpy(), dataset.inter_feat[items].numpy()
        return _build_blocks(config, dataset, *columns, batch_size or _BLOCK_ROWS)
    rows = batch_size or (_ROWS_OF_KEPT_TEXTS if share and keep else _SHUFFLED_ROWS)
    return ShuffledBatches(len(dataset), rows, config["seed"])


def _build_blocks(config: Any, dataset: Any, users: np.ndarray, items: np.ndarray, batch_size: int) -> BlockBatches:
    n_users, n_items = config["block_users"], config["block_items"]
    if (n_users is None) != (n_items is None):
        raise ValueError("block_users and block_items: give both, or neither")
    limits = {"batch_size": batch_size, "seed": config["seed"]}
    if n_users is None:
        texts = config["block_texts"] or min(_BLOCK_TEXTS, texts_in_memory(config, dataset))
        batches = best_block(users, items, texts=texts, **limits)
    else:
        batches = BlockBatches(users, items, n_users=n_users, n_items=n_items, **limits)
    steps, (of_users, of_items) = batches.steps_per_epoch, batches.size()
    getLogger().info(
        f"Blocks of {of_users:,.0f} users and {of_items:,.0f} items on average: {len(users) / steps:,.0f} interactions "
        f"a step, {len(users) / steps / (of_users + of_items):.1f} per text; an epoch of {steps:,} steps visits each "
        "interaction once, however popular its item"
    )
    return batches


def training_loader(config: Any, loader: Any, *, encodes_texts: bool) -> Any:
    """A fresh loader of the rows of RecBole's ``TrainDataLoader``, for one stage of finetuning.

    If every step ``encodes_texts``, its batches share them, which is cheaper; all rows still count alike in an epoch.
    """
    fresh = type(loader)(config, loader._dataset, loader._sampler, shuffle=config["shuffle"])
    if not encodes_texts:
        return fresh if config["worker"] else RowLoader(fresh)
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


class RowLoader(BatchLoader):
    """The batches of RecBole's loader, in the same order, without a Python list of the rows of each.

    Attributes:
        generator: the one that RecBole's loader shuffles with, left in the same state after each epoch.
    """

    def __init__(self, loader: Any):
        self._loader = loader
        self.dataset = self._dataset = loader._dataset
        self.shuffle, self.generator = loader.shuffle, loader.generator

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        rows = self._loader.sample_size
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # DataLoader draws a seed for workers
        order = torch.randperm(rows, generator=self.generator) if self.shuffle else torch.arange(rows)
        yield from map(self._loader.collate_fn, order.split(self._loader.step))
        if self.shuffle:
            torch.randperm(rows, generator=self.generator)  # RandomSampler draws a second order, for no row


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
