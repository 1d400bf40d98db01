"""What is compared: datasets and splits, ablations, and one single run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from recbole_alt.keys import STAGES

#: The method as configured; ablations change it.
COMPLETE = "ALT"
PLAIN = "plain"

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

#: End of the name of a variant's control: the same with the texts of other items.
CONTROL = "_shuffled"

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
        """Read ``name[:file][@split]``; a ``ValueError`` names a file or a split that there is not."""
        rest, _, split = text.partition("@")
        name, _, file = rest.partition(":")
        if split and split not in SPLITS:
            raise ValueError(f"datasets: {text!r}: the split must be one of {', '.join(SPLITS)}, not {split!r}")
        if file and not Path(file).is_file():
            raise ValueError(f"datasets: {text!r} names {file!r}, which does not exist")
        return cls(name, file or None, split or None)

    def __str__(self) -> str:
        return self.name + (f":{self.file}" if self.file else "") + (f"@{self.split}" if self.split else "")

    @property
    def label(self) -> str:
        """What tables and :attr:`Run.data` call it."""
        stem = Path(self.file).stem.removeprefix(f"{self.name}-") if self.file else None
        return "-".join(part for part in (self.name, stem, self.split) if part)


@dataclass(frozen=True)
class Run:
    """One training with one seed, of everything but the split; without a seed, what the runs of a table's row share."""

    data: str  #: Label of the :class:`DataSpec`.
    train_share: float  #: Of its training interactions.
    model: str  #: The CTR model, as RecBole names it.
    language_model: str | None  #: None for the plain backbone, and for the one that the configuration names.
    variant: str  #: :data:`PLAIN`, :data:`COMPLETE`, an ablation, a variant, or ``steps_<n>``.
    stage: str  #: ``plain``, ``ctr``, ``lm`` or ``joint``.
    seed: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Run:
        """What a row of a table, or the ``run`` of a record, is of, without the seed."""
        return cls(*(row[axis.name] for axis in fields(cls)[:-1]))

    def __str__(self) -> str:
        parts = (self.data, self.train_share, self.model, self.language_model, self.variant, self.stage)
        return " ".join(str(part) for part in parts if part is not None)

    @property
    def slug(self) -> str:
        """Words for the names of files."""
        language = Path(self.language_model).name if self.language_model else None
        share = f"{self.train_share:g}" if self.train_share < 1 else None
        variant = None if self.variant == PLAIN else self.variant
        seed = None if self.seed is None else str(self.seed)
        parts = (self.data, share, self.model, language, variant, self.stage, seed)
        return "_".join(part for part in parts if part)

    @property
    def place(self) -> tuple[Any, ...]:
        """Sort key in tables: plain first, then the complete method and its ablations, by mode."""
        first = {PLAIN: 0, COMPLETE: 1}.get(self.variant, 2)
        language = self.language_model or ""
        return self.data, self.train_share, self.model, language, first, self.variant, STAGES.index(self.stage)

    @property
    def bases(self) -> dict[str, Run]:
        """What it is compared with, by the prefix of the columns that show it."""
        plain = replace(self, language_model=None, variant=PLAIN, stage="plain")
        bases = {"vs_plain": plain, "vs_others": replace(self, variant=self.variant + CONTROL)}
        if not is_control(self.variant):
            bases["vs_complete"] = replace(self, variant=COMPLETE)
        return {name: base for name, base in bases.items() if self.variant not in (PLAIN, base.variant)}


def is_control(variant: str) -> bool:
    """True of a variant with the texts of other items."""
    return variant.endswith(CONTROL)


def arm_of(row: Mapping[str, Any]) -> str:
    """What tables call a variant in one mode: ``plain``, ``ctr``, ``grounded, ctr``, ``text field, others' texts``."""
    variant, control = row["variant"].removesuffix(CONTROL), is_control(row["variant"])
    words = [] if variant in (PLAIN, COMPLETE) else [variant.replace("_", " ")]
    words += [row["stage"]] if row["stage"] != "plain" or not words else []
    words += ["others' texts"] if control else []
    return ", ".join(words) + (" (tuned alone)" if row.get("tuned_alone") and words else "")


def distinct(values: Iterable[Any]) -> list[Any]:
    """``values`` without repetitions, in order."""
    return list(dict.fromkeys(values))
