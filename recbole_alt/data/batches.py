"""Which interactions make a pretraining step, as a pure function of (seed, step).

``shuffle`` visits every interaction once an epoch in random order. ``block`` draws a set of users and the
items those users met most often (in proportion), and trains on every interaction between the two: the
number of texts grows with the users and items drawn, the number of interactions with their product.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Batches(Protocol):
    """Random access to the batches of an endless run."""

    steps_per_epoch: int

    def __call__(self, step: int) -> np.ndarray:
        """Indices of the interactions of ``step`` (counted from 0 over the whole run)."""


def _rng(seed: int, *path: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *path]))


class ShuffledBatches:
    """Every interaction once an epoch.

    Args:
        n: number of interactions, at least 1.
        batch_size: interactions a step.
        seed: seed of the order.
    """

    def __init__(self, n: int, batch_size: int, seed: int):
        self._n, self._batch_size, self._seed = n, batch_size, seed
        self.steps_per_epoch = -(-n // batch_size)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def __call__(self, step: int) -> np.ndarray:
        """Indices [at most batch_size] of the interactions of ``step``."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, _rng(self._seed, epoch).permutation(self._n)
        return self._order[within * self._batch_size : (within + 1) * self._batch_size]


class BlockBatches:
    """All interactions between a set of users and a set of items they met.

    Users are visited equally often: an epoch deals all of them, shuffled, into groups of ``n_users``. Of the
    items a group met, ``n_items`` are drawn without replacement in proportion to how often they were met.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction.
        n_users: users a block.
        n_items: items a block.
        batch_size: at most so many interactions; more are thinned at random.
        seed: seed of the draws.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, *, n_users: int, n_items: int, batch_size: int, seed: int):
        order = np.argsort(users, kind="stable")
        self._users, self._first = np.unique(users[order], return_index=True)
        self._last = np.append(self._first[1:], len(users))
        self._order, self._items = order, items[order]
        self._n_users, self._n_items = min(n_users, len(self._users)), n_items
        self._batch_size, self._seed = batch_size, seed
        self.steps_per_epoch = -(-len(self._users) // self._n_users)

    def __call__(self, step: int) -> np.ndarray:
        """Indices [at most batch_size] of the interactions of ``step``, in random order."""
        epoch, within = divmod(step, self.steps_per_epoch)
        dealt = _rng(self._seed, epoch).permutation(len(self._users))
        group = dealt[within * self._n_users : (within + 1) * self._n_users]
        rng = _rng(self._seed, epoch, within + 1)
        lengths = self._last[group] - self._first[group]
        ends = np.cumsum(lengths)
        met = np.arange(ends[-1]) + np.repeat(self._first[group] - (ends - lengths), lengths)
        items, counts = np.unique(self._items[met], return_counts=True)
        if len(items) > self._n_items:
            items = rng.choice(items, self._n_items, replace=False, p=counts / counts.sum())
            met = met[np.isin(self._items[met], items)]
        return self._order[rng.permutation(met)[: self._batch_size]]
