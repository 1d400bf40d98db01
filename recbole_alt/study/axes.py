"""The axes of a campaign: datasets and splits, ablations, and one single run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    "shuffled_texts": {"shuffle_texts": "item"},  # the control: do texts matter?
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
        """Read ``name[:file][@split]``.

        Raises:
            ValueError: No such file or split.
        """
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
        """What tables call it."""
        stem = Path(self.file).stem.removeprefix(f"{self.name}-") if self.file else None
        return "-".join(part for part in (self.name, stem, self.split) if part)


@dataclass(frozen=True)
class Run:
    """One training with one seed, of everything but the split."""

    data: DataSpec
    train_share: float  #: Of its training interactions.
    model: str  #: The CTR model, as RecBole names it.
    language_model: str | None  #: None for the plain backbone, and for the one that the configuration names.
    variant: str  #: :data:`PLAIN`, :data:`COMPLETE`, an ablation, a variant, or ``steps_<n>``.
    stage: str  #: ``plain``, ``ctr``, ``lm`` or ``joint``.
    seed: int

    @property
    def slug(self) -> str:
        """Words for file names."""
        language = Path(self.language_model).name if self.language_model else None
        share = f"{self.train_share:g}" if self.train_share < 1 else None
        variant = None if self.variant == PLAIN else self.variant
        parts = (self.data.label, share, self.model, language, variant, self.stage, str(self.seed))
        return "_".join(part for part in parts if part)
