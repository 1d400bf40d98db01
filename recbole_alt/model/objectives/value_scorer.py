"""Scoring the values of fields: a softmax over all of a field, or some drawn from a noise distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_alt import processes

_BELOW_ONE = 1 - 2**-40  # a field's number added to it is below the next field's number, in 64 bits


@dataclass
class FieldValues:
    """M values of some fields, numbered as in a :class:`ValueScorer`.

    Noise is drawn at once for ``whole`` values, of which those of this process stand from ``begin`` on.
    """

    number: Tensor  # [M]
    field: Tensor  # [M]
    whole: int
    begin: int = 0
    of_field: list[Tensor] | None = None  # for each field, which of the M are its own; only ``full_softmax`` reads it

    @classmethod
    def of_one_field(cls, value: Tensor) -> FieldValues:
        """The values [M] of a scorer's only field."""
        every = torch.arange(len(value), device=value.device)
        return cls(value, torch.zeros_like(value), len(value), of_field=[every])


class ValueScorer(nn.Module):
    """Scores of the values of some fields by their embeddings and a bias each, and three losses over them.

    The values of all fields are scored at once, as on a GPU many small steps take longer than a large one. They are
    numbered one field after the other: value ``v`` of the ``i``-th field is ``first[i] + v``. Value 0 of a field has no
    probability under the noise and none under the model.

    Args:
        counts: of each field, [V] how often each value occurs in training rows: the noise.
        norm_term: the logarithm of the normalisation that ``nce`` begins with.

    Attributes:
        sizes: V of each field.
        first: the number of each field's value 0.
    """

    def __init__(self, counts: Sequence[Tensor], norm_term: float):
        super().__init__()
        self.sizes = [len(of_field) for of_field in counts]
        self.first = [0, *accumulate(self.sizes)][: len(self.sizes)]
        noise = [_noise(of_field) for of_field in counts]
        log_noise = torch.cat(noise).log().float()
        self.norm_term = norm_term
        self.log_noise: Tensor
        self.register_buffer("log_noise", log_noise, persistent=False)
        self._cumulative: Tensor  # [all V], the noise added up, of the ``i``-th field from i to i + 1
        cumulative = [(i + of_field.cumsum(0)).clamp(max=i + 1) for i, of_field in enumerate(noise)]
        for i, of_field in enumerate(cumulative):
            of_field[-1] = i + 1  # which rounding may miss
        self.register_buffer("_cumulative", torch.cat(cumulative), persistent=False)
        self.bias = nn.Parameter(log_noise.clamp(min=math.log(1e-12)) + norm_term)

    def measure(
        self, vector: Tensor, values: FieldValues, embed: Callable[[Tensor], Tensor], loss: str, n_noise: int
    ) -> tuple[Tensor, Tensor]:
        """Loss [M] of each of the true ``values``, and whether it came first [M], from the vectors [M, D].

        ``embed`` gives the embeddings [..., D] of values by their numbers [...].
        """
        if loss == "full_softmax":
            return self._against_all(vector, values, embed)
        noise, true = self.noise(values, n_noise), values.number.unsqueeze(1)
        true_score, noise_score = (self._score(vector, numbers, embed) for numbers in (true, noise))
        same = noise == true
        first = (true_score.detach() > noise_score.detach().masked_fill(same, -torch.inf)).all(1)
        true_noise, noise_noise = self.log_noise[true], self.log_noise[noise]
        if loss == "nce":
            return nce_loss(true_score - self.norm_term, noise_score - self.norm_term, true_noise, noise_noise), first
        others = noise_score.masked_fill(same, -torch.inf)
        return sampled_softmax_loss(true_score, others, true_noise, noise_noise), first

    def noise(self, values: FieldValues, n_noise: int) -> Tensor:
        """Numbers [M, n_noise] of values drawn from the noise of each value's field, with replacement.

        All processes have the noise that the first one draws.
        """
        uniform = torch.rand(values.whole, n_noise, dtype=torch.float64, device=self._cumulative.device)
        own = processes.as_first(uniform)[values.begin : values.begin + len(values.number)].clamp(max=_BELOW_ONE)
        return torch.searchsorted(self._cumulative, own + values.field.unsqueeze(1), right=True)

    def _score(self, vector: Tensor, numbers: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        bias = F.embedding(numbers, self.bias.unsqueeze(1)).squeeze(-1)
        return torch.einsum("md,mkd->mk", vector, embed(numbers)) + bias

    def _against_all(
        self, vector: Tensor, values: FieldValues, embed: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        assert values.of_field is not None
        losses, firsts = vector.new_zeros(len(vector)), torch.zeros(len(vector), dtype=torch.bool, device=vector.device)
        for begin, size, own in zip(self.first, self.sizes, values.of_field, strict=True):
            if len(own):
                every = torch.arange(begin, begin + size, device=vector.device)
                score = vector[own] @ embed(every).T + self.bias[every]
                score = score.index_fill(1, torch.zeros(1, dtype=torch.long, device=score.device), -torch.inf)
                true = values.number[own] - begin
                losses = losses.index_copy(0, own, F.cross_entropy(score, true, reduction="none"))
                firsts = firsts.index_copy(0, own, score.detach().argmax(-1) == true)
        return losses, firsts


def _noise(counts: Tensor) -> Tensor:
    """The probability of each value of a field, 64-bit: its share of the ``counts``; 0 for value 0."""
    counts = counts.double().clone()
    counts[0] = 0
    if counts.sum() == 0:
        counts[1:] = 1
    counts[1:] = counts[1:].clamp(min=1e-3)  # a value unseen in training can still be scored
    return counts / counts.sum().clamp(min=1e-3)


def nce_loss(true_score: Tensor, noise_score: Tensor, true_noise: Tensor, noise_noise: Tensor) -> Tensor:
    """Noise-contrastive estimation: is a value the true one, or drawn from the noise?

    With ``Δ(x) = log p_model(x) − log(k · q(x))``, the loss [M] is ``−log σ(Δ(true)) − Σ log σ(−Δ(noise))``. Scores are
    ``log p_model``, and what ends in ``_noise`` is ``log q``, of the true [M, 1] and of the noise values [M, k].
    """
    log_k = math.log(noise_score.shape[1])
    true = F.softplus(-(true_score - true_noise - log_k)).sum(1)
    noise = F.softplus(noise_score - noise_noise - log_k).sum(1)
    return true + noise


def sampled_softmax_loss(true_score: Tensor, noise_score: Tensor, true_noise: Tensor, noise_noise: Tensor) -> Tensor:
    """Cross-entropy over the true value and the noise, each score less its log probability under the noise.

    As :func:`nce_loss`, with unnormalised scores; a noise value that is the true one has score −∞.
    """
    scores = torch.cat([true_score - true_noise, noise_score - noise_noise], dim=1)
    return -scores.log_softmax(1)[:, 0]
