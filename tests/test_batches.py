"""Which interactions make a step: covered, drawn fairly, and a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alt.data.batches import Batches, BlockBatches, ShuffledBatches, best_block


def epoch_of(batches: Batches, epoch: int) -> list[np.ndarray]:
    steps = batches.steps_per_epoch
    return [batches(step) for step in range(epoch * steps, (epoch + 1) * steps)]


def dense(n_users: int = 40, n_items: int = 30, share: float = 0.4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Interactions of users 100… with items 7, 10, 13, … in mixed order."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < share)
    order = rng.permutation(len(users))
    return users[order] + 100, items[order] * 3 + 7


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


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), min_size=1, max_size=80),
    n_users=st.integers(1, 9),
    n_items=st.integers(1, 7),
    batch_size=st.one_of(st.integers(1, 8), st.just(90)),
)
def test_block_holds_the_interactions_of_few_users_with_few_items(
    pairs: list[tuple[int, int]], n_users: int, n_items: int, batch_size: int
) -> None:
    users, items = np.array(pairs).T * 5 + 2
    batches = blocks(users, items, n_users=n_users, n_items=n_items, batch_size=batch_size)
    for step in range(2 * batches.steps_per_epoch):
        drawn = batches(step)
        assert min(2, batch_size, len(pairs)) <= len(drawn) <= batch_size
        assert len(set(drawn.tolist())) == len(drawn)
        assert drawn.min() >= 0
        assert drawn.max() < len(pairs)
        if len(drawn) == 2:  # the second may be there so that the first is not alone
            continue
        assert len(set(users[drawn])) <= n_users
        assert len(set(items[drawn])) <= n_items
        if len(drawn) < batch_size:  # nothing thinned: every interaction between the users and the items
            between = np.isin(users, users[drawn]) & np.isin(items, items[drawn])
            assert sorted(drawn) == np.flatnonzero(between).tolist()


@pytest.mark.parametrize("n_users", [1, 7, 8, 40, 1000])
def test_users_are_dealt_once_an_epoch(n_users: int) -> None:
    users, items = dense()
    batches = blocks(users, items, n_users=n_users, n_items=10_000)
    assert batches.steps_per_epoch == -(-len(set(users)) // n_users)
    for epoch in (0, 1):
        drawn = epoch_of(batches, epoch)
        groups = [set(users[batch]) for batch in drawn]
        assert sum(map(len, groups)) == len(set().union(*groups)) == len(set(users))
        assert sorted(np.concatenate(drawn)) == list(range(len(users)))  # all items: all interactions
    if 1 < n_users < 40:
        assert groups[0] != set(users[batches(0)])  # dealt anew


def test_items_are_drawn_in_proportion_to_how_often_they_were_met() -> None:
    users = np.repeat(np.arange(20), 2)
    items = np.where(np.arange(40) % 2 == 0, 0, 1 + np.arange(40) // 8)  # item 0 by all 20, items 1 to 5 by 4 each
    batches = blocks(users, items, n_users=20, n_items=1)
    first = np.array([items[batches(step)[0]] for step in range(600)])
    assert np.mean(first == 0) == pytest.approx(0.5, abs=0.08)
    for item in range(1, 6):
        assert np.mean(first == item) == pytest.approx(0.1, abs=0.05)


def test_block_thins_at_random_to_the_batch_size() -> None:
    users, items = dense()
    batches = blocks(users, items, n_users=1000, n_items=1000, batch_size=50)
    drawn = [batches(step) for step in range(60)]
    assert all(len(batch) == 50 for batch in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=len(users))
    assert (counts > 0).mean() > 0.95  # thinned at random, not the same rows each time
    assert abs(np.corrcoef(counts, np.arange(len(users)))[0, 1]) < 0.25


def test_sparse_data_with_one_interaction_a_user_works() -> None:
    users, items = np.arange(30), np.arange(30)[::-1].copy()
    batches = blocks(users, items, n_users=8, n_items=5)
    for epoch in (0, 1):
        drawn = epoch_of(batches, epoch)
        assert [len(batch) for batch in drawn] == [5, 5, 5, 5]
        assert len(set(np.concatenate(drawn).tolist())) == 20
    one = blocks(np.array([4]), np.array([9]))
    assert one.steps_per_epoch == 1
    assert one(0).tolist() == one(7).tolist() == [0]


def test_every_interaction_is_visited_in_time() -> None:
    users, items = (part.astype(np.int64) for part in np.divmod(np.arange(600), 20))
    keep = np.random.default_rng(0).random(600) < 0.4
    users, items = users[keep], items[keep]
    batches = BlockBatches(users, items, n_users=7, n_items=6, batch_size=40, seed=3)
    visits = np.zeros(len(users), dtype=int)
    for step in range(60 * batches.steps_per_epoch):
        visits[batches(step)] += 1
    assert visits.min() > 0
    sample = batches.sampled(10**6)
    first = [batches(step) for step in range(batches.steps_per_epoch)]
    assert sample.interactions == np.mean([len(block) for block in first])
    assert sample.of_epoch == pytest.approx(sum(map(len, first)) / len(users))
    texts = sum(len(set(users[block])) + len(set(items[block])) for block in first)
    assert sample.per_text == pytest.approx(sum(map(len, first)) / texts)


def test_the_best_block_fits_the_data() -> None:
    rng = np.random.default_rng(0)
    few_items = rng.integers(0, 500, 4000), rng.integers(0, 12, 4000)
    few_users = few_items[::-1]
    for (users, items), least in ((few_items, "items"), (few_users, "users")):
        n_users, n_items = best_block(users, items, texts=80, batch_size=10**6, seed=0)
        assert n_users + n_items == 80
        assert (n_items < n_users) == (least == "items")
        chosen, square = (
            BlockBatches(users, items, n_users=n, n_items=80 - n, batch_size=10**6, seed=0).sampled()
            for n in (n_users, 40)
        )
        assert chosen.interactions >= square.interactions
    assert sum(best_block(*few_items, texts=2, batch_size=5, seed=0)) == 2
