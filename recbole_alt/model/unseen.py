"""What values without a training row start finetuning with."""

from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn

from recbole_alt.model.backbones import Backbone, embedding_tables, mask_table

_ROWS_AT_ONCE = 8192


@torch.no_grad()
def set_unseen_values(backbone: Backbone, dataset: Any, to: Literal["hidden", "zero"]) -> int:
    """Give every value that no row of ``dataset`` has another embedding than the one it was initialised with, in place.

    Training never reads these embeddings: values that are new in validation are scored with what they start with.
    It becomes what alignment learned for a hidden value of the field (``hidden``), or zeros (``zero``). Fields of
    several values at once (``token_seq``) stay as they are: alignment empties one to hide it, and learns no embedding.

    Returns:
        how many rows of embedding tables changed.
    """
    several = {part for name, part in backbone.named_modules() if "seq_embedding_table" in name}
    tables = [table for table in embedding_tables(backbone) if table not in several]
    read = {table: torch.zeros(table.num_embeddings, dtype=torch.bool) for table in tables}

    def note(table: nn.Module, given: tuple[Tensor, ...]) -> None:
        read[table][given[0].flatten().cpu()] = True  # type: ignore[index]

    was_training = backbone.training
    device = next(backbone.parameters()).device
    first = dataset[:2].to(device)
    nothing = mask_table(first, backbone.fields, torch.ones(len(first), len(backbone.fields), dtype=torch.bool))
    with ExitStack() as undo:
        undo.callback(backbone.train, was_training)
        for table in tables:
            undo.callback(table.register_forward_pre_hook(note).remove)
        backbone.eval()
        backbone.score(nothing)
        hidden = {table: seen.nonzero().squeeze(1) for table, seen in read.items()}
        for start in range(0, len(dataset), _ROWS_AT_ONCE):
            backbone.score(dataset[start : start + _ROWS_AT_ONCE].to(device))
    changed = 0
    for table, seen in read.items():
        unseen = (~seen).nonzero().squeeze(1)
        field = torch.searchsorted(hidden[table], unseen, right=True) - 1  # a field's rows follow its hidden one
        unseen, field = unseen[field >= 0], field[field >= 0]
        given = table.weight[hidden[table][field].to(device)]
        table.weight[unseen.to(device)] = given if to == "hidden" else torch.zeros_like(given)
        changed += len(unseen)
    return changed
