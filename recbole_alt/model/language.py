"""The language model: any Hugging Face encoder or decoder, and what is made of it when it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_alt import pretrained
from recbole_alt.data.moving import moved
from recbole_alt.data.tokens import SpecialTokens
from recbole_alt.families import family_of, freeze_first_layers, keep_first_layers
from recbole_alt.model.adapters import AdapterState, add_lora
from recbole_alt.model.gpu import Packing, compile_layers, has_kernel
from recbole_alt.model.precision import autocast, fastest_precision
from recbole_alt.model.state_store import StateFolder

#: Texts worth a group of their own, by type of device: on a GPU, launching its kernels takes longer than padding.
_LEAST_TEXTS = {"cpu": 64, "cuda": 512}
_MOST_GROUPS = 4  # that a batch is cut into


class LanguageModel(nn.Module):
    """A Hugging Face encoder, or decoder, that returns token states and a pooled state.

    Args:
        encoder: an ``AutoModel`` of one stack of layers, or a ``PeftModel`` around one.
        pooling: ``cls`` for the first token's state, ``last`` for the last one's, ``mean`` over the real tokens.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (what is measured to be fastest).

    Attributes:
        texts_encoded: how many texts it has encoded.
        state_folder: where the states of texts are kept for other runs; None if they are not.
        packs: whether its encoder reads packed texts; see :mod:`recbole_alt.model.gpu`.
        uses_onnx: whether ONNX Runtime encodes what a :class:`~recbole_alt.model.text_cache.TextCache` keeps; not if it
            is trained.
    """

    def __init__(self, encoder: Any, *, pooling: str = "mean", precision: str = "fp32"):
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.precision = precision
        self.hidden_size = int(encoder.config.hidden_size)
        self.texts_encoded = 0
        self.state_folder: StateFolder | None = None
        self.uses_onnx = self.packs = False

    @property
    def is_fixed(self) -> bool:
        """True if none of its parameters is trained."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    def train(self, mode: bool = True) -> LanguageModel:
        """As torch's, except that one of which nothing is trained stays in evaluation mode."""
        return super().train(mode and not self.is_fixed)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, lengths: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token states [N, L, H] and pooled states [N, H] of texts [N, L] padded on the right, both in 32 bits.

        Without ``lengths`` [N], their numbers of tokens, these are counted, for which a GPU makes the caller wait.
        """
        self.texts_encoded += len(input_ids)
        lengths = attention_mask.sum(1).cpu().numpy() if lengths is None else lengths
        if self.packs and self.computes_in_16_bits(input_ids.device) and has_kernel(input_ids.device):
            states = self._encode_packed(input_ids, lengths)
        else:
            states = self._encode_by_length(input_ids, attention_mask, lengths)
        return states, self.pool(states, attention_mask)

    def encode_padded(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` with all texts padded as they are given, and not counted."""
        states = self._encode(input_ids, attention_mask)
        return states, self.pool(states, attention_mask)

    def encode(self, texts: Sequence[tuple[Tensor, Tensor, np.ndarray]]) -> list[tuple[Tensor, Tensor]]:
        """:meth:`forward` of several groups of texts [N_i, L_i] in one call."""
        if len(texts) < 2:
            return [self(*group) for group in texts]
        longest = max(ids.shape[1] for ids, _, _ in texts)
        filled = [torch.cat([ids, ids[:, :1].expand(-1, longest - ids.shape[1])], 1) for ids, _, _ in texts]
        mask = torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for _, mask, _ in texts])
        states, pooled = self(torch.cat(filled), mask, np.concatenate([lengths for _, _, lengths in texts]))
        sizes = [len(group) for group, _, _ in texts]
        return [
            (part[:, : group.shape[1]], of_part)
            for part, of_part, (group, _, _) in zip(states.split(sizes), pooled.split(sizes), texts, strict=True)
        ]

    def compile_layers(self) -> None:
        """Compile each layer of the encoder; see :func:`~recbole_alt.model.gpu.compile_layers`."""
        adapted = hasattr(self.encoder, "get_base_model")
        compile_layers(self.encoder.get_base_model() if adapted else self.encoder)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Computes in this model's precision."""
        return autocast(self.precision, device)

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooled states [N, H] of token states [N, L, H]."""
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "last":
            last = (attention_mask.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
            return states.gather(1, last).squeeze(1)
        weight = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp(min=1)

    @property
    def max_tokens(self) -> int | None:
        """The longest text it reads, in tokens; None where nothing limits it."""
        longest = getattr(self.encoder.config, "max_position_embeddings", None)
        return None if longest is None else longest - self._first_position

    @property
    def _first_position(self) -> int:
        """The position of a text's first token; RoBERTa counts from its padding id on."""
        tables = (part for name, part in self.encoder.named_modules() if name.endswith("position_embeddings"))
        paddings = (getattr(table, "padding_idx", None) for table in tables)
        return 1 + next((padding for padding in paddings if padding is not None), -1)

    def computes_in_16_bits(self, device: torch.device) -> bool:
        """True if its precision on ``device`` is bf16 or fp16."""
        return (fastest_precision(device) if self.precision == "auto" else self.precision) != "fp32"

    def _encode_by_length(self, input_ids: Tensor, attention_mask: Tensor, lengths: np.ndarray) -> Tensor:
        """States [N, L, H], texts of like length encoded together so that little padding is computed."""
        n_groups = max(1, min(_MOST_GROUPS, len(lengths) // _LEAST_TEXTS[input_ids.device.type]))
        if n_groups == 1:
            return self._encode(input_ids, attention_mask)
        order = lengths.argsort(kind="stable")
        into_order, back = (moved(torch.from_numpy(which), input_ids.device) for which in (order, order.argsort()))
        encoded: list[Tensor] = []
        for part in into_order.chunk(n_groups):
            last = sum(len(states) for states in encoded) + len(part) - 1
            length = int(lengths[order[last]])
            states = self._encode(input_ids[part, :length], attention_mask[part, :length])
            encoded.append(F.pad(states, (0, 0, 0, input_ids.shape[1] - length)))
        return torch.cat(encoded)[back]

    def _encode_packed(self, input_ids: Tensor, lengths: np.ndarray) -> Tensor:
        """States [N, L, H] of texts that are encoded without any padding."""
        packing = moved(Packing.of(lengths, input_ids.shape[1]), input_ids.device)
        with self.autocast(input_ids.device):
            return packing.encode(self.encoder, input_ids, self._first_position)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        with self.autocast(input_ids.device):
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()


class AdaptedLanguageModel(AdapterState, LanguageModel):
    """A language model with LoRA: its state holds only the adapters."""


def load_language_model(
    name: str,
    *,
    layers: int | None = None,
    pooling: str = "mean",
    precision: str = "fp32",
    gradient_checkpointing: bool = False,
    frozen_layers: int | str | None = None,
    lora_rank: int | None = None,
    lora_alpha: int | None = None,
    random_seed: int | None = None,
    device: torch.device | None = None,
) -> LanguageModel:
    """Load a pretrained language model, with room for every token of its tokenizer.

    Args:
        name: see :func:`recbole_alt.pretrained.resolve`.
        layers: keep the first ``layers`` only.
        pooling, precision: see :class:`LanguageModel`.
        gradient_checkpointing: recompute activations in the backward pass; less memory, more time.
        frozen_layers: freeze the embeddings and so many of the first layers, or everything (``all``).
        lora_rank, lora_alpha: freeze all weights and train adapters; see :func:`~recbole_alt.model.adapters.add_lora`.
        random_seed: draw the weights from this seed instead of loading them.
        device: where it is going to be moved to; by default a processor.

    Raises:
        ValueError: no weights to be found or not those of the model, a tokenizer that is not its own, fewer layers than
            asked for, or a pooling this model has no state for.
    """
    from transformers import AutoModel

    if frozen_layers not in (None, "all") and lora_rank is not None:
        raise ValueError("frozen_layers and lora_rank: LoRA freezes all layers already; give one of them")
    tokenizer = pretrained.load_tokenizer(name)
    if random_seed is None:
        encoder = pretrained.load_encoder(name)
    else:
        architecture = pretrained.load_config(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            encoder = AutoModel.from_config(architecture, dtype=torch.float32)
    if encoder.main_input_name != "input_ids":
        kind = type(encoder).__name__
        raise ValueError(f"language_model: {name!r} is a {kind}, which reads no texts: choose one that does")
    if (note := pretrained.other_pooling(name, pooling)) is not None:
        getLogger().info(note)
    if pooling == "cls" and family_of(encoder).causal:
        raise ValueError(f"pooling: the first token of {name!r} sees no other token (a decoder): use last or mean")
    if pooling == "cls" and not SpecialTokens.of(tokenizer).before:
        raise ValueError(f"pooling: the tokenizer of {name!r} puts no token before a text for cls: use mean or last")
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # never used, and a parameter without gradient
    encoder.config.use_cache = False  # of a decoder: nothing is generated
    packs = False
    if device is not None and device.type == "cuda":
        from recbole_alt.model.packed_attention import set_attention  # late: it takes seconds to import

        packs = set_attention(encoder)
    new_tokens = make_room(encoder, tokenizer, name)
    if layers is not None:
        keep_first_layers(encoder, layers)
    if gradient_checkpointing:
        if not encoder.supports_gradient_checkpointing:
            raise ValueError(f"gradient_checkpointing: {type(encoder).__name__} can't; leave it out")
        encoder.gradient_checkpointing_enable({"use_reentrant": False})
    if frozen_layers == "all":  # of the weights there are; LoRA trains others
        encoder.requires_grad_(False)
    elif frozen_layers is not None:
        freeze_first_layers(encoder, int(frozen_layers))
    if lora_rank is None:
        model = LanguageModel(encoder, pooling=pooling, precision=precision)
        model.packs = packs
        return model
    adapted = add_lora(encoder, rank=lora_rank, alpha=lora_alpha, trained_tokens=new_tokens)
    model = AdaptedLanguageModel(adapted, pooling=pooling, precision=precision)
    model.packs = packs
    model.leave_out_frozen()
    return model


def make_room(encoder: Any, tokenizer: Any, name: str) -> list[int]:
    """Give the tokens added to ``tokenizer`` an embedding, the mean of all, in place; returns the ids of these tokens.

    Raises:
        ValueError: it has more words of its own than ``encoder`` has embeddings.
    """
    rows = encoder.get_input_embeddings().num_embeddings
    added = list(pretrained.added_tokens(tokenizer))
    ids = set(tokenizer.get_vocab().values())
    if (words := max(ids.difference(added)) + 1) > rows:
        raise ValueError(
            f"language_model: the tokenizer of {name!r} has {words} words, its model has {rows} embeddings "
            "(vocab_size in config.json): give the tokenizer and the weights that belong together"
        )
    if max(ids) >= rows:
        mean = encoder.get_input_embeddings().weight.data.mean(0)
        encoder.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        encoder.get_input_embeddings().weight.data[rows:] = mean
    return added
