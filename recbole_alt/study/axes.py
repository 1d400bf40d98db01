"""What is compared: datasets and splits, and ablations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alt.config import properties_dir
from recbole_alt.yaml_files import read_yaml

#: Baselines and ablations, as changes of the configuration. ``finetune_modes`` says which modes it makes sense for.
ABLATIONS: dict[str, dict[str, Any]] = {
    "language_model_alone": {"pretrain_steps": 0, "finetune_modes": ["lm"]},  # not aligned
    "contrast_only": {"objectives": ["contrastive"]},  # the recipe of CTRL (arXiv 2306.02841)
    "no_contrast": {"objectives": ["masked_language", "masked_tabular"]},
    "no_masked_language": {"objectives": ["contrastive", "masked_tabular"]},
    "no_masked_tabular": {"objectives": ["contrastive", "masked_language"]},
    "token_masking": {"mask_level": "token"},
    "random_language_model": {"language_model_weights": "random"},
    "no_pretraining": {"pretrain_steps": 0},
}

#: ``--split``: 8:1:1 by chance, or the last tenths of time for validation and test.
SPLITS = {
    name: {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": order, "mode": "labeled"}
    for name, order in (("random", "RO"), ("time", "TO"))
}


@dataclass(frozen=True)
class DataSpec:
    """A dataset of a campaign: ``name``, ``name:keys.yaml``, either with ``@random`` or ``@time``."""

    name: str
    file: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Read ``name[:file][@split]``; a ``ValueError`` names a part that is empty, or that there is not."""
        rest, at, split = text.partition("@")
        name, colon, file = rest.partition(":")
        if not name or (colon and not file) or (at and not split):
            raise ValueError(f"datasets: {text!r} lacks a part: write name, name:keys.yaml, name@random or name@time")
        if split and split not in SPLITS:
            raise ValueError(f"datasets: {text!r}: the split must be one of {', '.join(SPLITS)}, not {split!r}")
        if file and not Path(file).is_file():
            raise ValueError(f"datasets: {text!r} names {file!r}, which does not exist")
        return cls(name, file or None, split or None)

    def __str__(self) -> str:
        return self.name + (f":{self.file}" if self.file else "") + (f"@{self.split}" if self.split else "")

    def read_keys(self) -> dict[str, Any]:
        """What the file says, but for its repetition of the dataset's name; a ``ValueError`` if it is no YAML."""
        keys = read_yaml(self.file, "datasets") if self.file else {}
        return {key: value for key, value in keys.items() if (key, value) != ("dataset", self.name)}

    def read_property_file(self) -> dict[str, Any]:
        """What our own file about the dataset says; nothing where there is none."""
        file = properties_dir() / "dataset" / f"{self.name}.yaml"
        return read_yaml(file) if file.is_file() else {}

    @property
    def label(self) -> str:
        """What tables and :attr:`~recbole_alt.reporting.runs.Run.data` call it."""
        stem = Path(self.file).stem.removeprefix(f"{self.name}-") if self.file else None
        return "-".join(part for part in (self.name, stem, self.split) if part)
