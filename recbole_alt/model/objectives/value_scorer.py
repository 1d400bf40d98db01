"""Scoring the values of a field: a softmax over all of them, or some drawn from a noise distribution."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_alt import processes


@dataclass(frozen=True)
class Draws:
    """Noise is drawn at once for ``whole`` values, of which those of this process stand from ``begin`` on."""

    whole: int
    begin: int = 0


class ValueScorer(nn.Module):
    """Scores of one field's values by their embeddings and a bias each, and three losses over them.

    Value 0 has no probability under the noise and none under the model.

    Args:
        counts: [V] how often each value occurs in training rows: the noise.
        norm_term: the logarithm of the normalisation that ``nce`` begins with.
    """

    def __init__(self, counts: Tensor, norm_term: float):
        super().__init__()
        counts = counts.double().clone()
        counts[0] = 0
        if counts.sum() == 0:
            counts[1:] = 1
        counts[1:] = counts[1:].clamp(min=1e-3)  # a value unseen in training can still be scored
        log_noise = (counts / counts.sum()).log().float()
        self.norm_term = norm_term
        self.log_noise: Tensor
        self.register_buffer("log_noise", log_noise, persistent=False)
        self.bias = nn.Parameter(log_noise.clamp(min=math.log(1e-12)) + norm_term)

    def measure(
        self,
        vector: Tensor,
        value: Tensor,
        embed: Callable[[Tensor], Tensor],
        loss: str,
        n_noise: int,
        draws: Draws | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss [M] of each of the true values [M], and whether it came first [M], from the vectors [M, D].

        ``embed`` gives the embeddings [..., D] of values [...]. All processes have the noise that the first one draws.
        """
        if loss == "full_softmax":
            score = self._all(vector, embed)
            return F.cross_entropy(score, value, reduction="none"), score.detach().argmax(-1) == value
        draws = draws or Draws(len(value))
        drawn = torch.multinomial(self.log_noise.exp(), draws.whole * n_noise, replacement=True)
        noise = processes.as_first(drawn).view(-1, n_noise)[draws.begin : draws.begin + len(value)]
        true_score = self._score(vector, value.unsqueeze(1), embed)
        noise_score = self._score(vector, noise, embed)
        same = noise == value.unsqueeze(1)
        first = (true_score.detach() > noise_score.detach().masked_fill(same, -torch.inf)).all(1)
        true_noise, noise_noise = self.log_noise[value].unsqueeze(1), self.log_noise[noise]
        if loss == "nce":
            return nce_loss(true_score - self.norm_term, noise_score - self.norm_term, true_noise, noise_noise), first
        others = noise_score.masked_fill(same, -torch.inf)
        return sampled_softmax_loss(true_score, others, true_noise, noise_noise), first

    def _score(self, vector: Tensor, values: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        bias = F.embedding(values, self.bias.unsqueeze(1)).squeeze(-1)
        return torch.einsum("md,mkd->mk", vector, embed(values)) + bias

    def _all(self, vector: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        score = vector @ embed(torch.arange(len(self.bias), device=self.bias.device)).T + self.bias
        return score.index_fill(1, torch.zeros(1, dtype=torch.long, device=score.device), -torch.inf)


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
