"""How many texts a run has, and how long they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_alt.data.masking import Masking, n_masked
from recbole_alt.data.prompts import DistinctTexts, PromptTable
from recbole_alt.trainer.length import rows_of_step
from recbole_alt.trainer.pretrain import ALTPretrainTrainer


@dataclass(frozen=True)
class TextCount:
    """The distinct texts of one segment: how many, their tokens after any cut, the longest before it, those cut."""

    texts: int
    tokens: int
    longest: int
    cut: int


def distinct_texts(prompts: PromptTable, parts: Sequence[Any]) -> list[DistinctTexts]:
    """The distinct texts of all rows of several datasets, by segment; their rows and owners have no meaning."""
    found = []
    for segment in prompts.segments:
        pieces = np.concatenate([prompts.pieces(segment, part.inter_feat) for part in parts])
        distinct = pd.DataFrame(pieces).drop_duplicates().to_numpy()
        found.append(DistinctTexts(segment, distinct, torch.zeros(0), torch.zeros(len(distinct), dtype=torch.long)))
    return found


def count_texts(texts: Sequence[DistinctTexts]) -> dict[str, TextCount]:
    """Count texts and tokens by the name of their segment."""
    counted = {}
    for part in texts:
        lengths, most = part.segment.total_lengths(part.pieces), part.segment.max_tokens
        tokens = int(np.minimum(lengths, most).sum())
        counted[part.segment.name] = TextCount(len(lengths), tokens, int(lengths.max()), int((lengths > most).sum()))
    return counted


def count_masked(trainer: ALTPretrainTrainer, steps: float) -> float:
    """The distinct masked texts that so many steps of an alignment are expected to read.

    A text is read in a step with the probability that one of its rows is drawn, and then has one of its masked forms.
    """
    prompts, rows = trainer.dataset.prompts, rows_of_step(trainer.batches)
    expected = 0.0
    for segment in prompts.segments:
        counts = pd.DataFrame(prompts.pieces(segment, trainer.dataset.inter_feat)).value_counts().to_numpy()
        visits = steps * -np.expm1(rows * np.log1p(-np.minimum(counts / counts.sum(), 1 - 1e-12)))
        forms_of_text = forms_of(trainer.masking, segment.fields)
        in_step = visits.sum() / steps * sum(forms * chance for forms, chance in forms_of_text)
        visits *= min(1.0, (trainer.masking.texts or in_step) / max(1.0, in_step))
        for forms, chance in forms_of_text:
            expected += forms * float(-np.expm1(visits * np.log1p(-min(chance, 1 - 1e-12))).sum())
    return expected


def forms_of(masking: Masking, fields: Sequence[str]) -> list[tuple[int, float]]:
    """The masked forms of a text with these fields: how many hide equally many fields, and the chance of each form."""
    common = set(masking.text_fields) & set(masking.table_fields)
    among = common if masking.fields == "shared" else set(masking.text_fields)
    own, chosen = len(among.intersection(fields)), n_masked(len(among), masking.ratio)
    most = min(own, chosen)
    return [(comb(own, n), comb(len(among) - own, chosen - n) / comb(len(among), chosen)) for n in range(1, most + 1)]
