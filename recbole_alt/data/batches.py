"""The interactions of each step, as a pure function of (seed, step).

Both kinds of batches visit every interaction once per epoch, in batches of equal size, so that the mean over the
batches of an epoch is the mean over the interactions. ``shuffle`` draws them in random order. ``block`` draws
interactions between few users and few items, which share texts: their number grows with that of the users and items,
the number of interactions with its product.
"""

from __future__ import annotations

import copy
from typing import Protocol

import numpy as np
from scipy.sparse import csr_matrix

_SHARES_OF_USERS = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 7 / 8)  # that best_block tries
_LOOKED_AT = 32  # blocks whose texts are counted


class Batches(Protocol):
    """The batches of an endless run, by their step."""

    steps_per_epoch: int

    def __call__(self, step: int) -> np.ndarray:
        """The indices of the interactions of ``step``, counted from 0 over the whole run."""


def _rng(seed: int, *path: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *path]))


def _shuffled(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other ids, the same for the same, in random order."""
    return rng.permutation(ids.max() + 1)[ids]


def _order_of(keys: np.ndarray) -> np.ndarray:
    """What sorts whole numbers from 0 on [n], equal ones in their order; in linear time, unlike ``argsort``."""
    n = len(keys)
    places = np.arange(n + 1, dtype=np.int32 if n < 2**31 - 1 else np.int64)
    order: np.ndarray = csr_matrix((places[:n], keys, places), shape=(n, int(keys.max()) + 1)).tocsc().data
    return order


class _Deal:
    """The interactions of an epoch in random orders of the users and of the items.

    Attributes:
        order: [n], the interactions by user.
        by_item: [n], the places in ``order``, by item.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, rng: np.random.Generator):
        self.order = _order_of(_shuffled(users, rng))
        self.by_item = _order_of(_shuffled(items[self.order], rng))
        self._rng = rng

    def blocks(self, count: int) -> np.ndarray:
        """The random order of the epoch's blocks."""
        return copy.deepcopy(self._rng).permutation(count)

    def grouped(self, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The interactions [n], those of each group by item, and their groups; ``cuts`` are the groups' places."""
        group = np.repeat(np.arange(len(cuts) - 1, dtype=np.int32), np.diff(cuts))
        return self.order[self.by_item[_order_of(group[self.by_item])]], group


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
    """Every interaction once per epoch, in blocks of interactions between few users and few items.

    An epoch cuts the interactions, ordered by user, into groups of equal size with ``n_users`` users on average, and
    each group, ordered by item, into blocks of equal size. The orders of users, items and blocks are random, so that at
    every step each interaction is as likely as any other, however popular its item and however active its user. A user
    or an item at a cut belongs to both sides. ``users`` and ``items`` [n] are those of each interaction.

    Attributes:
        steps_per_epoch: so many that a block has at most ``batch_size`` interactions (3 where that is 2) and, in the
            group with the most items, ``n_items`` items on average.
    """

    def __init__(
        self, users: np.ndarray, items: np.ndarray, *, n_users: int, n_items: int, batch_size: int, seed: int,
        first: _Deal | None = None,
    ):  # fmt: skip
        self._users, self._items, self._seed = users, items, seed
        n, most = len(users), max(1, len(users) // 2)  # a block has two interactions at least
        self._first: _Deal | None = first or _Deal(users, items, _rng(seed, 0))
        self._groups = self.steps_per_epoch = min(-(-_distinct(users) // n_users), most)
        order, group = self._first.grouped(self._bounds())
        begins = np.ones(n, dtype=bool)  # an item of a group
        begins[1:] = (np.diff(items[order]) != 0) | (np.diff(group) != 0)
        blocks = self._groups * -(-int(np.bincount(group[begins]).max()) // n_items)
        self.steps_per_epoch = min(max(blocks, -(-n // batch_size)), most)
        self._epoch, self._order, self._blocks = -1, order, order

    def __call__(self, step: int) -> np.ndarray:
        """The indices of the interactions of ``step``, in random order."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            deal = (self._first if epoch == 0 else None) or _Deal(self._users, self._items, _rng(self._seed, epoch))
            self._first = None  # is made again if anyone asks
            order, _ = deal.grouped(self._bounds())
            self._epoch, self._order, self._blocks = epoch, order, deal.blocks(self.steps_per_epoch)
        start, end = self._cuts(self._blocks[within] + np.arange(2))
        return _rng(self._seed, epoch, within + 1).permutation(self._order[start:end].astype(np.int64))

    def _bounds(self) -> np.ndarray:
        """Where the groups start, and the end of the last one."""
        return self._cuts(np.arange(self._groups + 1) * self.steps_per_epoch // self._groups)

    def _cuts(self, blocks: np.ndarray) -> np.ndarray:
        """Where the given blocks of an epoch start."""
        return blocks * len(self._users) // self.steps_per_epoch

    def size(self) -> tuple[float, float]:
        """The numbers of users and items of a block, averaged over the first ones."""
        blocks = [self(step) for step in range(min(_LOOKED_AT, self.steps_per_epoch))]
        users, items = (np.mean([len(np.unique(ids[rows])) for rows in blocks]) for ids in (self._users, self._items))
        return float(users), float(items)


def best_block(users: np.ndarray, items: np.ndarray, *, texts: int, batch_size: int, seed: int) -> BlockBatches:
    """The blocks of at most about ``texts`` users and items (at least 2) that have the most interactions per text.

    Dense data gain from as many users as items; where users met few items each, many users around few items share more.
    The other arguments are those of :class:`BlockBatches`.
    """
    people, first = _distinct(users), _Deal(users, items, _rng(seed, 0))
    groups = {-(-people // max(1, round(texts * share))) for share in _SHARES_OF_USERS}
    numbers = sorted({min(texts - 1, -(-people // number)) for number in groups})
    tried = (
        BlockBatches(users, items, n_users=n, n_items=texts - n, batch_size=batch_size, seed=seed, first=first)
        for n in numbers
    )
    return min(tried, key=lambda batches: batches.steps_per_epoch * sum(batches.size()))


def _distinct(ids: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(ids)))
