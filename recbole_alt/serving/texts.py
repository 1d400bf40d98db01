"""The language model of a run in ONNX: token ids in, token states and pooled states out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alt.model.language import LanguageModel
from recbole_alt.serving.exporting import difference, write_graph

FILE = "text.onnx"

_SHORT = 8  # tokens of the texts that the graph is made from


class _Encoder(nn.Module):
    """Token states [N, L, H] and pooled states [N, H] in 32 bits."""

    def __init__(self, model: LanguageModel, encoder: Any):
        super().__init__()
        self.encoder, self.pool = encoder, model.pool

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states, self.pool(states, attention_mask)


@torch.no_grad()
def export_texts(model: LanguageModel, encoder: Any, most_tokens: int, folder: Path) -> float | None:
    """Write ``text.onnx``.

    Its inputs are ``input_ids`` and ``attention_mask`` [N, L], padded on the right; its outputs ``states`` [N, L, H]
    and ``pooled`` [N, H], as ``pooling`` says.

    Args:
        encoder: of ``model``, adapters merged in.
        most_tokens: the longest text.

    Returns:
        The greatest difference from PyTorch; None if nothing could be compared.
    """
    graph = _Encoder(model, encoder).eval()
    dims = {0: torch.export.Dim("texts", min=1), 1: torch.export.Dim("tokens", min=2, max=most_tokens)}
    encoder.set_attn_implementation("eager")  # whose graph ONNX Runtime runs fastest
    write_graph(
        graph, _texts(2, _SHORT), (dims, dims), ["input_ids", "attention_mask"], ["states", "pooled"], folder / FILE
    )  # fmt: skip
    ids, mask = _texts(3, min(most_tokens, 2 * _SHORT + 1))
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    return difference(folder / FILE, given, [made.numpy() for made in graph(ids, mask)])


def _texts(number: int, length: int) -> tuple[Tensor, Tensor]:
    """Texts of different lengths."""
    ids = torch.arange(number * length).view(number, length) + 10
    mask = (torch.arange(length) < length - torch.arange(number)[:, None]).long()
    return ids * mask, mask
