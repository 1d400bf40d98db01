"""How long the rows of an atomic file take to be read, checked, by us and, unchecked, by RecBole; and from Parquet."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pandas as pd
from harness import Result, alternate, seconds
from many import many
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource
from setup import configure, ml_1m

from recbole_alt.data.files import check_files
from recbole_alt.data.reading import AtomicDataset


def reading(quick: bool, data_path: str) -> Iterator[Result]:
    """Rows of a million interactions a second: from the file to a frame without rows that name nobody."""
    rounds = 5 if quick else 20
    yield _beside_recbole(rounds, data_path)
    yield _parquet(rounds)


def _parquet(rounds: int) -> Result:
    """How many times as fast as from text a dataset's interactions, two million, are read from Parquet."""
    dataset, path = many(15_000, 3_000, 2_000_000)
    folders = {"text": path, "parquet": tempfile.mkdtemp()}
    os.symlink(os.path.join(path, dataset, "parquet"), os.path.join(folders["parquet"], dataset))
    files = {form: _unloaded(AtomicDataset, configure(dataset, data_path=root)) for form, root in folders.items()}
    text, parquet = alternate(lambda: _read(files["text"]), lambda: _read(files["parquet"]), rounds)
    ratios = [one / other for one, other in zip(text, parquet, strict=True)]
    return Result.of("reading/parquet", ratios, 5.0, seconds=parquet, of_text=text)


def _read(dataset: Any) -> float:
    """The seconds that it takes to check the files, and to read the interactions."""
    dataset._open_files()
    for of_suffix in dataset._files.values():
        of_suffix[0].release()
    (file,) = dataset._files["inter"]
    took, _ = seconds(
        lambda: (
            check_files(dataset.config.final_config_dict, dataset._files),
            dataset._load_feat(file.path, FeatureSource.INTERACTION),
        )
    )
    return took


def _beside_recbole(rounds: int, data_path: str) -> Result:
    dataset, path = ml_1m(data_path)
    config = configure(dataset, data_path=path)
    ours, theirs = _unloaded(AtomicDataset, config), _unloaded(Unquoted, config)
    file = os.path.join(config["data_path"], f"{dataset}.inter")

    def read_theirs() -> float:
        def read() -> None:
            theirs.inter_feat = theirs._load_feat(file, FeatureSource.INTERACTION)
            theirs._filter_nan_user_or_item()

        return seconds(read)[0]

    took, before = alternate(lambda: _read(ours), read_theirs, rounds)
    ratios = [one / other for one, other in zip(took, before, strict=True)]
    return Result.of(f"reading/{dataset}", ratios, 1.1, at_most=True, seconds=took, of_recbole=before)


def _unloaded(kind: type[Dataset], config: Any) -> Any:
    """A dataset about to load its files."""

    class Unloaded(kind):  # type: ignore[misc, valid-type]
        def _from_scratch(self) -> None:
            self._get_preset()
            self._get_field_from_config()
            self.user_feat = self.item_feat = None

    return Unloaded(config)


class Unquoted(Dataset):
    """RecBole's reading, made faster and taught that nothing is quoted."""

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame:
        original, pd.read_csv = pd.read_csv, _read_literally
        try:
            return super()._load_feat(filepath, source)
        finally:
            pd.read_csv = original


_ORIGINAL = pd.read_csv


def _read_literally(*args: Any, **kwargs: Any) -> pd.DataFrame:
    return _ORIGINAL(*args, **(kwargs | {"quoting": csv.QUOTE_NONE, "engine": "c"}))
