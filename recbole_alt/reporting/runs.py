"""What a row of a report is of: one run of a campaign, or, without its seed, the runs that the row sums up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from recbole_alt.files import read_record
from recbole_alt.keys import STAGES

#: The method as configured; ablations change it.
COMPLETE = "ALT"
PLAIN = "plain"

#: End of the name of a variant's control: the same with the texts of other items.
CONTROL = "_shuffled"


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


def read_training(
    file: Path, needed: Collection[str] = ("tested", "score", "error", "wall", "costs")
) -> dict[str, Any]:
    """The record of a training.

    Raises:
        ValueError: ``file`` is damaged, or of something else, as it lacks what is ``needed``.
    """
    record = read_record(file)
    if lacking := [key for key in needed if key not in record]:
        raise ValueError(
            f"{str(file)!r} is damaged or was not written by recbole_alt: it lacks {lacking[0]}; delete it, and its "
            "training is made anew"
        )
    return record


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
