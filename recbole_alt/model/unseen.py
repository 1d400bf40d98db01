"""What values without a training row start finetuning with."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from recbole.data.interaction import Interaction
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
    device = next(backbone.parameters()).device
    with _reading(backbone) as read:
        hidden = _read_by(backbone, read, _hiding(backbone, dataset))
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


#: The tables that a model reads for a field, each with the row of id 0, which stands for no value.
RowsOfNoValue = list[tuple[nn.Embedding, int]]


@torch.no_grad()
def zero_unknown(backbone: Backbone, parts: Sequence[Any]) -> dict[str, RowsOfNoValue]:
    """Give values that the data do not have, id 0, embeddings of zeros, in place; for ``unseen_values: zero``.

    Where the data have gaps in a field, id 0 stands for a missing value and keeps what was learned of it.

    Args:
        parts: all parts of the split, the training part first.

    Returns:
        The token fields with gaps, and their rows of id 0.
    """
    with_gaps = {}
    for name, rows in rows_of_no_value(backbone, parts[0]).items():
        if any(bool((part.column(name) == 0).any()) for part in parts):
            with_gaps[name] = rows
        else:
            for table, row in rows:
                table.weight[row] = 0
    return with_gaps


@torch.no_grad()
def rows_of_no_value(backbone: Backbone, dataset: Any) -> dict[str, RowsOfNoValue]:
    """The rows of id 0 of each token field that has any value; ``dataset`` has two rows or more."""
    found: dict[str, RowsOfNoValue] = {}
    with _reading(backbone) as read:
        hidden = _read_by(backbone, read, _hiding(backbone, dataset))
        for field in backbone.fields:
            if field.kind == "token" and field.size > 1:
                shown = _hiding(backbone, dataset)
                shown.interaction[field.name] = torch.ones_like(shown.interaction[field.name])
                for seen in read.values():
                    seen.zero_()
                left = _read_by(backbone, read, shown)
                found[field.name] = [
                    (table, row)
                    for table, rows in hidden.items()
                    for row in sorted(set(rows.tolist()) - set(left[table].tolist()))
                ]
    return found


def _hiding(backbone: Backbone, dataset: Any) -> Interaction:
    """Two rows of which the model sees no value."""
    first = dataset[:2].to(next(backbone.parameters()).device)
    return mask_table(first, backbone.fields, torch.ones(len(first), len(backbone.fields), dtype=torch.bool))


@contextmanager
def _reading(backbone: Backbone) -> Iterator[dict[nn.Embedding, Tensor]]:
    """Embedding table → True for each row that was read since; tables of several values at once are left out."""
    several = {part for name, part in backbone.named_modules() if "seq_embedding_table" in name}
    tables = [table for table in embedding_tables(backbone) if table not in several]
    read = {table: torch.zeros(table.num_embeddings, dtype=torch.bool) for table in tables}

    def note(table: nn.Module, given: tuple[Tensor, ...]) -> None:
        read[table][given[0].flatten().cpu()] = True  # type: ignore[index]

    with ExitStack() as undo:
        undo.callback(backbone.train, backbone.training)
        for table in tables:
            undo.callback(table.register_forward_pre_hook(note).remove)
        backbone.eval()
        yield read


def _read_by(backbone: Backbone, read: dict[nn.Embedding, Tensor], rows: Interaction) -> dict[nn.Embedding, Tensor]:
    """The rows of each table that were read, ``rows`` scored last; ascending."""
    backbone.score(rows)
    return {table: seen.nonzero().squeeze(1) for table, seen in read.items()}
