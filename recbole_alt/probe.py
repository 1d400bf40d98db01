"""Whether texts hold anything that a trained CTR model does not know: ``recbole-alt probe RUN``.

A linear probe: clicks of validation rows are predicted from the model's own score and the first principal components of
the texts' states in the pretrained language model. What it adds holds for texts the probe was not fitted with, and is
compared with what the states of *other* texts add, which can be chance alone. It needs no alignment: the plain model of
``run_recbole_alt.py '--finetune_modes=[]'`` is enough to ask before paying for one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from recbole.utils import get_model
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from recbole_alt import checkpoints
from recbole_alt.config import require_registered
from recbole_alt.data.identity import require_same_data
from recbole_alt.diagnose import some_rows
from recbole_alt.experiment import Data, load_data
from recbole_alt.markdown import markdown_table
from recbole_alt.model.build import build_text
from recbole_alt.model.text_cache import TextCache
from recbole_alt.model.weights import load_finetuned
from recbole_alt.study.statistics import auc

#: Validation rows that are read at most.
_ROWS = 200_000
#: Principal components of the texts' states.
_COMPONENTS = 32
#: How freely the probe follows the texts; the best is taken, for the right texts and for others alike.
_FREEDOM = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
#: Scale of the model's score beside the components, so that the penalty is on them alone.
_SCORE_SCALE = 100.0
_FOLDS = 5
#: How often texts are dealt out to others.
_SHUFFLES = 5


@dataclass
class Probe:
    """What the texts of one segment add to one model.

    Attributes:
        stage: of the run: ``plain``, ``ctr``, ``lm`` or ``joint``.
        segment: of the prompt: ``user``, ``item``, or both in one.
        texts, rows: distinct texts, and validation rows.
        auc: of the model alone.
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
    """Ask every finetuned model of a run.

    Args:
        folder: of the run.
        data: what :func:`~recbole_alt.experiment.load_data` made for the run, so as not to read it again.

    Raises:
        ValueError: no finetuned model there, its data are other ones now, or one class only.
    """
    files = [Path(folder) / f"{stage}.pth" for stage in ("plain", "ctr", "lm", "joint")]
    files = [file for file in files if file.is_file()]
    if not files:
        raise ValueError(f"{os.fspath(folder)!r} holds no finetuned model (plain.pth, ctr.pth, lm.pth, joint.pth)")
    found = []
    states: list[tuple[str, np.ndarray, np.ndarray]] = []
    for file in files:
        state = checkpoints.load(file)
        config = state["config"]
        require_registered(config["model"], file)
        data = data or load_data(config)
        require_same_data(state, data[1]._dataset, file=file)
        train, rows = data[1]._dataset, some_rows(data[2]._dataset, config["seed"], _ROWS)
        states = states or text_states(config, train.prompts, rows)
        clicks = (rows[config["LABEL_FIELD"]] > 0.5).numpy()
        logits = score(config, state, train, rows, file)
        found += [ask(file.stem, name, logits, clicks, vectors, of, config["seed"]) for name, vectors, of in states]
    return found


@torch.no_grad()
def score(config: Any, state: dict[str, Any], train: Any, rows: Any, file: Path) -> np.ndarray:
    """Logits [N] of the model in ``state``."""
    model = get_model(config["model"])(config, train).to(config["device"])
    load_finetuned(model, state, file)
    model.eval()
    size = config["eval_batch_size"]
    parts = [model(rows[i : i + size].to(config["device"])) for i in range(0, len(rows), size)]
    return torch.cat(parts).double().cpu().numpy()


@torch.no_grad()
def text_states(config: Any, prompts: Any, rows: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of each segment its name, the pooled states of its distinct texts [T, H], and the text of each row [N]."""
    cache = TextCache(build_text(config, prompts).to(config["device"]).eval().language_model)
    return [
        (texts.segment.name, cache.pooled(texts, config["device"]).double().cpu().numpy(), texts.row.numpy())
        for texts in prompts.distinct(rows)
    ]


def ask(
    stage: str, segment: str, logits: np.ndarray, clicks: np.ndarray, states: np.ndarray, of: np.ndarray, seed: int
) -> Probe:
    """Fit and score the probe.

    Args:
        stage, segment: for the record.
        logits: [N] of the model.
        clicks: [N] bool.
        states: [T, H] of the texts.
        of: [N] the text of each row.
        seed: of how texts are dealt out.

    Raises:
        ValueError: one class only.
    """
    alone = auc(clicks, logits)
    if alone is None:
        raise ValueError("the validation rows have one class only: there is no AUC to add to")
    components = principal_components(states)
    rng = np.random.default_rng(seed)
    others = [probed(logits, clicks, components[rng.permutation(len(states))], of) for _ in range(_SHUFFLES)]
    with_texts = probed(logits, clicks, components, of)
    return Probe(stage, segment, len(states), len(clicks), alone, with_texts, others)


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
