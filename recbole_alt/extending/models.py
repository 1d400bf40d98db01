"""The models of a run with more rows in their embedding tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_alt import checkpoints
from recbole_alt.data.identity import record_of, require_same_data
from recbole_alt.extending.alignment import grown_alignment
from recbole_alt.extending.entities import NewEntities
from recbole_alt.extending.extension import Extension
from recbole_alt.extending.files import DATA, point_to
from recbole_alt.extending.rows import EmbeddingsFromTexts, RowsOfNoValue
from recbole_alt.loading import Data
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.grounding import MAPS, maps_of
from recbole_alt.model.growing import NewRows, grown_state
from recbole_alt.model.unseen import zero_unknown
from recbole_alt.quick_start import load_model


class Growing:
    """Grows the models of a run; see :func:`~recbole_alt.extending.extend`.

    Args:
        old, new: the data of the run, and those with what is new.
        out: where the new run will be.
        first: the first of the finetuned checkpoints.
        entities: what is new.
        vectors: ``user`` and ``item`` → the vectors of the texts of all ids.
        made: where it is noted how ids got their embeddings.
    """

    def __init__(
        self, old: Data, new: Data, out: Path, first: Path, entities: Sequence[NewEntities],
        vectors: Mapping[str, Tensor], made: Extension,
    ):  # fmt: skip
        self._old, self._new = ([loader._dataset for loader in data[1:] if loader is not None] for data in (old, new))
        self._out, self._first = out, first
        self._entities, self._vectors, self._made = entities, vectors, made

    def finetuned(self, file: Path, out: Path) -> None:
        """Write the model in ``file`` to ``out``."""
        state = checkpoints.load(file)
        backbone = load_model(state, self._old[0], file).eval().backbone
        if backbone is not None:
            unseen = state["config"]["unseen_values"]
            if unseen == "zero":
                zero_unknown(backbone, self._old)  # as predict does
            rows, of_ids = self._rows(unseen, state.get(MAPS, {}))  # which older checkpoints lack
            weights = grown_state(backbone, self._old[0], rows)
            state["state_dict"] |= {f"backbone.model.{key}": weight.cpu() for key, weight in weights.items()}
            self._made.by_map[file.stem] = {side: len(found.by_map) for side, found in of_ids.items()}
            self._made.by_neighbours[file.stem] = {side: len(found.by_neighbours) for side, found in of_ids.items()}
        state.pop("optimizer", None)  # which is of the old tables
        state["other_parameter"] = state["other_parameter"] | record_of(self._new[0])
        checkpoints.save(self._of_new_data(state), out)
        load_model(checkpoints.load(out), self._new[0], out)  # refuses a table that was not grown

    def aligned(self, file: Path, out: Path) -> None:
        """Write the aligned towers and the objectives in ``file`` to ``out``."""
        state = checkpoints.load(file)
        require_same_data(state, self._old[0], file=file, held_out_only=True)

        def rows(model: AlignmentModel) -> dict[str, NewRows]:
            maps = maps_of(model.backbone)  # which are not added up: the free parts are zeros
            nothing = {
                side: {path: torch.zeros_like(of) for path, of in tables.items()} for side, tables in maps.items()
            }
            return self._rows("hidden", nothing)[0]

        data = self._old[0], self._new[0]
        config = self._new[0].config
        if config["warm_up"]:  # of KD_DAGFM: all its weights are in each finetuned checkpoint
            state["config"]["warm_up"] = os.fspath(self._first)
            config["warm_up"] = os.fspath(out.with_name(self._first.name))
        grown = grown_alignment(state, os.fspath(file), config, data, rows, self._vectors)
        checkpoints.save(self._of_new_data(grown), out)

    def _rows(
        self, unseen: str, maps: Mapping[str, Mapping[str, Tensor]]
    ) -> tuple[dict[str, NewRows], dict[str, EmbeddingsFromTexts]]:
        """The new rows of each field that has new values; those of new users and items by side, too."""
        train = self._old[0]
        rows: dict[str, NewRows] = {}
        for name, tokens in train.field2id_token.items():
            if more := self._new[0].num(name) - len(tokens):
                rows[name] = RowsOfNoValue(unseen, more)
        of_ids = {}
        for one in self._entities:
            known = train.inter_feat[one.id_field].unique()
            of_side = maps.get(one.side, {})
            asked = self._made.neighbours
            of_ids[one.side] = EmbeddingsFromTexts(self._vectors[one.side], known[known > 0], asked, of_side)
            rows[one.id_field] = of_ids[one.side]
        return rows, of_ids

    def _of_new_data(self, state: dict[str, Any]) -> dict[str, Any]:
        config = state["config"]
        point_to(config, self._out / DATA)
        if config["warm_up"]:
            config["warm_up"] = os.fspath(self._out / self._first.name)
        config["pretrained_checkpoint"] = None
        return state | record_of(self._new[0])
