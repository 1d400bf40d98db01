"""The reference that counts clicks: what it finds, and that no row knows its own label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recbole_alt.click_rates import _column, _holds, _log_odds, click_rates
from recbole_alt.loading import load_data

Loaders = tuple[Any, Any, Any]


@pytest.fixture
def loaders(tiny: Callable[..., Any]) -> Loaders:
    return load_data(tiny())[1:]


def labels(loader: Any) -> Any:
    return loader._dataset.inter_feat[loader._dataset.label_field]


def test_rates_of_known_rows() -> None:
    ids = [np.array([1, 1, 1, 2]), np.array([1, 2, 3])]
    clicked = [np.array([True, True, False, False]), np.array([False, False, False])]
    train, others = _log_odds(ids, clicked, slice(None, None, 2))[4]  # four rows of the overall rate, a half
    rate = [(2 - 1 + 2) / (3 - 1 + 4), (2 + 2) / (3 - 1 + 4)]  # every other row
    assert np.exp(train) / (1 + np.exp(train)) == pytest.approx(rate)
    rate = [(2 + 2) / (3 + 4), (0 + 2) / (1 + 4), 1 / 2]
    assert np.exp(others) / (1 + np.exp(others)) == pytest.approx(rate)


def test_what_users_decide_is_found(loaders: Loaders) -> None:
    for loader in loaders:
        user = loader._dataset.inter_feat[loader._dataset.uid_field]
        labels(loader)[:] = (user % 2).float()
    found = click_rates(loaders)
    assert found["valid"] and found["valid"] > 0.95 and found["test"] and found["test"] > 0.95


def test_nothing_is_found_in_labels_at_random(loaders: Loaders) -> None:
    rng = np.random.default_rng(0)
    for loader in loaders:
        labels(loader)[:] = labels(loader).new_tensor(rng.integers(0, 2, len(labels(loader))))
    found = click_rates(loaders)
    assert all(value is not None and abs(value - 0.5) < 0.15 for value in found.values())


def test_columns_are_those_of_recboles_join(loaders: Loaders) -> None:
    data = loaders[1]._dataset
    joined = data.join(data.inter_feat)
    for name in ("user_id", "item_id", "gender", "year", "device"):
        assert _holds(data, name) and np.array_equal(_column(data, name), joined[name])
    assert not _holds(data, "title")


def test_data_without_token_fields(loaders: Loaders) -> None:
    loaders[0]._dataset.field2type = {}
    assert click_rates(loaders) == {"valid": None, "test": None}


def test_labels_of_one_class(loaders: Loaders) -> None:
    labels(loaders[0])[:] = 1
    assert click_rates(loaders) == {"valid": None, "test": None}
