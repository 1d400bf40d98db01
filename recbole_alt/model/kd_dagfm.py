"""RecBole's ``KD_DAGFM``, a student that learns from a teacher: its weights are loaded safely and its shapes mended."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from recbole.model.context_aware_recommender import kd_dagfm as host
from torch import Tensor

from recbole_alt import checkpoints
from recbole_alt.compat import Except, replaces
from recbole_alt.data.identity import require_same_data
from recbole_alt.key_table import KEYS


@replaces(host.KD_DAGFM, "__init__")
def _build_safely(original: Callable[..., None], self: Any, config: Any, dataset: Any) -> None:
    """Cause: the text of ``teacher`` is evaluated as code, ``warm_up`` is read with a plain ``torch.load``, and a bare
    tensor is kept on the GPU whenever there is one.
    """
    for key in ("teacher", "phase", "type"):
        KEYS[key].kind.refuse(key, config[key])
    host.torch = Except(torch, load=functools.partial(_warm_up_weights, dataset=dataset))
    try:
        original(self, config, dataset)
    finally:
        host.torch = torch
    adjacency = vars(self.student_network).pop("adj_matrix")
    self.student_network.register_buffer("adj_matrix", adjacency, persistent=False)


@replaces(host.KD_DAGFM, "calculate_loss")
def _take_labels_as_a_column(original: Callable[..., Tensor], self: Any, interaction: Any) -> Tensor:
    """Cause: the label of a single row is squeezed away."""
    column = interaction[self.LABEL].view(-1, 1)
    return original(self, type(interaction)({**interaction.interaction, self.LABEL: column}))


@replaces(host.KD_DAGFM, "predict")
def _predict_a_vector(original: Callable[..., Tensor], self: Any, interaction: Any) -> Tensor:
    """Cause: predictions are [B, 1]."""
    return original(self, interaction).view(-1)


def _warm_up_weights(file: str, dataset: Any) -> dict[str, Any]:
    """The weights in the checkpoint ``warm_up`` names, which must be of ``dataset``; nothing in it is executed."""
    if not file:
        raise ValueError("warm_up: name the plain.pth or ctr.pth of a run with the phase before")
    try:
        state = checkpoints.load(file)
        weights = state["state_dict"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"warm_up must be the plain.pth or ctr.pth of a run with the phase before: {error}") from None
    require_same_data(state, dataset, file=file, what="warm_up", held_out_only=True)
    prefix = "backbone.model."  # in a checkpoint of ours, beside which joint.pth has the text tower
    ours = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
    return {"state_dict": ours or weights}
