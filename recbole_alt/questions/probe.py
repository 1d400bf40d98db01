"""Whether texts hold anything that a trained CTR model does not know: ``recbole-alt probe RUN``.

A linear probe: clicks of validation rows are predicted from the model's own score and the first principal components of
the texts' states in the pretrained language model. What it adds holds for texts the probe was not fitted with, and is
compared with what the states of *other* texts add, which can be chance alone. It needs no alignment: the plain model of
``run_recbole_alt.py '--finetune_modes=[]'`` is enough to ask before paying for one.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from recbole_alt import checkpoints
from recbole_alt.loading import Data, load_data_of
from recbole_alt.markdown import markdown_table
from recbole_alt.metrics import auc
from recbole_alt.questions.reading import finetuned, pretrained_states, sample
from recbole_alt.quick_start import load_model

_ROWS = 200_000  # validation rows that are read at most
_COMPONENTS = 32  # principal components of the texts' states
#: How freely the probe follows the texts; the best is taken, for the right texts and for others alike.
_FREEDOM = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_SCORE_SCALE = 100.0  # of the model's score beside the components, so that the penalty is only on them
_FOLDS = 5
_SHUFFLES = 5  # how often texts are dealt out to others


@dataclass
class Probe:
    """What the texts of one segment add to one model.

    Attributes:
        stage, segment: of the run, and of its prompt.
        texts, rows: numbers of distinct texts and of validation rows.
        auc: of the model without the probe.
        with_texts: with the probe of the rows' texts.
        with_others: with the probe of texts dealt out anew, once each.
    """

    stage: str
    segment: str
    texts: int
    rows: int
    auc: float
    with_texts: float
    with_others: list[float]


def probe(folder: str | os.PathLike[str], data: Data | None = None) -> list[Probe]:
    """Ask every finetuned model of a run, or one of them.

    Args:
        folder: of the run, or one of its checkpoints.
        data: what :func:`~recbole_alt.loading.load_data` made for the run, so as not to read it again.

    Raises:
        ValueError: no finetuned model there, its data are other ones now, or one class only.
    """
    found: list[Probe] = []
    states: list[tuple[str, np.ndarray, np.ndarray]] = []  # see text_states
    for file in finetuned(folder):
        state = checkpoints.load(file)
        config = state["config"]
        data = load_data_of(state, file, data)
        train, valid = data[1]._dataset, data[2]._dataset
        rows = valid[sample(len(valid), _ROWS, config["seed"])]
        states = states or text_states(config, train.prompts, rows)
        clicks = (rows[config["LABEL_FIELD"]] > 0.5).numpy()
        logits = score(load_model(state, train, file), rows, config["eval_batch_size"])
        found += [ask(file.stem, name, logits, clicks, vectors, of, config["seed"]) for name, vectors, of in states]
    return found


@torch.no_grad()
def score(model: Any, rows: Any, batch_size: int) -> np.ndarray:
    """Logits [N] of ``rows``."""
    model.eval()
    parts = [model(rows[i : i + batch_size].to(model.device)) for i in range(0, len(rows), batch_size)]
    return torch.cat(parts).double().cpu().numpy()


@torch.no_grad()
def text_states(config: Any, prompts: Any, rows: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of each segment its name, the pooled states of its distinct texts [T, H], and the text of each row [N]."""
    cache = pretrained_states(config, prompts)
    return [
        (texts.segment.name, cache.pooled(texts, config["device"]).double().cpu().numpy(), texts.row.numpy())
        for texts in prompts.distinct(rows)
    ]


def ask(
    stage: str, segment: str, logits: np.ndarray, clicks: np.ndarray, states: np.ndarray, of: np.ndarray, seed: int
) -> Probe:
    """Fit and score the probe of rows with ``logits`` [N], ``clicks`` [N] and texts ``of`` [N] with ``states`` [T, H].

    Raises:
        ValueError: one class only.
    """
    without = auc(clicks, logits)
    if without is None:
        raise ValueError("the validation rows have one class only: there is no AUC to add to")
    components, rng = principal_components(states), np.random.default_rng(seed)
    others = [probed(logits, clicks, rng.permutation(components), of) for _ in range(_SHUFFLES)]
    with_texts = probed(logits, clicks, components, of)
    return Probe(stage, segment, len(states), len(clicks), without, with_texts, others)


def principal_components(states: np.ndarray) -> np.ndarray:
    """The first components [T, K] of ``states`` [T, H], each with a variance of 1."""
    centred = states - states.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    kept = values > 1e-6 * values[0] if values[0] > 0 else values > 0
    return left[:, kept][:, :_COMPONENTS] * len(states) ** 0.5


def probed(logits: np.ndarray, clicks: np.ndarray, components: np.ndarray, of: np.ndarray) -> float:
    """AUC of rows whose texts the probe was not fitted with: each text is left out once, in one of five parts."""
    if not components.size:
        return auc(clicks, logits) or 0.0  # all texts are the same
    spread = (logits - logits.mean()) / max(float(logits.std()), 1e-12)
    features = np.column_stack([_SCORE_SCALE * spread, components[of]])
    reached = []
    for freedom in _FREEDOM:
        scores = np.empty(len(logits))
        for fitted, left_out in GroupKFold(min(_FOLDS, int(of.max()) + 1)).split(features, groups=of):
            fit = LogisticRegression(C=freedom, solver="newton-cholesky").fit(features[fitted], clicks[fitted])
            slope, of_texts = max(_SCORE_SCALE * float(fit.coef_[0, 0]), 1e-3), fit.coef_[0, 1:]
            scores[left_out] = spread[left_out] + features[left_out, 1:] @ of_texts / slope  # parts share a scale
        reached.append(auc(clicks, scores))
    return max(value for value in reached if value is not None)


def to_markdown(found: Sequence[Probe]) -> str:
    """A table: what the right texts add, beside what texts of others do."""
    header = ["model", "texts of", "distinct", "alone", "with the texts", "with others' texts", "gain over others"]
    rows = []
    for one in found:
        others = fmean(one.with_others)
        spread = f"{others:.4f} ({min(one.with_others):.4f} to {max(one.with_others):.4f})"
        reached = [f"{one.auc:.4f}", f"{one.with_texts:.4f}", spread, f"{one.with_texts - others:+.4f}"]
        rows.append([one.stage, one.segment, f"{one.texts:,}", *reached])
    title = f"AUC on {found[0].rows:,} validation rows, alone and with a linear probe of the texts' states"
    return f"{title}\n\n{markdown_table(header, rows, 'llr')}\n"
