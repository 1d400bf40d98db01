"""Write a copy of a dataset whose interactions know, by the texts of the items, what their user liked before.

``python examples/earlier_likes.py ml-1m --out=liked --data_path=dataset`` writes ``liked/ml-1m/``, the same files with
these columns more in ``.inter``; keys of the configuration may follow. The columns are of the user's rows that are
strictly earlier in time, whatever part of the split these are in: what a service knows when it is asked.

- ``earlier``: how many there are, as ``log(1 + n)``;
- ``earlier_clicks``: the share of clicks among them, drawn towards the average of the training rows;
- ``liked_texts``, ``disliked_texts``: how much the item's text is like those of earlier items, clicked ones and others:
  the mean cosine of the text vectors, drawn towards zero where there are few;
- ``liked_others_texts``, ``disliked_others_texts``: the same, each item with the text of another one: what such columns
  are worth where texts say nothing.

Name the columns in ``load_col`` and ``numerical_features`` to use them, with any model and any mode, and compute them
for the rows that you score.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from more_columns import read_rows, require_new, run, write_copy

from recbole_alt.config import ALTConfig
from recbole_alt.loading import load_data
from recbole_alt.model.build import load_text_vectors

#: Earlier rows that a share of clicks, and that a mean cosine, is drawn towards its centre by.
_PRIOR_CLICKS, _PRIOR_TEXTS = 5, 3
#: Of the columns that this adds to ``.inter``, in their order.
COLUMNS = ("earlier", "earlier_clicks", "liked_texts", "disliked_texts", "liked_others_texts", "disliked_others_texts")


def summaries(
    users: np.ndarray, times: np.ndarray, items: np.ndarray, clicks: np.ndarray, vectors: np.ndarray, average: float
) -> np.ndarray:
    """Of each row what its user did strictly earlier: the first four of :data:`COLUMNS`, [N, 4].

    Args:
        users, times, items, clicks: [N], in any order; ``items`` are rows of ``vectors``.
        vectors: [n, K], of length one or zero.
        average: the share of clicks that ``earlier_clicks`` is drawn towards.
    """
    found = np.empty((len(users), 4))
    for rows in _by_user(users, times):
        liked = clicks[rows].astype(float)
        texts = vectors[items[rows]]
        first = np.searchsorted(times[rows], times[rows])  # of those at the same time; what is before is earlier
        earlier, clicked = _before(np.ones(len(rows)), first), _before(liked, first)
        found[rows, 0] = np.log1p(earlier)
        found[rows, 1] = (clicked + _PRIOR_CLICKS * average) / (earlier + _PRIOR_CLICKS)
        for column, (weight, count) in enumerate(((liked, clicked), (1 - liked, earlier - clicked)), start=2):
            cosines = (_before(weight[:, None] * texts, first) * texts).sum(1)
            found[rows, column] = cosines / (count + _PRIOR_TEXTS)
    return found


def _by_user(users: np.ndarray, times: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each user, the earliest first."""
    order = np.lexsort((times, users))
    yield from np.split(order, np.flatnonzero(np.diff(users[order])) + 1)


def _before(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The sum of ``values`` [N, ...] before row ``first`` [N]."""
    sums = np.cumsum(values, axis=0)
    return np.concatenate([np.zeros_like(sums[:1]), sums])[first]


def add_columns(config: ALTConfig, out: Path) -> Path:
    """Write the files of the dataset of ``config`` with these columns into ``out/NAME/``, and return that folder.

    Raises:
        ValueError: items without texts, a split that is not by time, clicks that are not those of one threshold, or
            data that have such a column.
    """
    name = config["dataset"]
    if config["eval_args"]["order"] != "TO":
        raise ValueError(f"{name}: what is earlier needs a split by time: set order: TO in eval_args")
    if len(config["threshold"] or ()) != 1:
        raise ValueError(
            f"threshold must name the one column whose values are clicks or not, not {config['threshold']}"
        )
    dataset, train, *_ = load_data(config)
    vectors = load_text_vectors(config, train._dataset, "item", "earlier_likes").cpu().numpy()
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    others = np.append(0, 1 + np.random.default_rng(config["seed"]).permutation(len(vectors) - 1))
    rows = read_rows(config)
    require_new(config, rows, COLUMNS)
    number = {token: place for place, token in enumerate(dataset.field2id_token[dataset.iid_field])}
    ((rated, least),) = config["threshold"].items()
    given = (
        pd.factorize(rows[dataset.uid_field])[0],
        rows[dataset.time_field].astype(float).to_numpy(),
        rows[dataset.iid_field].map(number).fillna(0).to_numpy(dtype=int),  # 0, without a text: rows left out
        rows[rated].astype(float).to_numpy() >= least,
    )
    average = float(train._dataset.inter_feat[dataset.label_field].float().mean())
    own, theirs = (summaries(*given, of, average) for of in (vectors, vectors[others]))
    return write_copy(config, out, rows, dict(zip(COLUMNS, [*own.T, *theirs[:, 2:].T], strict=True)))


def main() -> int:
    """Write the files."""
    return run((__doc__ or "").splitlines()[0], add_columns)


if __name__ == "__main__":
    sys.exit(main())
