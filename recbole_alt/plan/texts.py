"""How many texts a run has, and how long they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_alt.data.prompts import DistinctTexts, PromptTable


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
