"""A word embedding that holds the rows a dataset's prompts can ask for, and no others."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrunedEmbedding(nn.Module):
    """The rows ``token_ids`` [P] of a word embedding ``table`` [V, E], under the ids they had.

    An optimiser touches every row at every step, so the rows of a large vocabulary that no prompt asks for cost as much
    as a small encoder. Its state is the whole table with the trained rows in their places, as if it was not pruned.
    """

    token_ids: Tensor
    row: Tensor
    whole: Tensor

    def __init__(self, table: Tensor, token_ids: Tensor):
        super().__init__()
        self.register_buffer("token_ids", token_ids, persistent=False)
        rows = torch.full((len(table),), -1).index_copy(0, token_ids, torch.arange(len(token_ids)))
        self.register_buffer("row", rows, persistent=False)
        self.register_buffer("whole", table.detach().clone(), persistent=False)
        self.weight = nn.Parameter(table.detach()[token_ids].clone())

    def forward(self, input_ids: Tensor) -> Tensor:
        """[N, L] ids → [N, L, E].

        Raises:
            IndexError: an id whose row was not kept.
        """
        return F.embedding(self.row[input_ids], self.weight)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.whole.index_copy(0, self.token_ids, self.weight.detach())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        name = prefix + "weight"
        if name in state_dict and len(state_dict[name]) == len(self.whole):
            self.whole.copy_(state_dict[name])
            state_dict[name] = state_dict[name][self.token_ids.to(state_dict[name].device)]
        super()._load_from_state_dict(state_dict, prefix, *args)


def prune_vocabulary(encoder: Any, token_ids: np.ndarray) -> None:
    """Keep only the word embeddings of the distinct ``token_ids``, in place; all where they are not trained."""
    embedding = encoder.get_input_embeddings()
    if isinstance(embedding, nn.Embedding) and embedding.weight.requires_grad:
        encoder.set_input_embeddings(PrunedEmbedding(embedding.weight, torch.from_numpy(token_ids).long()))
