"""Weights into a model that may not be the one they were trained in: they fit, or one line says what does not."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

#: Kinds of fields as RecBole names their embedding tables; a sequence field has a table of its own.
_KINDS = ("token_seq", "token", "float_seq", "float")


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """``module.load_state_dict(state)``.

    Raises:
        ValueError: begins with ``what``, such as ``"'ctr.pth' does not fit"``, and names the first weight that is
            missing, too many or of another shape, and the fields it is of.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{what}: {misfit(module, state, error)}") from None


def load_finetuned(model: Any, state: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """Fill an :class:`~recbole_alt.model.recommender.ALTRecommender` from the checkpoint ``state``, read from ``file``.

    Raises:
        ValueError: it is of another model or of other data.
    """
    try:
        model.load_state_dict(state["state_dict"])
        model.load_other_parameter(state["other_parameter"])
    except KeyError as error:
        raise ValueError(f"{os.fspath(file)!r} holds no finetuned model: it has no {error}") from None
    except ValueError as error:
        raise ValueError(f"{os.fspath(file)!r}: {error}") from None


def misfit(module: nn.Module, state: Mapping[str, Tensor], error: RuntimeError) -> str:
    """Why ``module.load_state_dict(state)`` raised ``error``, in one line."""
    own = module.state_dict()
    for key, weight in own.items():
        if key in state and state[key].shape != weight.shape:
            return f"{key}{_fields(module, key)} has shape {list(state[key].shape)} there and {list(weight.shape)} here"
    for key in own:
        if key not in state:
            return f"{key}{_fields(module, key)} is not there"
    for key in state:
        if key not in own:
            return f"{key} is there, and this model has no such weight"
    return " ".join(str(error).split())


def _fields(module: nn.Module, key: str) -> str:
    """The fields whose embeddings ``key`` holds, in brackets; empty for other weights."""
    path = key.split(".")
    for kind in _KINDS:
        table = f"{kind}_embedding_table"
        if table in path:
            at = path.index(table)
            names = list(getattr(module.get_submodule(".".join(path[:at])), f"{kind}_field_names", []))
            number = path[at + 1] if kind.endswith("seq") else ""
            names = names[int(number) :][:1] if number.isdigit() else names
            return f" (of {', '.join(names)})" if names else ""
    return ""
