"""Users and items that did not exist when a run was trained: ``recbole-alt extend RUN --item=new.item --out=…``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data import data_preparation
from recbole.utils import init_seed
from torch import Tensor

from recbole_alt import checkpoints
from recbole_alt.config import ALTConfig
from recbole_alt.data.identity import record_of, require_same_data
from recbole_alt.data.template import ITEM, USER
from recbole_alt.experiment import EXTENSION, Data, load_data, load_data_of
from recbole_alt.extending.alignment import grown_alignment
from recbole_alt.extending.entities import NewEntities, read_entities
from recbole_alt.extending.files import TracedDataset, place_of_files, point_to, write_files
from recbole_alt.extending.rows import TEMPERATURE, EmbeddingsFromTexts, RowsOfNoValue
from recbole_alt.files import check_folder, lock, read_record, sync_folder, write_record
from recbole_alt.finished import finetuned_file
from recbole_alt.keys import STAGES
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.build import load_text_vectors
from recbole_alt.model.grounding import MAPS, maps_of
from recbole_alt.model.growing import NewRows, grown_state
from recbole_alt.model.unseen import zero_unknown
from recbole_alt.prediction.tables import Source
from recbole_alt.quick_start import load_model

_DATA = "data"  # the folder, in that of a run, of its atomic files
_COPIED = ("result.json", "plan.json", "machine.json", *(f"{stage}.json" for stage in STAGES))


@dataclass
class Extension:
    """What :func:`extend` made.

    Attributes:
        folder: of the new run.
        run: the folder of the run that was extended.
        added: ``user`` and ``item`` → how many are new.
        by_map, by_neighbours: stage → side → how many embedding tables got the rows of new ids by the map of grounded
            embeddings, and from known ids with similar texts.
        neighbours: how many of these were asked.
        new_values: field → how many values of other fields are new.
        left_out: what was not taken over as it was given, in words → how often.
        passed_over: columns that the run does not read.
    """

    folder: str
    run: str
    neighbours: int
    added: dict[str, int] = field(default_factory=dict)
    by_map: dict[str, dict[str, int]] = field(default_factory=dict)
    by_neighbours: dict[str, dict[str, int]] = field(default_factory=dict)
    new_values: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """What was added, how, and what was left out, a line each."""
        added = " and ".join(_count(side, number) for side, number in self.added.items())
        lines = [f"{self.folder}: {added} added to {self.run}"]
        for stage, sides in self.by_map.items():
            for side, tables in sides.items():
                asked = self.by_neighbours[stage][side]
                how = [f"the map of grounded embeddings ({_count('table', tables)})"] if tables else []
                nearest = f"the softmax-weighted mean of the {self.neighbours} nearest known {side}s in text"
                how += [f"{nearest}, temperature {TEMPERATURE} ({_count('table', asked)})"] if asked else []
                lines.append(f"{stage}: new {side}s have embeddings by {' and '.join(how)}")
        lines += [f"{name}: {_count('value', count)} new to the run" for name, count in self.new_values.items()]
        lines += [f"not as given: {count:,} {what}" for what, count in self.left_out.items()]
        if self.passed_over:
            lines.append(f"passed over, as the run does not read them: {', '.join(self.passed_over)}")
        return "\n".join(lines)


def extend(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    item: Source | None = None,
    user: Source | None = None,
    neighbours: int = 10,
) -> Extension:
    """Add users and items to a finished run by their texts; nothing is trained.

    In a table that was ``grounded``, a new id has the embedding that the learned map makes of its text. In others it
    has the mean of those of the ids, met in training, with the nearest texts: by the cosine of their frozen text
    vectors (:func:`~recbole_alt.model.text_vectors.text_vectors`), weighted by its softmax. Ids that are known keep
    their numbers, and rows without a new id their scores. Other values that are new are scored as ``unseen_values``
    says, and left out of sequences.

    Args:
        run: its folder.
        out: a new folder, for a run with its models, its records and its own copy of the data.
        item: describes new items, as the run's ``.item`` file did: a frame, or a file that ends in ``.item``, ``.csv``
            or ``.parquet``.
        user: the same for users.
        neighbours: how many known ids to ask.

    Raises:
        ValueError: no finished run, its data are other ones now, ``out`` is there already, or what is new can't be
            added; see :func:`~recbole_alt.extending.entities.read_entities`.
    """
    sources = {side: source for side, source in ((USER, user), (ITEM, item)) if source is not None}
    if not sources:
        raise ValueError("nothing to do: give new items with item, new users with user, or both")
    if neighbours < 1:
        raise ValueError(f"neighbours must be 1 or more, not {neighbours}")
    finetuned_file(run)
    files = [file for stage in STAGES if (file := Path(run, f"{stage}.pth")).is_file()]
    if not files:
        raise ValueError(f"{os.fspath(run)!r} is a file: give the folder of a run")
    old = _read(files)
    entities = [read_entities(old[0], side, source) for side, source in sources.items()]
    made = Extension(os.fspath(out), os.fspath(run), neighbours, {one.side: len(one) for one in entities})
    for one in entities:
        made.new_values |= one.new_values
        made.left_out |= one.left_out
        made.passed_over += one.passed_over
    with _new_folder(Path(out)) as folder:
        write_files(old[0], entities, folder / _DATA)
        config = ALTConfig.snapshot(checkpoints.load(files[0])["config"])
        point_to(config, folder / _DATA)
        new = load_data(config)
        _check_grown(old, new)
        vectors = {one.side: _vectors(config, new, one.side) for one in entities}
        growing = _Growing(old, new, Path(out), files[0], entities, vectors, made)
        for file in files:
            growing.finetuned(file, folder / file.name)
        aligned = Path(checkpoints.load(files[0])["config"]["pretrained_checkpoint"] or Path(run, "pretrain.pth"))
        if aligned.is_file():
            growing.aligned(aligned, folder / "pretrain.pth")
        _write_records(Path(run), folder, Path(out) / _DATA, new, made)
    getLogger().info(made.summary())
    return made


def _read(files: Sequence[Path]) -> tuple[TracedDataset, Any, Any, Any]:
    """The data of the checkpoints in ``files``, which must be those that are there now."""
    state = checkpoints.load(files[0])
    config = state["config"]
    if config["shuffle_texts"]:
        raise ValueError(f"{str(files[0])!r} is of texts dealt out to others (shuffle_texts): extend another run")
    init_seed(config["seed"], config["reproducibility"])
    dataset = TracedDataset(config)
    data = (dataset, *data_preparation(config, dataset))
    for file in files:
        load_data_of(checkpoints.load(file), file, data)
    return data


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out``, on disk, when the block ends, and is deleted after an error in it."""
    if out.exists():
        raise ValueError(f"out: {str(out)!r} is there already: give a new folder")
    folder = out.with_name(f"{out.name}.partial")
    check_folder("out", folder)
    taken = lock(folder)
    try:
        for left in [
            path for path in folder.iterdir() if not path.name.startswith(".")
        ]:  # of a process that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield folder
        os.replace(folder, out)
        sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        taken.release()


