"""The interactions of each step, as a pure function of (seed, step).

``shuffle`` visits every interaction once per epoch in random order. ``block`` draws a set of users and the items that
they met most often (in proportion), and trains on every interaction between the two: the number of texts grows with the
users and items drawn, the number of interactions with their product.

An epoch of blocks deals every user once. An interaction is visited if its item is drawn: its probability is above zero
in every epoch, grows with how often the group of users met the item, and is one if the group met no more items than are
drawn. Interactions beyond ``batch_size`` are thinned evenly. :meth:`BlockBatches.sampled` measures the coverage.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

_SHARES_OF_USERS = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 7 / 8)  # that best_block tries


class Batches(Protocol):
    """The batches of an endless run, by their step."""

    steps_per_epoch: int

    def __call__(self, step: int) -> np.ndarray:
        """The indices of the interactions of ``step``, counted from 0 over the whole run."""


def _rng(seed: int, *path: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *path]))


class ShuffledBatches:
    """Every one of ``n`` interactions, at least 1, once per epoch; a single last one joins the batch before."""

    def __init__(self, n: int, batch_size: int, seed: int):
        self._n, self._batch_size, self._seed = n, batch_size, seed
        self.steps_per_epoch = max(1, n // batch_size + (n % batch_size > 1))
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def __call__(self, step: int) -> np.ndarray:
        """The indices [at most batch_size + 1] of the interactions of ``step``."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, _rng(self._seed, epoch).permutation(self._n)
        end = self._n if within == self.steps_per_epoch - 1 else (within + 1) * self._batch_size
        return self._order[within * self._batch_size : end]


class BlockBatches:
    """All interactions between a set of users and a set of items that they met.

    An epoch deals all users, shuffled, into groups of ``n_users``. Of the items that a group met, ``n_items`` are drawn
    without replacement in proportion to how often they were met. A single interaction is joined by any other one, and
    more than ``batch_size`` are thinned at random. ``users`` and ``items`` [n] are those of each interaction.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, *, n_users: int, n_items: int, batch_size: int, seed: int):
        self._columns = users, items
        order = np.argsort(users, kind="stable")
        self._users, self._first = np.unique(users[order], return_index=True)
        self._last = np.append(self._first[1:], len(users))
        self._order, self._items = order, items[order]
        self._n_users, self._n_items = min(n_users, len(self._users)), n_items
        self._batch_size, self._seed = batch_size, seed
        self.steps_per_epoch = -(-len(self._users) // self._n_users)

    def __call__(self, step: int) -> np.ndarray:
        """The indices [at most batch_size] of the interactions of ``step``, in random order."""
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
        rows = self._order[rng.permutation(met)[: self._batch_size]]
        if len(rows) == 1 < min(len(self._order), self._batch_size):
            rows = np.append(rows, (rows[0] + rng.integers(1, len(self._order))) % len(self._order))
        return rows

    def sampled(self, steps: int = 8) -> BlockSample:
        """The averages of the first ``steps`` blocks."""
        steps = min(steps, self.steps_per_epoch)
        blocks = [self(step) for step in range(steps)]
        users, items = self._columns
        texts = sum(len(np.unique(users[block])) + len(np.unique(items[block])) for block in blocks)
        visits = sum(map(len, blocks))
        return BlockSample(visits / steps, visits / texts, visits / steps * self.steps_per_epoch / len(users))


class BlockSample(NamedTuple):
    """Averages over blocks."""

    interactions: float  # per block
    per_text: float  # interactions per distinct user or item of a block
    of_epoch: float  # visits per epoch, as a share of all interactions


def best_block(users: np.ndarray, items: np.ndarray, *, texts: int, batch_size: int, seed: int) -> tuple[int, int]:
    """The numbers of users and items of the block of ``texts`` texts (at least 2) that has the most interactions.

    Dense data gain from a square block; if users met few items each, many users around few items share more. The other
    arguments are those of :class:`BlockBatches`.
    """
    found = {}
    for n_users in {max(1, min(texts - 1, round(texts * share))) for share in _SHARES_OF_USERS}:
        tried = BlockBatches(users, items, n_users=n_users, n_items=texts - n_users, batch_size=batch_size, seed=seed)
        found[n_users] = tried.sampled().interactions
    n_users = max(found, key=lambda n: (found[n], -n))
    return n_users, texts - n_users
