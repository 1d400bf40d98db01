"""The users, or the items, of new rows: those of the run, and behind them new ones that a file describes."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_alt.data.prompts import PromptTable
from recbole_alt.data.template import USER
from recbole_alt.model.build import build_text
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.text_vectors import as_sequence, field_name, make_vectors
from recbole_alt.prediction.features import Features, below, known_ids, read_features
from recbole_alt.prediction.refusals import refuse_repeated
from recbole_alt.prediction.tables import Form, Source, place_of, read_columns
from recbole_alt.prediction.texts import ENTRY, NewWords


class Side:
    """What is known of the users, or of the items, of N rows.

    Args:
        dataset: the built training dataset of the run.
        side: ``user`` or ``item``.
        ids: the ids of the rows as the files write them, [N].
        features: names of the side's fields that the CTR model reads, its id apart.
        in_prompts: names of the side's fields in the prompts.
        source: describes new ones; None for nothing.
        words: to which those of new ones are added; None if no text is read.

    Attributes:
        field: the name of the id.
        known: value of the id → its number in the run.
        place: of each row, [N]: its id in the run, a number behind these for a new one that ``source`` describes, or 0.
        new_ids: the ids that are new to the run.
        is_new: True for rows with one of these, [N].
        without_id: how many rows have none.
        is_given: True if there is a ``source``.
        described: how many of them it describes.
        columns: feature → its values by place.
        entries: field of the prompts → its entries by place.
        features: of those that ``source`` describes; codes without a name in the template are new values, too.

    Raises:
        ValueError: ``source`` can't be read, lacks a column or describes a new id twice, or the run has nothing to say
            about this side.
    """

    def __init__(
        self, dataset: Any, side: str, ids: pd.Series, features: Sequence[str], in_prompts: Sequence[str],
        source: Source | None, words: NewWords | None,
    ):  # fmt: skip
        self.side, self.field = side, dataset.uid_field if side == USER else dataset.iid_field
        self.size = len(dataset.field2id_token[self.field])
        self.known = known_ids(dataset, self.field)
        known = ids.map(self.known).astype(np.float64)
        self.is_new = (known.isna() & ids.notna()).to_numpy()
        self.without_id = int(ids.isna().sum())
        self.new_ids = set(ids[self.is_new])
        frame, self.is_given = pd.DataFrame({self.field: []}), source is not None
        if source is not None:
            said = dict.fromkeys([*features, *in_prompts])
            frame = self._read(dataset, source, [name for name in said if name != self.field])
        self.described = len(frame)
        places = dict(zip(frame[self.field], range(self.size, self.size + len(frame)), strict=True))
        self.place = known.fillna(ids.map(places).astype(np.float64)).fillna(0).to_numpy(dtype=np.int64)
        self.features: Features = read_features(dataset, frame, features if len(frame) else ())
        feat = getattr(dataset, f"{side}_feat")
        self.columns = {name: below(feat[name], self.features.columns.get(name)) for name in features}
        self.entries: dict[str, np.ndarray] = {}
        if words is not None:
            for name in in_prompts:
                new = words.entries(name, frame[name]) if len(frame) else np.zeros(0, dtype=np.int64)
                self.entries[name] = np.concatenate([words.known(name, self.size), new])
                self._count_nameless(words, frame, name)

    def _count_nameless(self, words: NewWords, frame: pd.DataFrame, name: str) -> None:
        """Count the codes without a name in ``frame``, unless they are counted as ids or features."""
        is_counted = name == self.field or name in self.features.unknown
        nameless = None if is_counted or not len(frame) else words.codes_without_name(name, frame[name])
        if nameless is not None:
            self.features.add_new(name, nameless)

    def _read(self, dataset: Any, source: Source, names: Sequence[str]) -> pd.DataFrame:
        """The rows of ``source`` about new ids, one for each; two about the same are a ValueError."""
        if getattr(dataset, f"{self.side}_feat") is None:
            raise ValueError(f"{self.side}: the run has read no .{self.side} file to go by: leave it out")
        kinds = {self.field: "token"} | {name: dataset.column_of(name)[1] for name in names}
        what, form = f"{self.side}s", Form.of(dataset.config)
        frame = read_columns(source, what, kinds, form)
        new = frame[self.field].isin(self.new_ids)
        refuse_repeated(lambda row: place_of(source, what, form)(row), frame[self.field].where(new))
        if known := int(frame[self.field].isin(self.known).sum()):
            getLogger().info(f"{self.side}: {known:,} {self.side}s are in the run and stay as they are there")
        return frame[new].reset_index(drop=True)

    def add_vectors(self, dataset: Any, prompts: PromptTable) -> None:
        """Add the field of text vectors that a model with ``text_field`` reads."""
        entities = {ENTRY + name: torch.from_numpy(of) for name, of in self.entries.items()}

        def load() -> LanguageModel:
            return build_text(dataset.config, dataset.prompts).language_model.to(dataset.config["device"])

        vectors = make_vectors(dataset, self.side, load, "text_field", prompts, entities)
        self.columns[field_name(self.side)] = as_sequence(vectors)

    def unknown(self, name: str, place: np.ndarray) -> np.ndarray:
        """True for each place, [n], whose value of a feature is new to the run."""
        return np.concatenate([np.zeros(self.size, dtype=bool), self.features.unknown[name]])[place]