def _check_grown(old: Data, new: Data) -> None:
    """Refuse data in which a known value has another id, or the split other rows."""
    for name, tokens in old[0].field2id_token.items():
        if not np.array_equal(new[0].field2id_token[name][: len(tokens)], tokens):
            raise ValueError(
                f"column {name!r}: its values would have other ids, as those of several columns are numbered together "
                "(alias_of_...): train anew, with what is new in the data"
            )
    if new[0].identity.parts != old[0].identity.parts:
        raise ValueError("the split would be another one: train anew, with what is new in the data")


def _vectors(config: Any, data: Data, side: str) -> Tensor:
    """The vectors of the texts of all ids of ``side``, known and new, [n + m, K]."""
    if config["prompt_scope"] != "entity":  # texts are of pairs
        config = ALTConfig.snapshot(config)
        config["prompt_scope"] = "entity"
        data = load_data(config)
    return load_text_vectors(config, data[1]._dataset, side, "extend").cpu()


class _Growing:
    """Grows the models of a run; see :func:`extend`.

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
        del state["optimizer"]  # which is of the old tables
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
        point_to(config, self._out / _DATA)
        if config["warm_up"]:
            config["warm_up"] = os.fspath(self._out / self._first.name)
        config["pretrained_checkpoint"] = None
        return state | record_of(self._new[0])


def _write_records(run: Path, folder: Path, root: Path, new: Data, made: Extension) -> None:
    """Everything else that the folder of a run holds."""
    for name in _COPIED:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    before = read_record(run / "config.json")
    changed = place_of_files(before["dataset"], root) | {"pretrained_checkpoint": None} | record_of(new[0])
    write_record(folder / EXTENSION, asdict(made))
    write_record(folder / "config.json", before | changed)


def _count(what: str, number: int) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
