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
from recbole.data import data_preparation
from recbole.utils import init_seed
from torch import Tensor

from recbole_alt import checkpoints
from recbole_alt.config import ALTConfig
from recbole_alt.data.identity import record_of
from recbole_alt.data.template import ITEM, USER
from recbole_alt.experiment import EXTENSION, Data, load_data, load_data_of
from recbole_alt.extending.entities import NewEntities, read_entities
from recbole_alt.extending.files import TracedDataset, place_of_files, point_to, write_files
from recbole_alt.extending.rows import TEMPERATURE, EmbeddingsFromTexts, RowsOfNoValue
from recbole_alt.files import check_folder, lock, read_record, sync_folder, write_record
from recbole_alt.finished import finetuned_file
from recbole_alt.keys import STAGES
from recbole_alt.model.build import load_text_vectors
from recbole_alt.model.grounding import MAPS
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
    """

    folder: str
    run: str
    neighbours: int
    added: dict[str, int] = field(default_factory=dict)
    by_map: dict[str, dict[str, int]] = field(default_factory=dict)
    by_neighbours: dict[str, dict[str, int]] = field(default_factory=dict)
    new_values: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """What was added, how, and what was left out, a line each."""
        lines = [f"{self.folder}: {' and '.join(f'{n:,} {side}s' for side, n in self.added.items())} added"]
        for stage, sides in self.by_map.items():
            for side, tables in sides.items():
                asked = self.by_neighbours[stage][side]
                how = [f"the map of grounded embeddings ({_tables(tables)})"] if tables else []
                nearest = f"the softmax-weighted mean of the {self.neighbours} nearest known {side}s in text"
                how += [f"{nearest}, temperature {TEMPERATURE} ({_tables(asked)})"] if asked else []
                lines.append(f"{stage}: new {side}s have embeddings by {' and '.join(how)}")
        lines += [f"{name}: {count:,} values are new to the run" for name, count in self.new_values.items()]
        return "\n".join([*lines, *(f"left out: {count:,} {what}" for what, count in self.left_out.items())])


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
    with _new_folder(Path(out)) as folder:
        write_files(old[0], entities, folder / _DATA)
        config = ALTConfig.snapshot(checkpoints.load(files[0])["config"])
        point_to(config, folder / _DATA)
        new = load_data(config)
        _check_grown(old, new)
        vectors = {one.side: _vectors(config, new, one.side) for one in entities}
        for file in files:
            _extend_model(file, folder / file.name, Path(out) / _DATA, (old, new), entities, vectors, made)
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


def _extend_model(
    file: Path, out: Path, root: Path, data: tuple[Data, Data], entities: Sequence[NewEntities],
    vectors: Mapping[str, Tensor], made: Extension,
) -> None:  # fmt: skip
    """Write the model in ``file`` to ``out``, as one of the data in ``root``."""
    old, new = ([loader._dataset for loader in one[1:] if loader is not None] for one in data)
    state = checkpoints.load(file)
    state.pop("optimizer", None)  # which is of the old tables
    state["state_dict"] |= _grown(state, file, old, new, entities, vectors, made)
    config = state["config"]
    point_to(config, root)
    config["pretrained_checkpoint"] = None
    if config["warm_up"]:
        config["warm_up"] = os.fspath(root.parent / file.name)
    state |= record_of(new[0])
    state["other_parameter"] = state["other_parameter"] | record_of(new[0])
    checkpoints.save(state, out)
    load_model(checkpoints.load(out), new[0], out)  # refuses tables that were not grown


def _grown(
    state: dict[str, Any], file: Path, old: Sequence[Any], new: Sequence[Any], entities: Sequence[NewEntities],
    vectors: Mapping[str, Tensor], made: Extension,
) -> dict[str, Tensor]:  # fmt: skip
    """The weights of the CTR model that are others now, if there is one."""
    backbone = load_model(state, old[0], file).eval().backbone
    if backbone is None:
        return {}
    unseen = state["config"]["unseen_values"]
    if unseen == "zero":
        zero_unknown(backbone, old)  # as predict does
    rows: dict[str, NewRows] = {}
    of_ids: dict[str, EmbeddingsFromTexts] = {}
    for name, tokens in old[0].field2id_token.items():
        if more := new[0].num(name) - len(tokens):
            rows[name] = RowsOfNoValue(unseen, more)
    stage = file.stem
    for one in entities:
        known = old[0].inter_feat[one.id_field].unique()
        maps = state.get(MAPS, {}).get(one.side, {})  # older checkpoints lack it
        of_ids[one.side] = EmbeddingsFromTexts(vectors[one.side], known[known > 0], made.neighbours, maps)
        rows[one.id_field] = of_ids[one.side]
    weights = grown_state(backbone, old[0], rows)
    made.by_map[stage] = {side: len(found.by_map) for side, found in of_ids.items()}
    made.by_neighbours[stage] = {side: len(found.by_neighbours) for side, found in of_ids.items()}
    return {f"backbone.model.{key}": weight.detach().cpu() for key, weight in weights.items()}


def _write_records(run: Path, folder: Path, root: Path, new: Data, made: Extension) -> None:
    """Everything else that the folder of a run holds."""
    for name in _COPIED:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    before = read_record(run / "config.json")
    changed = place_of_files(before["dataset"], root) | {"pretrained_checkpoint": None} | record_of(new[0])
    write_record(folder / EXTENSION, asdict(made))
    write_record(folder / "config.json", before | changed)


def _tables(count: int) -> str:
    return f"{count:,} table{'s' * (count != 1)}"
