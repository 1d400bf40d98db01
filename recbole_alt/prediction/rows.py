"""New rows as the model of a run reads them, a part at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_alt.data.template import CONTEXT, ITEM, USER
from recbole_alt.model.text_vectors import field_name
from recbole_alt.prediction.features import Features, below, read_features
from recbole_alt.prediction.refusals import refuse_empty
from recbole_alt.prediction.sides import Side
from recbole_alt.prediction.tables import Form, Source, read_columns
from recbole_alt.prediction.texts import ENTRY, NewWords


class NewRows:
    """N new rows for ``model``, whose prompts become those of these rows.

    Args:
        model: a finetuned recommender.
        dataset: the built training dataset of the run.
        rows: columns of ids, and of the interactions' own fields where the model reads any; no label.
        described: ``user`` or ``item`` → describes new ones.

    Attributes:
        frame: the columns that were read.
        sides: of users and of items, where the data have such ids.

    Raises:
        ValueError: a file can't be read, lacks a column, there is no row, or a cell is no number where the run
            has numbers.
    """

    def __init__(self, model: Any, dataset: Any, rows: Source, described: Mapping[str, Source | None]):
        self._dataset, form = dataset, Form.of(dataset.config)
        ids = {USER: dataset.uid_field, ITEM: dataset.iid_field}
        for side, source in described.items():
            if source is not None and ids[side] is None:
                raise ValueError(f"{side}: the run has no {side}s: leave it out")
        self._reads_text = model.text is not None
        vectors = () if model.backbone is None else model.backbone.text_fields
        readers = [side for side in (*ids, CONTEXT) if self._reads_text or field_name(side) in vectors]
        features: dict[str, list[str]] = {side: [] for side in (*ids, CONTEXT)}
        in_prompts: dict[str, list[str]] = {side: [] for side in (*ids, CONTEXT)}
        for field in () if model.backbone is None else model.backbone.fields:
            if field.name not in ids.values():
                features[dataset.column_of(field.name)[0]].append(field.name)
        owner = {field: side for side, field in ids.items()}
        for name in dataset.field_words:
            side = owner.get(name) or dataset.column_of(name)[0]
            if side in readers:
                in_prompts[side].append(name)
        self._own = features[CONTEXT]
        names = dict.fromkeys([*filter(None, ids.values()), *self._own, *in_prompts[CONTEXT]])
        self.frame = read_columns(rows, "rows", {name: dataset.column_of(name)[1] for name in names}, form)
        refuse_empty(rows, "rows", self.frame)
        words = NewWords(dataset) if readers else None
        self.sides = [
            Side(dataset, side, self.frame[field], features[side], in_prompts[side], described.get(side), words)
            for side, field in ids.items()
            if field is not None
        ]
        self._entries: dict[str, np.ndarray] = {}
        self._nameless: dict[str, list[list[str]]] = {}
        if words is not None:
            of_rows = [*in_prompts[CONTEXT], *(one.field for one in self.sides if one.field in one.entries)]
            self._entries = {name: words.entries(name, self.frame[name]) for name in of_rows}
            nameless = {name: words.codes_without_name(name, self.frame[name]) for name in in_prompts[CONTEXT]}
            self._nameless = {name: values for name, values in nameless.items() if values is not None}
            prompts = words.prompts()
            if self._reads_text:
                model.prompts = prompts
            for one in self.sides:
                if field_name(one.side) in vectors:
                    one.add_vectors(dataset, prompts)

    def __len__(self) -> int:
        return len(self.frame)

    def part(self, start: int, end: int) -> tuple[Interaction, Features]:
        """Rows from ``start`` up to ``end`` as a batch for the model, and which of their values are new to the run."""
        part = slice(start, end)
        found = read_features(self._dataset, self.frame[part].reset_index(drop=True), self._own)
        columns = found.columns
        for name in self._own:  # sums of sequences may depend on their length, in the last bit
            columns[name] = below(self._dataset.inter_feat[name][:1], columns[name])[1:]
        for side in self.sides:
            place = side.place[part]
            columns[side.field] = torch.from_numpy(np.where(place < side.size, place, 0))
            found.unknown[side.field] = side.is_new[part]
            found.new_values[side.field] = set(self.frame[side.field][part][side.is_new[part]])
            for name, by_place in side.columns.items():
                columns[name] = by_place[torch.from_numpy(place)]
            for name, new_values in side.features.new_values.items():
                found.unknown[name], found.new_values[name] = side.unknown(name, place), new_values
            if self._reads_text:
                columns |= {ENTRY + name: torch.from_numpy(of[place]) for name, of in side.entries.items()}
        for name in self._nameless.keys() - found.unknown.keys():
            found.add_new(name, self._nameless[name][part])
        if self._reads_text:
            columns |= {ENTRY + name: torch.from_numpy(of[part]) for name, of in self._entries.items()}
        return Interaction(columns), found
