"""The aligned towers and objectives of a run, for more users and items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.build import build_alignment
from recbole_alt.model.grounding import PREFIX
from recbole_alt.model.growing import NewRows, grown_state
from recbole_alt.model.objectives.masked_language import MaskedLanguageObjective
from recbole_alt.model.objectives.objective import Objective
from recbole_alt.model.weights import load_weights

_PARTS = ("backbone", "text", "objectives")
_OF_TRAINING = ("optimizer", "scheduler", "scaler", "rng")


def grown_alignment(
    state: Mapping[str, Any],
    file: str,
    config: Any,
    data: tuple[Any, Any],
    rows: Callable[[AlignmentModel], Mapping[str, NewRows]],
    vectors: Mapping[str, Tensor],
) -> dict[str, Any]:
    """The checkpoint ``state`` of an alignment, read from ``file``, with more ids.

    The objectives score new values, and tokens that no prompt held, as before any training. What only serves to go on
    with training is left out.

    Args:
        config: the same configuration, of the extended data.
        data: the built training datasets, without and with what is new.
        rows: token field → the rows of its new ids, of an aligned model.
        vectors: ``user`` and ``item`` → the vectors of the texts of all ids, [n + m, K], where there are new ones.
    """
    old, new = (_build(*pair) for pair in zip((state["config"], config), data, strict=True))
    for name in _PARTS:
        load_weights(getattr(old, name), state[name], f"{file!r} does not fit its own {name}")
    grown = {key: value for key, value in state.items() if key not in _OF_TRAINING}
    tables = grown_state(old.backbone.eval(), data[0], rows(old))
    grown["backbone"] = state["backbone"] | {f"model.{key}": weight.cpu() for key, weight in tables.items()}
    for side, of_side in vectors.items():
        if (key := f"{PREFIX}{side}.vectors") in state["backbone"]:
            before = state["backbone"][key]
            grown["backbone"][key] = torch.cat([before, of_side[len(before) :]])
    grown["objectives"] = {}
    for name, objective in new.objectives.items():
        for key, weight in objective.state_dict().items():
            before = state["objectives"][f"{name}.{key}"]
            grown["objectives"][f"{name}.{key}"] = _with_rows(weight, before, old.objectives[name], objective)
    for name in _PARTS:
        load_weights(getattr(new, name), grown[name], f"{file!r} can't be extended: its {name}")
    return grown


def _build(config: Any, dataset: Any) -> AlignmentModel:
    init_seed(config["seed"], config["reproducibility"])
    return build_alignment(config, dataset, get_model(config["model"]).backbone_class)


def _with_rows(weight: Tensor, before: Tensor, old: Objective, new: Objective) -> Tensor:
    """``before``, or where more is scored ``weight``, [n + m, ...], with the rows of ``before`` [n, ...] in place."""
    if weight.shape == before.shape:
        return before
    place = torch.arange(len(before))
    if isinstance(old, MaskedLanguageObjective) and isinstance(new, MaskedLanguageObjective):
        place = torch.searchsorted(new.token_ids, old.token_ids).cpu()
    made = weight.detach().cpu().clone()
    made[place] = before.cpu()
    return made
