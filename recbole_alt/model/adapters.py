"""LoRA: small trained matrices beside frozen weights; only they enter a checkpoint."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

_SAMPLES = 64  # values of each weight that its fingerprint is made from


def add_lora(encoder: Any, *, rank: int, alpha: int | None, trained_tokens: list[int]) -> Any:
    """A ``PeftModel`` of ``encoder`` with LoRA on all its linear layers, everything else frozen.

    Args:
        encoder: an ``AutoModel``.
        rank: of the adapters.
        alpha: scale, ``alpha / rank`` times the adapter; None for ``2 * rank``.
        trained_tokens: token ids whose embeddings are trained too.

    Raises:
        ValueError: ``peft`` is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ValueError("lora_rank needs the package peft: pip install 'recbole_alt[lora]'") from None
    alpha = 2 * rank if alpha is None else alpha
    tokens = trained_tokens or None
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", trainable_token_indices=tokens)
    return get_peft_model(encoder, config)


class AdapterState(nn.Module):
    """A module whose state holds its trained weights and a fingerprint of the frozen ones, which must be the same."""

    base_fingerprint: Tensor

    def leave_out_frozen(self) -> None:
        """From now on, leave what is frozen now out of the state."""
        frozen = {name: p for name, p in self.named_parameters() if not p.requires_grad}
        self.left_out = sorted(frozen)
        self.register_buffer("base_fingerprint", fingerprint(frozen))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """As torch's, without the frozen weights."""
        state = super().state_dict(*args, **kwargs)
        for name in self.left_out:
            del state[kwargs.get("prefix", "") + name]
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        theirs = state_dict.get(prefix + "base_fingerprint")
        if theirs is not None and not torch.equal(theirs.cpu(), self.base_fingerprint.cpu()):
            raise ValueError("the checkpoint holds an adapter of another language model than the one given")
        for name in self.left_out:
            state_dict[prefix + name] = self.get_parameter(name).data
        super()._load_from_state_dict(state_dict, prefix, *args)


def fingerprint(weights: dict[str, nn.Parameter]) -> Tensor:
    """32 bytes [32] that tell one set of weights from another, from a few values of each."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        flat = weights[name].detach().flatten()
        some = flat[:: max(1, len(flat) // _SAMPLES)].float().cpu()
        digest.update(f"{name} {tuple(weights[name].shape)}".encode())
        digest.update(some.numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
