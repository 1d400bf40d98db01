"""Encodes texts so that the states of each depend on this text only, to the last bit, and not on its batch.

How a processor adds numbers up depends on the shapes of the matrices. So a text is padded to a length that follows from
its own length, and a batch of that length always has the same number of rows. States can then be kept in any order, on
disk too, and a run that finds them has the results of one that makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_alt.model.language import LanguageModel

#: Texts are padded to a multiple of this number of tokens.
STEP = 4
#: Tokens of a batch, by type of device: enough to keep it busy, and few, because the last batch of a length is filled.
TOKENS = {"cpu": 512, "cuda": 4096}
_BYTES = np.dtype(np.int64).itemsize  # of a token id


@dataclass(frozen=True)
class Encoded:
    """The states of N texts."""

    texts: list[bytes]  # [N]
    input_ids: Tensor  # [N, L]
    attention_mask: Tensor  # [N, L], 0 at padding
    states: Tensor  # [N, L, H], undefined at padding
    pooled: Tensor  # [N, H]


@torch.no_grad()
def encode_each(
    language_model: LanguageModel,
    texts: Sequence[bytes],
    device: torch.device,
    runtime: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Iterator[Encoded]:
    """Encode each of ``texts``, the bytes of its token ids as :func:`token_bytes` gives them, in batches.

    A ``runtime`` makes the states [N, L, H] of ids and attention mask [N, L], instead of the language model.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64) // _BYTES
    for part, rows, length in _batches(lengths, TOKENS.get(device.type, TOKENS["cuda"])):
        some, n = [texts[i] for i in part], len(part)
        input_ids = np.zeros((rows, length), dtype=np.int64)
        attention_mask = np.zeros((rows, length), dtype=np.int64)
        attention_mask[:, 0] = 1  # of rows without a text
        for row, text in enumerate(some):
            input_ids[row, : lengths[part[row]]] = np.frombuffer(text, dtype=np.int64)
            attention_mask[row, : lengths[part[row]]] = 1
        input_ids[n:] = input_ids[0]
        ids, mask = torch.from_numpy(input_ids).to(device), torch.from_numpy(attention_mask).to(device)
        if runtime is None:
            states, pooled = language_model.encode_padded(ids, mask)
        else:
            states = runtime(ids, mask)
            pooled = language_model.pool(states, mask)
        language_model.texts_encoded += n
        yield Encoded(some, ids[:n], mask[:n], states[:n], pooled[:n])


def _batches(lengths: np.ndarray, tokens: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Batches of the texts with these lengths [N]: the texts, the number of rows, and the length of these.

    Each has padding, since without any, Hugging Face leaves the mask out, and another kernel may compute.
    """
    padded = -(-lengths // STEP) * STEP
    for length in np.unique(padded).tolist():
        rows = max(2, tokens // length)
        waiting = np.flatnonzero(padded == length)
        while len(waiting):
            part = waiting[:rows]
            if len(part) == rows and (lengths[part] == length).all():
                part = part[:-1]
            waiting = waiting[len(part) :]
            yield part, rows, length


def padded_length(text: bytes) -> int:
    """To how many tokens a text, as :func:`token_bytes` gives it, is padded."""
    return -(-len(text) // (STEP * _BYTES)) * STEP


def token_bytes(input_ids: Tensor, attention_mask: Tensor, lengths: np.ndarray) -> list[bytes]:
    """The token ids of each text [N, L] without padding, which tell it from all others."""
    return [ids[:length].tobytes() for ids, length in zip(input_ids.cpu().numpy(), lengths.tolist(), strict=True)]
