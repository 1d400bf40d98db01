"""The atomic files of an extended run: the rows that the run uses, and the new ones behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alt.data.atomic import AtomicFile
from recbole_alt.data.dataset import ALTDataset
from recbole_alt.data.files import DataFile
from recbole_alt.extending.entities import NewEntities
from recbole_alt.files import replacing

#: The folder, in that of an extended run, of its atomic files.
DATA = "data"

#: What is appended to the name of the data, unless it ends so; RecBole has data of its own under some names.
_NAME = "-extended"

#: Keys that leave rows out, and their values once only the others are there.
_FILTERS: dict[str, Any] = {
    "user_inter_num_interval": "[0,inf)",
    "item_inter_num_interval": "[0,inf)",
    "val_interval": None,
    "rm_dup_inter": None,
    "filter_inter_by_user_or_item": False,
}


class TracedDataset(ALTDataset):
    """The dataset of a run, which tells the rows that it is made of.

    Attributes:
        rows: suffix → file and the rows, from 0, that filters left, in their order.
    """

    def __init__(self, config: Any):
        self.rows: dict[str, list[tuple[DataFile, np.ndarray]]] = {}
        super().__init__(config)

    def _reset_index(self) -> None:
        self._trace()  # while rows have the numbers that they were read with
        super()._reset_index()

    def _remap_ID_all(self) -> None:
        if not self.rows:  # nothing is filtered where the parts are files of their own
            self._trace()
        super()._remap_ID_all()

    def _trace(self) -> None:
        for suffix, files in self._read_rows.items():
            feat, first = getattr(self, f"{suffix}_feat", None), 0
            for file, as_read in files:
                rows = as_read.to_numpy()
                if feat is not None:
                    index = feat.index.to_numpy() - first
                    rows, first = rows[index[(index >= 0) & (index < len(rows))]], first + len(rows)
                self.rows.setdefault(suffix, []).append((file, rows))


def extended_name(name: str) -> str:
    """The name of the data ``name`` once they are extended."""
    return name if name.endswith(_NAME) else name + _NAME


def write_files(dataset: TracedDataset, entities: Sequence[NewEntities], root: Path) -> None:
    """Write the atomic files of ``dataset``, with ``entities``, into ``root``/:func:`extended_name`.

    Raises:
        ValueError: a file is in Parquet.
    """
    new = {one.side: one for one in entities}
    name = extended_name(dataset.dataset_name)
    for suffix, files in dataset.rows.items():
        for file, rows in files:
            if not isinstance(file, AtomicFile):
                raise ValueError(f"{file}: only runs on text files can be extended: write it as text, and train on it")
            with replacing(root / name / f"{name}{file.name.removeprefix(dataset.dataset_name)}") as stream:
                stream.write(file.copy_of(np.append(1, file.lines[rows])))
                if suffix in new:
                    separator = dataset.config["field_separator"]
                    trailing = separator if file.trails() else ""
                    stream.write(_lines(new[suffix].cells, list(file.header()), separator, trailing))
            file.release()


def _lines(cells: Mapping[str, Sequence[str]], names: Sequence[str], separator: str, trailing: str) -> bytes:
    rows = zip(*(cells.get(name) or [""] * len(next(iter(cells.values()))) for name in names), strict=True)
    return "".join(separator.join(row) + trailing + "\n" for row in rows).encode()


def place_of_files(dataset: str, root: Path) -> dict[str, Any]:
    """The keys of a run on ``dataset``, extended and written into ``root``, from which no row is left out any more."""
    name = extended_name(dataset)
    return _FILTERS | {"dataset": name, "data_path": str(root / name), "encoding": "utf-8"}


def point_to(config: Any, root: Path) -> None:
    """Make ``config`` one with the keys of :func:`place_of_files`."""
    for key, value in place_of_files(config["dataset"], root).items():
        config[key] = value
    config.dataset = config["dataset"]
