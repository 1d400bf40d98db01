"""Write a copy of a dataset whose interactions know, by the texts of the items, what their user liked before.

``python examples/earlier_likes.py ml-100k-plots --out=liked --data_path=dataset`` writes ``liked/ml-100k-plots/``, the
same files with these columns more in ``.inter``; keys of the configuration may follow. The columns are of the user's
rows that are strictly earlier in time, whatever part of the split these are in: what a service knows when it is asked.
A row's surplus is its click, 1 or 0, less the click rate of its item in the training rows, without that row.

- ``earlier``: how many earlier rows there are, as ``log(1 + n)``;
- ``earlier_surplus``: the mean of their surpluses, drawn towards 0 where there are few;
- ``FIELD_likes``, for each token field of the items that the CTR model reads, such as a genre: the mean of the
  surpluses, each weighted by how much the values of its item are like those of the row's item, and drawn towards 0;
- ``text_likes``: the same by the items' text vectors;
- ``words_likes``: the same by the words of these texts (TF-IDF): what texts are worth without a language model;
- ``others_text_likes``: ``text_likes``, each item with the text of another one: what such a column is worth where texts
  say nothing.

Likeness is the square of a cosine, 0 where the cosine is negative. Name the columns in ``load_col`` and
``numerical_features`` to use them, with any model and any mode, and compute them for the rows that you score.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from more_columns import pairs, read_rows, require_new, run, write_copy
from recbole.utils import FeatureType
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize

from recbole_alt.config import ALTConfig
from recbole_alt.loading import load_data
from recbole_alt.model.build import load_text_vectors

Vectors = Any  # an array or a sparse matrix [n, K], of the items, of length one or zero

#: Rows with the overall click rate that are added to an item's own, and with a surplus of 0 to a user's.
_ADDED_TO_ITEMS, _ADDED_TO_USERS = 16, 5
#: The likeness of a row with a surplus of 0 that is added to a user's.
_ADDED_LIKENESS = 1.0
_ROWS_AT_ONCE = 1024


def summaries(
    users: np.ndarray, times: np.ndarray, items: np.ndarray, surpluses: np.ndarray, likenesses: Sequence[Vectors]
) -> np.ndarray:
    """Of each row what its user did strictly earlier: ``earlier``, ``earlier_surplus``, and one for each likeness.

    Args:
        users, times, items, surpluses: [N], in any order; ``items`` are rows of the vectors.
        likenesses: vectors of the items whose cosines say how alike these are.

    Returns:
        [N, 2 + the number of likenesses].
    """
    found = np.zeros((len(users), 2 + len(likenesses)))
    for rows in _by_user(users, times):
        first = np.searchsorted(times[rows], times[rows])  # of those at the same time; what is before is earlier
        sums = np.append(0, np.cumsum(surpluses[rows]))
        found[rows, 0], found[rows, 1] = np.log1p(first), sums[first] / (first + _ADDED_TO_USERS)
        for column, vectors in enumerate(likenesses, start=2):
            of_rows = vectors[items[rows]]
            for begin in range(0, len(rows), _ROWS_AT_ONCE):
                part = slice(begin, begin + _ROWS_AT_ONCE)
                cosines = of_rows[part] @ of_rows.T
                weights = np.maximum(cosines if isinstance(cosines, np.ndarray) else cosines.toarray(), 0) ** 2
                weights[np.arange(len(rows)) >= first[part, None]] = 0
                found[rows[part], column] = weights @ surpluses[rows] / (weights.sum(1) + _ADDED_LIKENESS)
    return found


def _by_user(users: np.ndarray, times: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each user, the earliest first."""
    order = np.lexsort((times, users))
    yield from np.split(order, np.flatnonzero(np.diff(users[order])) + 1)


def surpluses_of(items: np.ndarray, clicks: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Clicks less the click rates of their items in the training rows, of which none counts for itself, [N].

    Args:
        items, clicks: [N].
        train: bool [N], the training rows.
    """
    own = train.astype(float)
    size = int(items.max()) + 1
    rows, clicked = (np.bincount(items, weight, size) for weight in (own, own * clicks))
    rate = (clicked[items] - own * clicks + _ADDED_TO_ITEMS * clicks[train].mean()) / (
        rows[items] - own + _ADDED_TO_ITEMS
    )
    surpluses: np.ndarray = clicks - rate
    return surpluses


def field_vectors(dataset: Any, name: str) -> csr_matrix:
    """[n, values] of an item field: which values each item has; 0 is no value."""
    values = np.asarray(dataset.item_feat[name])
    return _weighed(values if values.ndim == 2 else values[:, None], len(dataset.field2id_token[name]))


def word_vectors(dataset: Any) -> csr_matrix:
    """[n, tokens] of the items' texts: which tokens each has; 0 for the padding item."""
    segment = next(segment for segment in dataset.prompts.segments if segment.name == "item")
    everyone = {dataset.iid_field: torch.arange(dataset.item_num)}
    texts = dataset.prompts.distinct_of(segment, everyone)
    batch = texts.join()
    ids = (batch.input_ids * batch.attention_mask).numpy()[texts.row]
    ids[0] = 0
    return _weighed(ids, int(ids.max()) + 1)


def _weighed(values: np.ndarray, size: int) -> csr_matrix:
    """Which of the ``size`` values each row of [n, L] has, rare ones counting more (TF-IDF); 0 is no value."""
    row, column = np.nonzero(values)
    counts = csr_matrix((np.ones(len(row)), (row, values[row, column])), (len(values), size))
    rows_with = np.maximum(counts.getnnz(axis=0), 1)
    return normalize(csr_matrix(counts.log1p().multiply(np.log(len(values) / rows_with))))


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
    dataset, loader, *_ = load_data(config)
    train = loader._dataset
    vectors = normalize(load_text_vectors(config, train, "item", "earlier_likes").cpu().numpy())
    others = np.append(0, 1 + np.random.default_rng(config["seed"]).permutation(len(vectors) - 1))
    kinds = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
    fields = [x for x in dataset.item_feat.columns if x != dataset.iid_field and dataset.field2type.get(x) in kinds]
    likenesses = {
        **{f"{field}_likes": field_vectors(dataset, field) for field in fields},
        "text_likes": vectors,
        "words_likes": word_vectors(train),
        "others_text_likes": vectors[others],
    }
    columns = ["earlier", "earlier_surplus", *likenesses]
    rows = read_rows(config)
    require_new(config, rows, columns)
    number = {token: place for place, token in enumerate(dataset.field2id_token[dataset.iid_field])}
    ((rated, least),) = config["threshold"].items()
    items = rows[dataset.iid_field].map(number).fillna(0).to_numpy(dtype=int)  # 0, like nothing: rows left out
    clicks = (rows[rated].astype(float) >= least).to_numpy(dtype=float)
    of_train, of_all = pairs(dataset, train, rows)
    in_train = np.isin(of_all, of_train)
    users, times = pd.factorize(rows[dataset.uid_field])[0], rows[dataset.time_field].astype(float).to_numpy()
    found = summaries(users, times, items, surpluses_of(items, clicks, in_train), list(likenesses.values()))
    return write_copy(config, out, rows, dict(zip(columns, found.T, strict=True)))


def main() -> int:
    """Write the files."""
    return run((__doc__ or "").splitlines()[0], add_columns)


if __name__ == "__main__":
    sys.exit(main())
