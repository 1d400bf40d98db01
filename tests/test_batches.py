"""Which interactions make a step: covered, drawn fairly, and a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alt.data.batches import Batches, BlockBatches, ShuffledBatches, _order_of, best_block

KINDS = ("dense", "power law", "few rows per item")


def epoch_of(batches: Batches, epoch: int) -> list[np.ndarray]:
    steps = batches.steps_per_epoch
    return [batches(step) for step in range(epoch * steps, (epoch + 1) * steps)]


def dense(n_users: int = 40, n_items: int = 30, share: float = 0.4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Interactions of users 100… with items 7, 10, 13, … in mixed order."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < share)
    order = rng.permutation(len(users))
    return users[order] + 100, items[order] * 3 + 7


def data(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """About 800 interactions, in mixed order."""
    rng = np.random.default_rng(seed)
    if kind == "dense":
        return dense(50, 40, 0.4, seed)
    items = rng.zipf(1.3, 800) % 300 if kind == "power law" else rng.integers(0, 400, 800)
    return rng.zipf(1.5, 800) % 60, items


def blocks(users: np.ndarray, items: np.ndarray, seed: int = 3, **keys: int) -> BlockBatches:
    return BlockBatches(users, items, seed=seed, **({"n_users": 8, "n_items": 6, "batch_size": 10_000} | keys))


# -- shuffle -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_shuffle_visits_every_interaction_once_an_epoch(n: int, batch_size: int, seed: int) -> None:
    batches = ShuffledBatches(n, batch_size, seed)
    alone = n > batch_size > 1 and n % batch_size == 1  # the last, which then joins the batch before
    assert batches.steps_per_epoch == -(-n // batch_size) - alone
    for epoch in (0, 1, 5):
        drawn = epoch_of(batches, epoch)
        assert all(min(n, batch_size, 2) <= len(batch) <= batch_size for batch in drawn[:-1])
        assert min(n, batch_size, 2) <= len(drawn[-1]) <= batch_size + alone
        assert sorted(np.concatenate(drawn)) == list(range(n))


def test_shuffle_gives_another_order_each_epoch_and_seed() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(np.concatenate(epoch_of(ShuffledBatches(200, 32, seed), epoch)).tolist())

    orders = {order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert tuple(range(200)) not in orders


# -- any step at any time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shuffle", "block"])
def test_any_step_can_be_had_at_any_time(kind: str) -> None:
    users, items = dense()

    def make(seed: int = 3) -> Batches:
        return ShuffledBatches(len(users), 37, seed) if kind == "shuffle" else blocks(users, items, seed, batch_size=20)

    sequential = make()
    expected = [sequential(step) for step in range(25)]
    jumping = make()
    for step in np.random.default_rng(1).permutation(25):
        assert np.array_equal(jumping(int(step)), expected[step])
        assert np.array_equal(make()(int(step)), expected[step])  # as after a resume
    assert any(not np.array_equal(make(4)(step), expected[step]) for step in range(25))


@pytest.mark.parametrize("kind", ["shuffle", "block"])
def test_global_generator_is_neither_read_nor_moved(kind: str) -> None:
    users, items = dense()
    drawn = []
    for seed in (0, 1):
        np.random.seed(seed)
        state = np.random.get_state()[1].copy()
        batches = ShuffledBatches(len(users), 37, 3) if kind == "shuffle" else blocks(users, items, batch_size=20)
        drawn.append([batches(step).tolist() for step in range(4)])
        assert np.array_equal(np.random.get_state()[1], state)
    assert drawn[0] == drawn[1]


# -- block ---------------------------------------------------------------------------------------------------


def texts_of(users: np.ndarray, items: np.ndarray, rows: np.ndarray) -> int:
    return len(set(users[rows])) + len(set(items[rows]))


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), min_size=1, max_size=80),
    n_users=st.integers(1, 9),
    n_items=st.integers(1, 7),
    batch_size=st.one_of(st.integers(2, 8), st.just(90)),
)
def test_blocks_of_equal_size_visit_every_interaction_once_an_epoch(
    pairs: list[tuple[int, int]], n_users: int, n_items: int, batch_size: int
) -> None:
    users, items = np.array(pairs).T * 5 + 2
    batches = blocks(users, items, n_users=n_users, n_items=n_items, batch_size=batch_size)
    for epoch in (0, 3):
        drawn = epoch_of(batches, epoch)
        sizes = [len(batch) for batch in drawn]
        assert sorted(np.concatenate(drawn)) == list(range(len(pairs)))
        assert max(sizes) - min(sizes) <= 1
        assert min(2, len(pairs)) <= min(sizes) <= max(sizes) <= max(3, batch_size)
    if n_users > 7 and n_items > 5 and batch_size == 90:  # everything fits into one
        assert batches.steps_per_epoch == 1


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), shape=st.sampled_from([(4, 20), (12, 6), (30, 40)]))
def test_visits_do_not_depend_on_popularity(kind: str, seed: int, shape: tuple[int, int]) -> None:
    """At any part of an epoch, too: the first third of many epochs is looked at."""
    users, items = data(kind, seed)
    batches = blocks(users, items, seed=seed, n_users=shape[0], n_items=shape[1], batch_size=60)
    visits = np.zeros(len(users))
    for epoch in range(60):
        for batch in epoch_of(batches, epoch)[: batches.steps_per_epoch // 3]:
            visits[batch] += 1
    for ids in (users, items):
        popular = np.argsort(np.bincount(ids)[ids], kind="stable")
        deciles = [visits[rows].mean() for rows in np.array_split(popular, 10)]
        assert max(deciles) < 2 * min(deciles)
    assert (visits > 0).all()


@pytest.mark.parametrize("kind", ["dense", "power law"])
def test_blocks_share_texts(kind: str) -> None:
    users, items = data(kind, 1)
    batches = blocks(users, items, n_users=12, n_items=15, batch_size=120)
    shuffled = ShuffledBatches(len(users), len(batches(0)), 3)
    drawn = [batch for epoch in range(5) for batch in epoch_of(batches, epoch)]
    texts = sum(texts_of(users, items, batch) for batch in drawn)
    assert texts < 0.8 * sum(texts_of(users, items, batch) for epoch in range(5) for batch in epoch_of(shuffled, epoch))
    of_users, of_items = batches.size()
    assert of_users == np.mean([len(set(users[batch])) for batch in drawn[: batches.steps_per_epoch]])
    assert of_items == np.mean([len(set(items[batch])) for batch in drawn[: batches.steps_per_epoch]])
    assert of_users <= 12 + 1
    assert of_items <= 15 + 1


def test_each_epoch_has_other_blocks() -> None:
    batches = blocks(*dense(), batch_size=20)
    drawn = [{frozenset(batch.tolist()) for batch in epoch_of(batches, epoch)} for epoch in (0, 1)]
    assert not drawn[0] & drawn[1]
    assert any(batch.tolist() != sorted(batch) for batch in epoch_of(batches, 0))


def test_sparse_data_with_one_interaction_a_user_works() -> None:
    users, items = np.arange(30), np.arange(30)[::-1].copy()
    batches = blocks(users, items, n_users=8, n_items=5)
    assert sorted(len(batch) for batch in epoch_of(batches, 0)) == [3, 3, 4, 4, 4, 4, 4, 4]
    one = blocks(np.array([4]), np.array([9]))
    assert one.steps_per_epoch == 1
    assert one(0).tolist() == one(7).tolist() == [0]


def test_the_best_block_fits_the_data() -> None:
    rng = np.random.default_rng(0)
    few_items = rng.integers(0, 500, 4000), rng.integers(0, 12, 4000)
    few_users = few_items[::-1]
    for (users, items), least in ((few_items, "items"), (few_users, "users")):
        chosen = best_block(users, items, texts=80, batch_size=10**6, seed=0)
        square = BlockBatches(users, items, n_users=40, n_items=40, batch_size=10**6, seed=0)
        assert (chosen.size()[1] < chosen.size()[0]) == (least == "items")
        assert sum(chosen.size()) < 80 + 2
        texts_of_epoch = [batches.steps_per_epoch * sum(batches.size()) for batches in (chosen, square)]
        assert texts_of_epoch[0] <= texts_of_epoch[1]
    assert best_block(*few_items, texts=2, batch_size=5, seed=0).steps_per_epoch == 2000


# -- in linear time ------------------------------------------------------------------------------------------


@given(keys=st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_rows_are_sorted_as_by_a_stable_sort(keys: list[int]) -> None:
    assert _order_of(np.array(keys)).tolist() == np.argsort(keys, kind="stable").tolist()


def test_trying_blocks_out_changes_none_of_them() -> None:
    users, items = data("power law", 4)
    tried = best_block(users, items, texts=20, batch_size=30, seed=5)
    made = tried.steps_per_epoch * 2
    for n in range(1, 20):
        alone = BlockBatches(users, items, n_users=n, n_items=20 - n, batch_size=30, seed=5)
        if alone.steps_per_epoch * 2 == made and all(np.array_equal(tried(s), alone(s)) for s in range(made)):
            return
    raise AssertionError("the blocks are none that BlockBatches makes of these sizes")
