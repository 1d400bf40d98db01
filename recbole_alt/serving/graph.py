"""A finetuned model as a graph of tensors: raw numbers, ids and text vectors in, click probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_alt.model.text_vectors import as_sequence, field_name

#: What stands before the name of a segment in the input with the pooled states of its texts.
VECTOR = "text_of_"


@dataclass(frozen=True)
class Input:
    """An input of the graph, for N rows.

    Attributes:
        name: of the field, or :data:`VECTOR` + segment.
        kind: ``token`` (ids [N]), ``token_seq`` (ids [N, L], 0 behind the last), ``float`` ([N], NaN where missing),
            ``float_seq`` ([N, L], NaN behind the last) or ``vector`` ([N, size]).
        size: numbers in a vector; 0 for other kinds.
    """

    name: str
    kind: str
    size: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Of its tensor."""
        return torch.int64 if "token" in self.kind else torch.float32 if self.kind == "vector" else torch.float64

    def example(self, rows: int) -> Tensor:
        """Rows of zeros."""
        shape = {"vector": (rows, self.size), "token_seq": (rows, 3), "float_seq": (rows, 3)}.get(self.kind, (rows,))
        return torch.zeros(shape, dtype=self.dtype)

    @property
    def dynamic(self) -> dict[int, Any]:
        """The dimensions that may be of any size."""
        rows = {0: torch.export.Dim("rows", min=1)}
        return rows | ({1: torch.export.Dim(f"members_of_{self.name}", min=1)} if self.kind.endswith("seq") else {})


class Numbers(nn.Module):
    """Numbers of one field as a run's dataset makes them; see :mod:`recbole_alt.data.as_trained`."""

    levels: Tensor

    def __init__(self, dataset: Any, name: str):
        super().__init__()
        config = dataset.config
        self.mean: float = dataset.number_means.get(name, 0.0)
        self.low, self.high = dataset.number_ranges.get(name, (0.0, 1.0))
        self.is_normalised = name in (config["normalize_field"] or []) or bool(config["normalize_all"])
        self.how: dict[str, Any] = (config["discretization"] or {}).get(name) or {}
        self.buckets = int(dataset.field2bucketnum[name])
        self.register_buffer("levels", torch.from_numpy(np.asarray(dataset.number_levels.get(name, np.zeros(0)))))

    def forward(self, values: Tensor) -> Tensor:
        """Pairs (value, row of the embedding) [..., 2] of values [...]; those of a gap in a sequence are 0."""
        is_sequence, gaps = values.dim() > 1, values.isnan()
        values = torch.where(gaps, self.mean, values)
        low, high = self.low, self.high
        if self.is_normalised:
            values = torch.ones_like(values) if low == high else (values - low) / (high - low)
            low, high = (1.0, 1.0) if low == high else (0.0, 1.0)
        rows = torch.ones_like(values)
        if self.how:
            rows, values = self._rows(values, low, high).clamp(1, self.buckets - 1), torch.ones_like(values)
        pairs = torch.stack([values, rows], -1).float()
        return torch.where(gaps.unsqueeze(-1), 0.0, pairs) if is_sequence else pairs

    def _rows(self, values: Tensor, low: float, high: float) -> Tensor:
        if self.how["method"] == "LD":
            is_large = values > 2
            logarithms = torch.where(is_large, ((values * is_large + 1e-9).log() ** 2 + 1).floor(), values)
            return (logarithms.unsqueeze(-1) >= self.levels).double().sum(-1)
        high += 1e-9
        if low == high:
            return torch.full_like(values, self.how["bucket"])
        return ((values - low) * self.how["bucket"] / (high - low) + 1).floor()


class ServedModel(nn.Module):
    """An :class:`~recbole_alt.model.recommender.ALTRecommender` that reads the tensors of its ``inputs``.

    Args:
        model: finetuned, in evaluation mode, on the CPU.
        dataset: the built training dataset of its run.
    """

    def __init__(self, model: Any, dataset: Any):
        super().__init__()
        self.model = model
        self.inputs: list[Input] = []
        numbers = {}
        if model.backbone is not None:
            for field in model.backbone.fields:
                self.inputs.append(Input(field.name, field.kind))
                if field.kind.startswith("float"):
                    numbers[field.name] = Numbers(dataset, field.name)
            sizes = {field_name(side): vectors.shape[1] for side, vectors in dataset.text_vectors.items()}
            self.inputs += [Input(name, "vector", sizes[name]) for name in model.backbone.text_fields]
        if model.text is not None:
            segments = [segment.name for segment in model.prompts.segments]
            self.inputs += [Input(VECTOR + name, "vector", model.text.hidden_size) for name in segments]
        self.numbers = nn.ModuleDict(numbers)

    def forward(self, *given: Tensor) -> Tensor:
        """Click probabilities [N]."""
        named = {one.name: values for one, values in zip(self.inputs, given, strict=True)}
        logits: Tensor | None = None
        model = self.model
        if model.backbone is not None:
            logits = model.backbone.score(self._columns(named))
        if model.text is not None:
            vectors = [values for name, values in named.items() if name.startswith(VECTOR)]
            of_text = model.lm_predict_layer(model.text.fuse(vectors)).squeeze(-1)
            logits = of_text if logits is None else model._mix(logits, of_text)
        assert logits is not None
        return logits.sigmoid()

    def _columns(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The columns of interactions."""
        vectors = self.model.backbone.text_fields
        made = {name: as_sequence(values) if name in vectors else values for name, values in named.items()}
        return made | {name: numbers(named[name]) for name, numbers in self.numbers.items()}
