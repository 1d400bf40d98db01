"""Users and items that did not exist when a run was trained: ``recbole-alt extend RUN --item=new.item --out=…``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
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
from recbole_alt.extending.entities import read_entities
from recbole_alt.extending.extension import Extension
from recbole_alt.extending.files import DATA, TracedDataset, place_of_files, point_to, write_files
from recbole_alt.extending.models import Growing
from recbole_alt.files import check_folder, lock, read_record, sync_folder, write_record
from recbole_alt.finished import finetuned_file
from recbole_alt.keys import STAGES
from recbole_alt.kinds import whole
from recbole_alt.loading import Data, load_data, load_data_of
from recbole_alt.model.build import load_text_vectors
from recbole_alt.prediction.refusals import refuse_no_source
from recbole_alt.prediction.tables import Source
from recbole_alt.run_folder import EXTENSION

_COPIED = ("result.json", "plan.json", "machine.json", *(f"{stage}.json" for stage in STAGES))


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
        ValueError: no finished run, its data are other ones now, ``out`` is there already, an argument is of
            another type, or what is new can't be added; see :func:`~recbole_alt.extending.entities.read_entities`.
    """
    sources = {side: source for side, source in ((USER, user), (ITEM, item)) if source is not None}
    if not sources:
        raise ValueError("nothing to do: give new items with item, new users with user, or both")
    refuse_no_source(**sources)
    whole(1).refuse("neighbours", neighbours)
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
        write_files(old[0], entities, folder / DATA)
        config = ALTConfig.snapshot(checkpoints.load(files[0])["config"])
        point_to(config, folder / DATA)
        new = load_data(config)
        _check_grown(old, new)
        vectors = {one.side: _vectors(config, new, one.side) for one in entities}
        growing = Growing(old, new, Path(out), files[0], entities, vectors, made)
        for file in files:
            growing.finetuned(file, folder / file.name)
        aligned = Path(checkpoints.load(files[0])["config"]["pretrained_checkpoint"] or Path(run, "pretrain.pth"))
        if aligned.is_file():
            growing.aligned(aligned, folder / "pretrain.pth")
        _write_records(Path(run), folder, Path(out) / DATA, new, made)
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
                f"column {str(name)!r}: its values would have other ids, as those of several columns are numbered "
                "together (alias_of_...): train anew, with what is new in the data"
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


def _write_records(run: Path, folder: Path, root: Path, new: Data, made: Extension) -> None:
    """Everything else that the folder of a run holds."""
    for name in _COPIED:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    before = read_record(run / "config.json")
    changed = place_of_files(before["dataset"], root) | {"pretrained_checkpoint": None} | record_of(new[0])
    write_record(folder / EXTENSION, asdict(made))
    write_record(folder / "config.json", before | changed)
